"""Binds the servicer's methods to the wire, so that every failure leaves as section 5 of the contract says.

The generated registration parses requests where nobody can catch a failure: gRPC answers wrong UTF-8 with INTERNAL and
writes a traceback. Here a request that cannot be parsed reaches the method's wrapper as what is wrong with it.

All methods are bound as if requests and answers were streams: so a call passes its gate before its request is read,
and counts until its answer is on its way; and one that ends without a request is answered, of which gRPC would tell a
method that takes one request nothing at all. On the wire that is the same.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from operation_service.admission import Admission, FullError, Gate
from operation_service.compression import DecompressionError, decompressed
from operation_service.delivery import CallerGoneError, Delivery, NotReadError
from operation_service.errors import InvalidRequestError, OperationError, UnforeseenError, Violation
from operation_service.status import to_status

_log = logging.getLogger(__name__)

_LENGTH_DELIMITED = 2
_MAX_LOOKED_INTO_BYTES = 32 * 1024
"""Megabytes of the smallest fields there are would keep all other callers waiting for seconds."""

_REQUEST_SECONDS = 10.0
"""For a request to arrive, 270 KiB at most, once its call has."""
_ANSWER_SECONDS = 5.0
"""For an answer to be read, before the call gives up its place."""

Context = grpc.aio.ServicerContext[Message, Message]
Request = Message | InvalidRequestError
Guarded = Callable[[Request, Context], Awaitable[Message | None]]


def handlers(
    service: ServiceDescriptor, servicer: object, delivery: Delivery, admission: Admission | None = None
) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
    """Return the handlers of a service, by the names of its rpcs.

    Args:
        service: The service's descriptor.
        servicer: Has an async method by the name of each rpc, which writes by itself if it answers with a stream.
        delivery: Writes.
        admission: Says how many calls may be served at once. None: any number.
    """
    return {
        method.name: _handler(method, getattr(servicer, method.name), delivery, admission) for method in service.methods
    }


def _handler(
    method: MethodDescriptor, behavior: Callable[..., Any], delivery: Delivery, admission: Admission | None
) -> "grpc.RpcMethodHandler[Any, Any]":
    is_stream = method.server_streaming
    guarded = _guarded(behavior, delivery, None if is_stream else _ANSWER_SECONDS)
    gate = None
    if admission is not None:
        gate = admission.watches if is_stream else admission.calls
    bound: Callable[..., Any] = _bound(guarded, delivery, gate)
    return grpc.stream_stream_rpc_method_handler(
        bound,
        request_deserializer=_parser(GetMessageClass(method.input_type)),
        response_serializer=GetMessageClass(method.output_type).SerializeToString,
    )


def _bound(guarded: Guarded, delivery: Delivery, gate: Gate | None) -> Callable[..., Awaitable[None]]:
    async def call(_requests: object, context: Context) -> None:
        try:
            with gate.place() if gate else _open(), contextlib.suppress(NotReadError, CallerGoneError):
                request = await _request(context)
                size = 0 if isinstance(request, InvalidRequestError) else request.ByteSize()
                with gate.room(size) if gate else _open():
                    answer = await guarded(request, context)
                del request
                if answer is not None:
                    await delivery.write(context, answer, _ANSWER_SECONDS)
        except FullError as full:
            await delivery.refuse(context, full.status)

    return call


_open = contextlib.nullcontext[None]


async def _request(context: Context) -> Request:
    try:
        async with asyncio.timeout(_REQUEST_SECONDS):
            request: Any = await context.read()
    except TimeoutError:
        return InvalidRequestError([Violation("", f"the request did not arrive within {_REQUEST_SECONDS:.0f} s")])
    if request is grpc.aio.EOF:
        # It is the same when the caller has gone. Then the call is cancelled now, and nobody need be told.
        await asyncio.sleep(0)
        return InvalidRequestError([Violation("", "the call ended before there was a whole request in it")])
    parsed: Request = request
    return parsed


def _parser(request_class: type[Message]) -> Callable[[bytes], Request]:
    def parse(data: bytes) -> Request:
        try:
            data = decompressed(data)
            return request_class.FromString(data)
        except DecompressionError as error:
            return InvalidRequestError([Violation("", str(error))])
        except DecodeError:
            return InvalidRequestError(_violations(data, request_class))

    return parse


def _violations(data: bytes, request_class: type[Message]) -> list[Violation]:
    """Name the fields that keep a request from being parsed: the parser itself says only that it cannot."""
    whole = [Violation("", f"the request is not a serialized {request_class.DESCRIPTOR.full_name}")]
    if len(data) > _MAX_LOOKED_INTO_BYTES:
        return whole
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


def _guarded(behavior: Callable[..., Awaitable[Message | None]], delivery: Delivery, patience: float | None) -> Guarded:
    """Tell errors as section 5 of the contract says; wait for so many seconds until they are read."""

    async def call(request: Request, context: Context) -> Message | None:
        if isinstance(request, InvalidRequestError):
            # Not raised: it would be held by the frames that its own traceback holds, and the call with them.
            await delivery.abort(context, _status(request, request), patience)
            return None
        try:
            return await behavior(request, context)
        except OperationError as error:
            # As above.
            error.__traceback__ = None
            await delivery.abort(context, _status(error, request), patience)
        except grpc.aio.InternalError as error:
            raise CallerGoneError from error
        except (grpc.aio.AbortError, CallerGoneError):
            raise
        except Exception:  # noqa: BLE001, the last resort, which logs and tells
            _log.exception("a call failed in a way that nobody has foreseen")
            await delivery.abort(context, _status(UnforeseenError(), request), patience)
        return None

    return call


def _status(error: OperationError, request: Request) -> grpc.Status:
    return to_status(error, project=getattr(request, "project", ""), name=getattr(request, "name", ""))
