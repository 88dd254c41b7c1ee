"""What tables show of operations: plain cells, safe for a terminal."""

from datetime import UTC
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import Operation
from operation_service.terminal_text import shown

HEADER = ("PROJECT", "NAME", "STATE", "HOLDER", "HELD SINCE", "REMAINING", "LAST LOG")
NOTHING = "-"
OVER = frozenset({pb.OPERATION_STATE_SUCCEEDED, pb.OPERATION_STATE_FAILED, pb.OPERATION_STATE_CANCELLED})
"""The states of operations that nothing more can be done for."""
_STATES = {number: name.removeprefix("OPERATION_STATE_") for name, number in pb.OperationState.items()}
_EVENTS = {number: name.removeprefix("OPERATION_EVENT_") for name, number in pb.OperationEvent.items()}
_MAX_LOG = 200
"""Characters of a log in a table; `get` and `logs` show all of it."""
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


class Row(NamedTuple):
    """An operation in a table: a cell for each word of HEADER."""

    project: str
    name: str
    state: str
    holder: str
    held_since: str
    remaining: str
    last_log: str


def row(record: pb.OperationRecord, remaining_seconds: float | None = None) -> Row:
    """Return what a table shows of an operation.

    Args:
        record: The operation.
        remaining_seconds: How long the lock lasts by now. None: as long as the record says.
    """
    if remaining_seconds is None:
        remaining_seconds = record.remaining.ToTimedelta().total_seconds()
    logs = record.operation.logs
    return Row(
        shown(record.project),
        shown(record.name),
        state_name(record.state),
        shown(record.holder) or NOTHING,
        moment(record.locked_since) if record.HasField("locked_since") else NOTHING,
        duration(remaining_seconds) if record.HasField("remaining") else NOTHING,
        cut(shown(logs[-1].message)) if logs else NOTHING,
    )


def state_name(state: "pb.OperationState.ValueType") -> str:
    """Return OPERATION_STATE_LOCKED as LOCKED; the number of one that a later service has added."""
    return _STATES.get(state, str(state))


def event_name(event: "pb.OperationEvent.ValueType") -> str:
    """Return OPERATION_EVENT_LOCKED as LOCKED; the number of one that a later service has added."""
    return _EVENTS.get(event, str(event))


def moment(ts: Timestamp) -> str:
    """Return a time to the second, in UTC."""
    return ts.ToDatetime(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(seconds: float) -> str:
    """Return how long something lasts, in the two units that matter, rounded down."""
    left = max(0, int(seconds))
    if left < _MINUTE:
        return f"{left}s"
    if left < _HOUR:
        return f"{left // _MINUTE}m{left % _MINUTE:02}s"
    if left < _DAY:
        return f"{left // _HOUR}h{left % _HOUR // _MINUTE:02}m"
    return f"{left // _DAY}d{left % _DAY // _HOUR:02}h"


def cut(text: str, most: int = _MAX_LOG) -> str:
    """Return text, or its beginning if it is too long for a table."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def log_line(log: Operation.Log) -> str:
    """Return a log as one line: all of it, with its time."""
    return f"{log.ts.ToDatetime(UTC).strftime('%Y-%m-%dT%H:%M:%S.%fZ')}  {shown(log.message)}"
