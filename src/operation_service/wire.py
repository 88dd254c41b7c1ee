"""Binds the servicer's methods to the wire, so that every failure leaves as section 5 of the contract says.

The generated registration parses requests where nobody can catch a failure: gRPC answers wrong UTF-8 with INTERNAL and
writes a traceback. Here a request that cannot be parsed reaches the method's wrapper as what is wrong with it.

All methods are bound as if requests were streams: so a call passes its gate before its request is read; and one that
ends without a request is answered, of which gRPC would tell a method that takes one request nothing at all. On the wire
that is the same. A call counts until its answer is on its way.
"""

import asyncio
import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from n0stack.operation.v1alpha.operation_service_pb2 import CompleteOperationRequest
from operation_service import weights
from operation_service.access import Access, Door
from operation_service.admission import Admission, FullError, Gate
from operation_service.bounds import Bounds
from operation_service.compression import DecompressionError, decompressed
from operation_service.delivery import Answer, CallerGoneError, Delivery, NotReadError
from operation_service.errors import InvalidRequestError, OperationError, UnforeseenError, Violation
from operation_service.identities import NOBODY, Identity
from operation_service.status import to_status

_log = logging.getLogger(__name__)

_LENGTH_DELIMITED = 2
_MAX_LOOKED_INTO_BYTES = 32 * 1024
"""Megabytes of the smallest fields there are would keep all other callers waiting for seconds."""

_MAX_BYTES = {
    "n0stack.operation.v1alpha.CreateOperationRequest": 512 * 1024,
    "n0stack.operation.v1alpha.CompleteOperationRequest": 128 * 1024,
    # Is shortened before it is kept.
    "grpc.health.v1.HealthCheckRequest": 4 * 1024 * 1024,
}
"""Of a request: about twice what a valid one can have. Larger ones are not parsed: that can take 28 times as much."""
_MAX_BYTES_OF_OTHERS = 32 * 1024
_MAX_FIELDS_LOOKED_AT = 1_000

_REQUEST_SECONDS = 10.0
"""For a request to arrive, 270 KiB at most, once its call has."""
_ANSWER_SECONDS = 5.0
"""For an answer to be read, before the call gives up its place."""

Context = grpc.aio.ServicerContext[Message, Message]
Request = Message | OperationError
Guarded = Callable[[Request, Context, Identity], Awaitable[Answer | None]]
Arrival = Callable[[Context], Awaitable[tuple[Request, Identity]]]
Shorten = Callable[[Message], Message]


def handlers(
    service: ServiceDescriptor,
    servicer: object,
    delivery: Delivery,
    admission: Admission,
    shorten: Shorten | None = None,
    *,
    access: Access | None = None,
) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
    """Return the handlers of a service, by the names of its rpcs.

    Args:
        service: The service's descriptor.
        servicer: Has an async method by the name of each rpc, which writes by itself if it answers with a stream.
        delivery: Writes.
        admission: Says how many calls may be served at once.
        shorten: Makes of a request that was parsed what is kept of it. None: all of it is.
        access: Says who may call, and what; the servicer's methods are given the permit too. None: everybody may call.
    """
    doors = {method.name: Door(access, method.name) if access else None for method in service.methods}
    return {
        method.name: _handler(
            method,
            functools.partial(_guarded, getattr(servicer, method.name), delivery, doors[method.name]),
            functools.partial(_arrival, bounds=Bounds(), door=doors[method.name]),
            (delivery, admission, shorten),
        )
        for method in service.methods
    }


def _handler(
    method: MethodDescriptor,
    guard: Callable[[float | None], Guarded],
    arrival: Arrival,
    rest: tuple[Delivery, Admission, Shorten | None],
) -> "grpc.RpcMethodHandler[Any, Any]":
    delivery, admission, shorten = rest
    parse = _parser(GetMessageClass(method.input_type), shorten)
    # What is written, or returned to be written, is serialized already (delivery.py).
    if method.server_streaming:
        streaming: Callable[..., Any] = _streaming(guard(None), arrival, delivery, admission.watches)
        return grpc.stream_stream_rpc_method_handler(streaming, request_deserializer=parse)
    answering: Callable[..., Any] = _answering(guard(_ANSWER_SECONDS), arrival, delivery, admission.calls)
    return grpc.stream_unary_rpc_method_handler(answering, request_deserializer=parse)


def _streaming(guarded: Guarded, arrival: Arrival, delivery: Delivery, gate: Gate) -> Callable[..., Awaitable[None]]:

    async def call(_requests: object, context: Context) -> None:
        try:
            with gate.place():
                request, caller = await arrival(context)
                with gate.room(_weight(request)):
                    await guarded(request, context, caller)
        except (NotReadError, CallerGoneError):
            pass
        except FullError as full:
            await delivery.refuse(context, full.status)

    return call


