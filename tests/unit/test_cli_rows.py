"""What tables show: cells, safe and readable."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import Operation
from operation_service.rows import cut, duration, event_name, row, state_name


def timestamp(*words: int) -> Timestamp:
    ts = Timestamp()
    ts.FromDatetime(datetime(*words, tzinfo=UTC))  # type: ignore[arg-type, misc]
    return ts


def record(**fields: object) -> pb.OperationRecord:
    values = {"project": "demo", "name": "networks/lan", "state": pb.OPERATION_STATE_LOCKED, "holder": "192.0.2.1:5"}
    return pb.OperationRecord(**(values | fields))  # type: ignore[arg-type]


def test_a_row_tells_who_holds_what_since_when_for_how_long_and_what_was_done_last() -> None:
    remaining = Duration()
    remaining.FromTimedelta(timedelta(seconds=61.5))
    operation = Operation(logs=[Operation.Log(message="first"), Operation.Log(message="last")])
    held = record(locked_since=timestamp(2026, 1, 2, 3, 4, 5), remaining=remaining, operation=operation)
    assert row(held) == (
        *("demo", "networks/lan", "LOCKED", "192.0.2.1:5"),
        *("2026-01-02T03:04:05Z", "1m01s", "last"),
    )


def test_what_is_not_there_is_a_dash() -> None:
    assert row(record(holder="", state=pb.OPERATION_STATE_PENDING))[2:] == ("PENDING", "-", "-", "-", "-")


def test_time_that_has_gone_by_since_the_record_was_told_counts() -> None:
    assert row(record(remaining=Duration(seconds=60)), remaining_seconds=12.9).remaining == "12s"
    assert row(record(remaining=Duration(seconds=60)), remaining_seconds=-1).remaining == "0s"


def test_nothing_of_what_others_have_written_can_move_the_cursor() -> None:
    spoilt = record(
        project="a\x1b[2J",
        name="b\rc",
        holder="d\x9b31m",
        operation=Operation(logs=[Operation.Log(message="e\nf\u202eg")]),
    )
    cells = row(spoilt)
    assert all(cell.isprintable() for cell in cells)
    assert cells.project == r"a\x1b[2J"
    assert cells.last_log == r"e\nf\u202eg"


def test_a_very_long_log_is_cut() -> None:
    cells = row(record(operation=Operation(logs=[Operation.Log(message="x" * 4096)])))
    assert len(cells.last_log) == 200
    assert cells.last_log.endswith("x…")
    assert cut("short") == "short"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (3_599, "59m59s"),
        (3_600, "1h00m"),
        (86_399, "23h59m"),
        (86_400, "1d00h"),
        (864_000, "10d00h"),
        (-5, "0s"),
    ],
)
def test_a_duration_has_the_two_units_that_matter(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_state_or_event_of_a_later_service_is_its_number() -> None:
    assert state_name(pb.OPERATION_STATE_LOCKED) == "LOCKED"
    assert event_name(pb.OPERATION_EVENT_OPERATOR_DEAD) == "OPERATOR_DEAD"
    assert state_name(pb.OperationState.ValueType(77)) == "77"
    assert event_name(pb.OperationEvent.ValueType(77)) == "77"
