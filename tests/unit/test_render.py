"""What callers are told of an operation, in each of its states."""

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.status_pb2 import Status
from msgspec.structs import replace
from unit_support import (
    FENCE,
    HOLDER,
    NOW,
    REMAINING,
    RESOURCE,
    SELF,
    SINCE,
    UNTIL,
    a_lock,
    a_record,
    expired,
    locked,
    over,
    pending,
)

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import Operation
from operation_service import render
from operation_service.model import Event, Failure, Log, Logs, Phase, Snapshot, State, View, state_of

REQUEST = AnyMessage(type_url="type.googleapis.com/a.B", value=b"\x0a\x01a")
LOGS = (Log(SINCE, "first"), Log(NOW, "second"))
OVER = (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)

BY_STATE = {
    State.PENDING: pending(),
    State.LOCKED: locked(is_disabled_cancel=True),
    State.EXPIRED: expired(),
    State.OPERATOR_DEAD: expired(is_disabled_cancel=True),
    State.SUCCEEDED: over(Phase.SUCCEEDED, lock=a_lock(is_disabled_cancel=True)),
    State.FAILED: over(Phase.FAILED, lock=a_lock(is_disabled_cancel=True)),
    State.CANCELLED: over(Phase.CANCELLED, lock=a_lock(is_disabled_cancel=True)),
}
every_state = pytest.mark.parametrize(("state", "snapshot"), BY_STATE.items(), ids=BY_STATE)
every_snapshot = pytest.mark.parametrize("snapshot", BY_STATE.values(), ids=BY_STATE)


def view_of(snapshot: Snapshot, **changes: Any) -> View:
    assert snapshot.record is not None
    view = View(
        resource=RESOURCE,
        record=snapshot.record,
        revision=45,
        lock=snapshot.lock,
        remaining=snapshot.remaining,
        request=REQUEST.SerializeToString(),
        logs=Logs(LOGS),
    )
    return replace(view, **changes)


def told(snapshot: Snapshot, **changes: Any) -> Operation:
    return Operation.FromString(render.written_operation(view_of(snapshot, **changes)))


def told_record(snapshot: Snapshot, **changes: Any) -> pb.OperationRecord:
    view = view_of(snapshot, **changes)
    record = pb.OperationRecord.FromString(render.written_operation_record(view))
    assert render.operation_record(view) == record
    return record


def test_every_state_has_a_number_in_the_protocol_and_every_number_a_state() -> None:
    numbers = {f"OPERATION_STATE_{state}": number for state, number in render.STATES.items()}
    assert numbers | {"OPERATION_STATE_UNSPECIFIED": 0} == dict(pb.OperationState.items())
    assert set(render.STATES) == set(State)


def test_every_event_has_a_number_in_the_protocol_and_every_number_an_event() -> None:
    numbers = {f"OPERATION_EVENT_{event}": number for event, number in render.EVENTS.items()}
    assert numbers | {"OPERATION_EVENT_UNSPECIFIED": 0} == dict(pb.OperationEvent.items())
    assert set(render.EVENTS) == set(Event)


@every_state
def test_the_state_is_derived_from_the_record_and_the_lock(state: State, snapshot: Snapshot) -> None:
    assert snapshot.record is not None
    assert state_of(snapshot.record, is_locked=snapshot.lock is not None) is state
    assert told_record(snapshot).state == render.STATES[state]


@every_snapshot
def test_the_lock_key_alone_says_whether_it_is_locked(snapshot: Snapshot) -> None:
    assert snapshot.record is not None
    assert state_of(snapshot.record, is_locked=True) is State.LOCKED


@every_snapshot
def test_request_and_logs_are_told_in_every_state(snapshot: Snapshot) -> None:
    operation = told(snapshot)
    assert operation.operation_request == REQUEST
    assert [(log.ts.ToDatetime(tzinfo=NOW.tzinfo), log.message) for log in operation.logs] == [
        (SINCE, "first"),
        (NOW, "second"),
    ]


@every_snapshot
def test_the_record_holds_the_operation_as_changes_answer_with_it(snapshot: Snapshot) -> None:
    assert told_record(snapshot).operation == told(snapshot)


@every_state
def test_remaining_is_told_of_what_is_locked_and_of_nothing_else(state: State, snapshot: Snapshot) -> None:
    record = told_record(snapshot)
    assert record.HasField("remaining") == (state is State.LOCKED)
    if state is State.LOCKED:
        assert record.remaining.ToTimedelta() == REMAINING