def _answering(guarded: Guarded, arrival: Arrival, delivery: Delivery, gate: Gate) -> Callable[..., Awaitable[bytes]]:
    async def call(_requests: object, context: Context) -> bytes:
        leave: Callable[[], None] | None = None
        try:
            gate.enter()
            leave = gate.leave
            request, caller = await arrival(context)
            with gate.room(_weight(request)):
                answer = await guarded(request, context, caller)
            del request
            if answer is not None:
                data = delivery.hand_over(answer, _ANSWER_SECONDS, leave)
                leave = None
                return data
        except CallerGoneError:
            pass
        except FullError as full:
            if leave is not None:
                # It is refused for want of room; until that is read it holds nothing.
                leave()
                leave = None
            await delivery.refuse(context, full.status)
        finally:
            if leave is not None:
                leave()
        # Its error is on its way, or there is nobody to read this.
        return b""

    return call


async def _arrival(context: Context, *, bounds: Bounds, door: Door | None) -> tuple[Request, Identity]:
    """Find out who calls, and only then wait for the request."""
    caller = NOBODY if door is None else door.caller(context)
    if isinstance(caller, OperationError):
        return caller, NOBODY
    return await _request(context, bounds), caller


async def _request(context: Context, bounds: Bounds) -> Request:
    try:
        with bounds.within(_REQUEST_SECONDS):
            request: Any = await context.read()
    except TimeoutError:
        return InvalidRequestError([Violation("", f"the request did not arrive within {_REQUEST_SECONDS:.0f} s")])
    if request is grpc.aio.EOF:
        # It is the same when the caller has gone. Then the call is cancelled now, and nobody need be told.
        await asyncio.sleep(0)
        return InvalidRequestError([Violation("", "the call ended before there was a whole request in it")])
    parsed: Request = request
    return parsed


def _weight(request: Request) -> int:
    """Return about how many bytes a request takes in memory."""
    if isinstance(request, OperationError):
        return 0
    details = len(request.error.details) if isinstance(request, CompleteOperationRequest) else 0
    return request.ByteSize() + weights.DETAIL * details


def _parser(request_class: type[Message], shorten: Shorten | None = None) -> Callable[[bytes], Request]:
    max_bytes = _MAX_BYTES.get(request_class.DESCRIPTOR.full_name, _MAX_BYTES_OF_OTHERS)

    def parse(data: bytes) -> Request:
        try:
            data = decompressed(data)
            if len(data) > max_bytes:
                return InvalidRequestError([_largest(data, request_class, max_bytes)])
            request = request_class.FromString(data)
            return shorten(request) if shorten else request
        except DecompressionError as error:
            return InvalidRequestError([Violation("", str(error))])
        except DecodeError:
            return InvalidRequestError(_violations(data, request_class))

    return parse


def _largest(data: bytes, request_class: type[Message], max_bytes: int) -> Violation:
    """Name the field that makes a request too large, without parsing it."""
    sizes: Counter[int] = Counter()
    with contextlib.suppress(IndexError):
        at = 0
        for _ in range(_MAX_FIELDS_LOOKED_AT):
            begin = at
            tag, at = _varint(data, at)
            match tag & 7:
                case 0:
                    _, at = _varint(data, at)
                case 1:
                    at += 8
                case 2:
                    size, at = _varint(data, at)
                    at += size
                case 5:
                    at += 4
                case _:
                    break
            sizes[tag >> 3] += at - begin
    field = request_class.DESCRIPTOR.fields_by_number.get(sizes.most_common(1)[0][0]) if sizes else None
    if field is None:
        return Violation("", f"the request must be {max_bytes} bytes or less")
    return Violation(field.name, f"is too large: the whole request must be {max_bytes} bytes or less")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number; return it, and where it ends.

    Raises:
        IndexError: The data end in it, or it has no end.
    """
    value = 0
    for place in range(10):
        value |= (data[at + place] & 0x7F) << 7 * place
        if data[at + place] < 0x80:  # noqa: PLR2004, the flag of a byte that is followed by another
            return value, at + place + 1
    raise IndexError


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


def _guarded(
    behavior: Callable[..., Awaitable[Answer | None]], delivery: Delivery, door: Door | None, patience: float | None
) -> Guarded:
    """Tell errors as section 5 of the contract says; wait for so many seconds until they are read."""

    async def call(request: Any, context: Context, caller: Identity) -> Answer | None:  # noqa: ANN401, any request
        if isinstance(request, OperationError):
            # Not raised: it would be held by the frames that its own traceback holds, and the call with them.
            await delivery.abort(context, _status(request, request), patience)
            return None
        try:
            if door is None:
                return await behavior(request, context)
            return await behavior(request, context, door.permit(caller, request.project))
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
