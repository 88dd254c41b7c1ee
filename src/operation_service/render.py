"""Turns what the service knows into the messages of the protocol."""

from datetime import UTC, datetime

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import Operation
from operation_service.errors import CorruptRecordError
from operation_service.model import Event, Failure, Log, Resource, State, View
from operation_service.status import to_duration

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LENGTH_DELIMITED = 2
_OPERATION = bytes([pb.OperationRecord.OPERATION_FIELD_NUMBER << 3 | _LENGTH_DELIMITED])
"""What stands before an operation within its record, and its length."""

STATES = {State(name.removeprefix("OPERATION_STATE_")): number for name, number in pb.OperationState.items() if number}
"""The protocol's numbers of the states."""
EVENTS = {Event(name.removeprefix("OPERATION_EVENT_")): number for name, number in pb.OperationEvent.items() if number}
"""The protocol's numbers of the events."""


def written_operation(view: View, *, shows_token: bool = True) -> bytes:
    """Render what changes something answers with, serialized.

    Rule 8: what is over has locked_until unset and is_disabled_cancel false, lest anybody take it for a dead operator.

    Args:
        view: The operation.
        shows_token: Whether the peer token is told, or left empty.

    Raises:
        CorruptRecordError: What was stored with it is no message.
    """
    # What is written behind a message is a part of it: so a hundred logs need not become messages again and again.
    message = _operation(view)
    if not shows_token:
        message.ClearField("proposing_peer_token")
    return message.SerializeToString() + view.logs.written(_written_log)


def written_operation_record(view: View, *, shows_token: bool = True) -> bytes:
    """Render what a read of one answers with, serialized. Takes and raises the same as `written_operation`."""
    operation = written_operation(view, shows_token=shows_token)
    return _record(view).SerializeToString() + _OPERATION + _varint(len(operation)) + operation


def operation_record(view: View, *, shows_token: bool = True) -> pb.OperationRecord:
    """Render one of many. Takes and raises the same as `written_operation`."""
    message = _record(view)
    message.operation.MergeFromString(written_operation(view, shows_token=shows_token))
    return message


def _operation(view: View) -> Operation:
    """Render it without its logs."""
    record, message = view.record, Operation()
    message.proposing_peer_token = record.lock.token if record.lock else record.creator_token
    if view.request is not None:
        message.operation_request.CopyFrom(_any(view.request, f"request of {view.resource}"))
    lock = view.lock or record.lock
    if lock is not None and not record.phase.is_over:
        _set(message.locked_until, lock.locked_until)
        message.is_disabled_cancel = lock.is_disabled_cancel
    return message


def _record(view: View) -> pb.OperationRecord:
    """Render it without its operation."""
    record = view.record
    lock = view.lock or record.lock
    message = pb.OperationRecord(
        project=view.resource.project,
        name=view.resource.name,
        state=STATES[view.state],
        fencing_token=record.fencing_token or 0,
        revision=view.revision,
        holder=lock.holder if lock else record.creator,
    )
    if lock is not None:
        _set(message.locked_since, lock.locked_since)
    if view.lock is not None and view.remaining is not None:
        message.remaining.CopyFrom(to_duration(view.remaining))
    if record.failure is not None:
        message.error.CopyFrom(_status(record.failure, view.resource))
    return message


def log_line(log: Log) -> Operation.Log:
    """Render one log."""
    return Operation.Log(ts=timestamp(log.ts), message=log.message)


def _written_log(log: Log) -> bytes:
    return Operation(logs=[log_line(log)]).SerializeToString()


def timestamp(moment: datetime) -> Timestamp:
    """Render a UTC time."""
    rendered = Timestamp()
    _set(rendered, moment)
    return rendered


def _set(rendered: Timestamp, moment: datetime) -> None:
    since = moment - _EPOCH
    rendered.seconds = since.days * 86_400 + since.seconds
    rendered.nanos = since.microseconds * 1_000


def _status(failure: Failure, resource: Resource) -> Status:
    details = [_any(detail, f"error of {resource}") for detail in failure.details]
    return Status(code=failure.code, message=failure.message, details=details)


def _varint(number: int) -> bytes:
    """Write a number as protobuf does: seven bits a byte, the lowest first; all but the last have the eighth set."""
    written = bytearray()
    while number > 0x7F:  # noqa: PLR2004, what seven bits hold
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _any(data: bytes, what: str) -> Any:
    try:
        return Any.FromString(data)
    except DecodeError as error:
        raise CorruptRecordError(what, "it is no google.protobuf.Any") from error