def test_a_lock_with_no_time_left_has_0_remaining_and_not_none() -> None:
    record = told_record(locked(), remaining=timedelta())
    assert record.HasField("remaining")
    assert record.remaining.ToTimedelta() == timedelta()


@every_state
def test_locked_until_and_is_disabled_cancel_are_told_until_it_is_over(state: State, snapshot: Snapshot) -> None:
    operation = told(snapshot)
    is_told = state in {State.LOCKED, State.EXPIRED, State.OPERATOR_DEAD}
    assert operation.HasField("locked_until") == is_told
    if is_told:
        assert operation.locked_until.ToDatetime(tzinfo=NOW.tzinfo) == UNTIL
    assert operation.is_disabled_cancel == (state in {State.LOCKED, State.OPERATOR_DEAD})


@pytest.mark.parametrize("phase", OVER)
def test_rule_8_what_is_over_is_taken_for_no_dead_operator(phase: Phase) -> None:
    snapshot = over(phase, lock=a_lock(is_disabled_cancel=True))
    for operation in (told(snapshot), told_record(snapshot).operation):
        assert not operation.HasField("locked_until")
        assert operation.is_disabled_cancel is False


@pytest.mark.parametrize("is_disabled_cancel", [False, True])
def test_what_is_locked_is_told_as_the_lock_key_says(*, is_disabled_cancel: bool) -> None:
    lock = a_lock(token="peer-new", holder="new", locked_until=NOW, is_disabled_cancel=is_disabled_cancel)
    stale = a_record(lock=a_lock(is_disabled_cancel=not is_disabled_cancel))
    record = told_record(locked(), lock=lock, record=stale)
    assert record.operation.locked_until.ToDatetime(tzinfo=NOW.tzinfo) == NOW
    assert record.operation.is_disabled_cancel is is_disabled_cancel
    assert record.holder == "new"


@every_snapshot
def test_the_token_is_that_of_the_latest_lock_or_else_of_the_creator(snapshot: Snapshot) -> None:
    assert told(snapshot).proposing_peer_token == SELF


def test_the_creator_stands_for_the_holder_until_somebody_proposes() -> None:
    waiting = told_record(pending(creator="198.51.100.1:1", creator_token="peer-creator"))
    assert (waiting.holder, waiting.operation.proposing_peer_token) == ("198.51.100.1:1", "peer-creator")
    assert not waiting.HasField("locked_since")
    assert waiting.fencing_token == 0
    taken = told_record(locked(creator="198.51.100.1:1", creator_token="peer-creator"))
    assert (taken.holder, taken.operation.proposing_peer_token) == (HOLDER, SELF)


@every_state
def test_since_when_and_with_which_fencing_token_is_told_of_the_latest_lock(state: State, snapshot: Snapshot) -> None:
    record = told_record(snapshot)
    is_told = state is not State.PENDING
    assert record.HasField("locked_since") == is_told
    if is_told:
        assert record.locked_since.ToDatetime(tzinfo=NOW.tzinfo) == SINCE
    assert record.fencing_token == (FENCE if is_told else 0)


def test_project_name_and_revision_are_told() -> None:
    record = told_record(locked())
    assert (record.project, record.name, record.revision) == (RESOURCE.project, RESOURCE.name, 45)


def test_an_operation_without_a_request_has_none_and_not_an_empty_one() -> None:
    assert not told(locked(), request=None).HasField("operation_request")


def test_the_error_of_a_failed_operation_is_told_as_it_was_given() -> None:
    error = Status(code=13, message="the disk is gone", details=[REQUEST])
    failure = Failure(13, "the disk is gone", (REQUEST.SerializeToString(),))
    assert told_record(over(Phase.FAILED, failure=failure)).error == error


@every_snapshot
def test_there_is_no_error_where_none_was_given(snapshot: Snapshot) -> None:
    assert not told_record(snapshot).HasField("error")


def test_the_greatest_fencing_token_and_revision_fit() -> None:
    record = told_record(locked(fencing_token=2**63 - 1), revision=2**63 - 1)
    assert (record.fencing_token, record.revision) == (2**63 - 1, 2**63 - 1)


@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_an_operation_of_any_length_stands_in_its_record_as_it_stands_alone(count: int) -> None:
    """Its length is one byte up to 127, two up to 16,383, three beyond."""
    logs = Logs([Log(LOGS[0].ts, "x" * 50 * count) for _ in range(count)])
    record, operation = told_record(locked(), logs=logs), told(locked(), logs=logs)
    assert record.operation == operation
    assert [log.message for log in record.operation.logs] == [log.message for log in logs]
