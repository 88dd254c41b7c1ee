"""Binds the servicer's methods to the wire, so that every failure leaves as section 5 of the contract says.

The generated registration parses requests where nobody can catch a failure: gRPC answers wrong UTF-8 with INTERNAL and
writes a traceback. Here a request that cannot be parsed reaches the method's wrapper as what is wrong with it.
"""

import contextlib
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from operation_service.errors import InvalidRequestError, OperationError, UnforeseenError, Violation
from operation_service.status import to_status

_log = logging.getLogger(__name__)

_LENGTH_DELIMITED = 2

Context = grpc.aio.ServicerContext[Message, Message]
Request = Message | InvalidRequestError


def handlers(service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
    """Return the handlers of a service.

    Args:
        service: The service's descriptor.
        servicer: Has an async method, or an async generator, by the name of each rpc.
    """
    methods = {method.name: _handler(method, getattr(servicer, method.name)) for method in service.methods}
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def _handler(method: MethodDescriptor, behavior: Callable[..., Any]) -> "grpc.RpcMethodHandler[Any, Any]":
    deserializer = _parser(GetMessageClass(method.input_type))
    serializer = GetMessageClass(method.output_type).SerializeToString
    if method.server_streaming:
        guard = _guarded_stream if inspect.isasyncgenfunction(behavior) else _guarded
        return grpc.unary_stream_rpc_method_handler(
            guard(behavior), request_deserializer=deserializer, response_serializer=serializer
        )
    return grpc.unary_unary_rpc_method_handler(
        _guarded(behavior), request_deserializer=deserializer, response_serializer=serializer
    )


def _parser(request_class: type[Message]) -> Callable[[bytes], Request]:
    def parse(data: bytes) -> Request:
        try:
            return request_class.FromString(data)
        except DecodeError:
            return InvalidRequestError(_violations(data, request_class))

    return parse


def _violations(data: bytes, request_class: type[Message]) -> list[Violation]:
    """Name the fields that keep a request from being parsed: the parser itself says only that it cannot."""
    whole = [Violation("", f"the request is not a serialized {request_class.DESCRIPTOR.full_name}")]
    try:
        # To a message without fields all fields are unknown, and nothing in them is looked into.
        unknown: Any = UnknownFieldSet(Empty.FromString(data))
    except DecodeError:
        return whole
    wrong: dict[str, str] = {}
    for each in unknown:
        field: Any = request_class.DESCRIPTOR.fields_by_number.get(each.field_number)
        if field is None or each.wire_type != _LENGTH_DELIMITED:
            continue
        if field.type == FieldDescriptor.TYPE_STRING and not _is_utf8(each.data):
            wrong[field.name] = "must be valid UTF-8"
        elif field.type == FieldDescriptor.TYPE_MESSAGE and not _is_parsable(field, each.data):
            wrong[field.name] = f"must be a {field.message_type.full_name}, its strings valid UTF-8"
    return [Violation(name, description) for name, description in wrong.items()] or whole


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_parsable(field: Any, data: bytes) -> bool:  # noqa: ANN401, the stubs know two kinds of descriptors
    try:
        GetMessageClass(field.message_type).FromString(data)
    except DecodeError:
        return False
    return True


def _guarded(behavior: Callable[..., Awaitable[Message]]) -> Callable[..., Awaitable[Message]]:
    async def call(request: Request, context: Context) -> Message:
        async with _errors_told(request, context):
            return await behavior(request, context)
        raise AssertionError

    return call


def _guarded_stream(
    behavior: Callable[..., AsyncGenerator[Message, None]],
) -> Callable[..., AsyncGenerator[Message, None]]:
    async def call(request: Request, context: Context) -> AsyncGenerator[Message, None]:
        # Closed here and now when the caller goes away, not when the garbage collector comes by.
        async with _errors_told(request, context), contextlib.aclosing(behavior(request, context)) as responses:
            async for response in responses:
                yield response

    return call


@contextlib.asynccontextmanager
async def _errors_told(request: Request, context: Context) -> AsyncIterator[None]:
    try:
        if isinstance(request, InvalidRequestError):
            raise request  # noqa: TRY301, the one place where errors are told
        yield
    except OperationError as error:
        await _abort(context, error, request)
    except grpc.aio.AbortError:
        raise
    except Exception:  # noqa: BLE001, the last resort, which logs and tells
        _log.exception("a call failed in a way that nobody has foreseen")
        await _abort(context, UnforeseenError(), request)


async def _abort(context: Context, error: OperationError, request: Request) -> None:
    project, name = getattr(request, "project", ""), getattr(request, "name", "")
    await context.abort_with_status(to_status(error, project=project, name=name))
