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

STATES = {State(name.removeprefix("OPERATION_STATE_")): number for name, number in pb.OperationState.items() if number}
"""The protocol's numbers of the states."""
EVENTS = {Event(name.removeprefix("OPERATION_EVENT_")): number for name, number in pb.OperationEvent.items() if number}
"""The protocol's numbers of the events."""


def operation(view: View) -> Operation:
    """Render what changes something answers with.

    Rule 8: what is over has locked_until unset and is_disabled_cancel false, lest anybody take it for a dead operator.
    """
    record, message = view.record, Operation()
    message.proposing_peer_token = record.lock.token if record.lock else record.creator_token
    if view.logs:
        # As bytes: a message that stands behind another is merged into it, and a hundred logs are soon copied.
        message.MergeFromString(view.logs.written(_written_log))
    if view.request is not None:
        message.operation_request.CopyFrom(_any(view.request, f"request of {view.resource}"))
    lock = view.lock or record.lock
    if lock is not None and not record.phase.is_over:
        _set(message.locked_until, lock.locked_until)
        message.is_disabled_cancel = lock.is_disabled_cancel
    return message


def operation_record(view: View) -> pb.OperationRecord:
    """Render what reads answer with."""
    record = view.record
    lock = view.lock or record.lock
    message = pb.OperationRecord(
        project=view.resource.project,
        name=view.resource.name,
        state=STATES[view.state],
        operation=operation(view),
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


def _any(data: bytes, what: str) -> Any:
    try:
        return Any.FromString(data)
    except DecodeError as error:
        raise CorruptRecordError(what, "it is no google.protobuf.Any") from error
