"""How a lock is given back: at the end of a block, whatever ended it, or when nobody knows whether it was taken."""

import logging
from typing import Any

import pytest
from client_support import (
    EXPIRED,
    FENCE,
    LOCKED,
    OTHER,
    SELF,
    START,
    TERMS,
    Played,
    PushedClock,
    a_record,
    a_session,
    a_tenure,
    an_answer,
    failing,
    play,
    play_without_answers,
    unanswered,
)
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.client import acquiring, keeping, leaving, requests
from operation_service.client.errors import (
    ContentionError,
    EtcdOutOfSpaceError,
    FencingTokenMismatchError,
    LockedError,
    LockLostError,
    Loss,
    NotFoundError,
    OverloadedError,
    UnavailableError,
)
from operation_service.client.flows import Send
from operation_service.client.tenure import Tenure

SUCCEEDED, FAILED, CANCELLED = (
    pb.OPERATION_STATE_SUCCEEDED,
    pb.OPERATION_STATE_FAILED,
    pb.OPERATION_STATE_CANCELLED,
)

GIVEN_UP = Status(code=Code.CANCELLED, message="its process let go of it before it was done")


@pytest.fixture
def clock() -> PushedClock:
    return PushedClock()


def loss_of(tenure: Tenure) -> Loss | None:
    error = tenure.lost()
    return error.loss if error else None


def leave(clock: PushedClock, tenure: Tenure, error: BaseException | None, *script: Any) -> Played:
    return play(leaving.leave(tenure, a_session(clock), error), clock, *script)


def test_a_block_that_ends_by_itself_succeeds(clock: PushedClock) -> None:
    tenure = a_tenure(clock)
    played = leave(clock, tenure, None, an_answer())
    [step] = played.sent
    assert (step.rpc.name, step.fencing_token) == ("CompleteOperation", FENCE)
    assert not step.request.HasField("error")
    assert tenure.is_over
    assert loss_of(tenure) is None


def test_the_lock_is_over_before_it_is_given_back_so_that_nobody_renews_it(clock: PushedClock) -> None:
    tenure = a_tenure(clock)
    next(leaving.leave(tenure, a_session(clock), None))
    assert tenure.is_over


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("no such disk"), Code.UNKNOWN, "ValueError: no such disk"),
        (KeyError("disk"), Code.UNKNOWN, "KeyError: 'disk'"),
        (ArithmeticError(), Code.UNKNOWN, "ArithmeticError"),
        (KeyboardInterrupt(), Code.CANCELLED, "KeyboardInterrupt"),
        (SystemExit(3), Code.CANCELLED, "SystemExit: 3"),
        (SystemExit("out of disks"), Code.CANCELLED, "SystemExit: out of disks"),
        (GeneratorExit(), Code.CANCELLED, "GeneratorExit"),
        (ValueError("x" * 5_000), Code.UNKNOWN, ("ValueError: " + "x" * 5_000)[:4096]),
        (ValueError("\udcff"), Code.UNKNOWN, "ValueError: ?"),
    ],
)
def test_a_block_that_an_exception_ends_fails_with_its_text(
    clock: PushedClock, error: BaseException, code: int, text: str
) -> None:
    played = leave(clock, a_tenure(clock), error, an_answer())
    [step] = played.sent
    assert (step.request.error.code, step.request.error.message) == (code, text)


def test_an_exception_that_has_no_text_to_give_is_named_all_the_same(clock: PushedClock) -> None:
    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError("I say nothing")

    played = leave(clock, a_tenure(clock), Mute(), an_answer())
    assert [step.request.error.message for step in played.sent] == ["Mute"]


@pytest.mark.parametrize("error", [SystemExit(), SystemExit(0), SystemExit(None)])
def test_a_process_that_exits_as_it_should_has_succeeded(clock: PushedClock, error: SystemExit) -> None:
    [step] = leave(clock, a_tenure(clock), error, an_answer()).sent
    assert not step.request.HasField("error")


def test_a_lock_that_was_lost_meanwhile_is_told_at_the_end(clock: PushedClock) -> None:
    tenure = a_tenure(clock)
    clock.push(30)
    played = leave(clock, tenure, None)
    assert played.shape == []
    assert isinstance(played.error, LockLostError)
    assert played.error.loss is Loss.RAN_OUT


def test_what_ended_the_block_is_not_masked_and_has_a_note(clock: PushedClock) -> None:
    tenure = a_tenure(clock)
    tenure.lose(Loss.CANCELLED)
    error = ValueError("no such disk")
    played = leave(clock, tenure, error)
    assert (played.error, played.is_ended) == (None, True), "the block's own exception goes on its way"
    [note] = error.__notes__
    assert note.startswith("the operation could not be completed: the lock of demo/virtual_machines/web-1")


def test_a_failure_to_complete_is_a_note_too(clock: PushedClock) -> None:
    error = ValueError("no such disk")
    played = leave(clock, a_tenure(clock), error, failing(EtcdOutOfSpaceError))
    assert (played.error, error.__notes__) == (None, ["the operation could not be completed: no"])


def test_a_failure_to_complete_is_raised_where_nothing_else_is(clock: PushedClock) -> None:
    failure = failing(EtcdOutOfSpaceError)
    assert leave(clock, a_tenure(clock), None, failure).error is failure


def test_a_block_that_ends_with_its_lost_lock_needs_no_note(clock: PushedClock) -> None:
    tenure = a_tenure(clock)
    error = tenure.lose(Loss.CANCELLED)
    assert leave(clock, tenure, error).error is None
    assert not hasattr(error, "__notes__")


def test_a_completion_is_sent_again_until_it_is_answered_as_the_service_knows_it_again(clock: PushedClock) -> None:
    played = leave(clock, a_tenure(clock), None, unanswered(), an_answer())
    assert played.shape == ["CompleteOperation", "Rest", "CompleteOperation"]
    assert {step.fencing_token for step in played.sent} == {FENCE}
    assert played.error is None


@pytest.mark.parametrize(
    ("attempts", "record", "loss"),
    [
        ([], a_record(SUCCEEDED), Loss.COMPLETED),
        ([failing(ContentionError)], a_record(SUCCEEDED), Loss.COMPLETED),
        ([unanswered()], a_record(SUCCEEDED, fencing_token=FENCE + 1), Loss.TAKEN_OVER),
        ([unanswered()], a_record(CANCELLED), Loss.CANCELLED),
        ([unanswered()], a_record(EXPIRED), Loss.EXPIRED),
    ],
)
def test_a_lock_that_the_service_does_not_know_any_more_is_a_loss(
    clock: PushedClock, attempts: list[Any], record: pb.OperationRecord, loss: Loss
) -> None:
    script = [*attempts, failing(FencingTokenMismatchError), an_answer(record)]
    played = leave(clock, a_tenure(clock), None, *script)
    assert isinstance(played.error, LockLostError)
    assert played.error.loss is loss


def log(tenure: Tenure, clock: PushedClock, *script: Any) -> Played:
    return play(keeping.log(tenure, a_session(clock), "a step"), clock, *script)


def test_a_line_is_written_only_with_the_lock_that_it_is_about(clock: PushedClock) -> None:
    [step] = log(a_tenure(clock), clock, an_answer()).sent
    assert (step.rpc.name, step.fencing_token, step.request.log_message) == ("AppendOperationLog", FENCE, "a step")


def test_it_is_not_written_twice(clock: PushedClock) -> None:
    tenure = a_tenure(clock)
    played = log(tenure, clock, unanswered())
    assert played.shape == ["AppendOperationLog"]
    assert isinstance(played.error, UnavailableError)
    assert loss_of(tenure) is None


def test_it_finds_out_that_the_lock_is_lost(clock: PushedClock) -> None:
    tenure = a_tenure(clock)
    played = log(tenure, clock, failing(FencingTokenMismatchError), an_answer(a_record(CANCELLED)))
    assert isinstance(played.error, LockLostError)
    assert loss_of(tenure) is Loss.CANCELLED


def test_what_is_lost_is_not_written_to(clock: PushedClock) -> None:
    tenure = a_tenure(clock)
    clock.push(30)
    assert log(tenure, clock).shape == []


def test_who_holds_is_told_before_the_operation_is_completed_as_failed(clock: PushedClock) -> None:
    tenure = a_tenure(clock)
    flow = leaving.give_up(tenure, a_session(clock))
    step = next(flow)
    assert loss_of(tenure) is Loss.GIVEN_UP
    assert isinstance(step, Send)
    assert (step.rpc.name, step.fencing_token) == ("CompleteOperation", FENCE)
    assert step.request == requests.complete(SELF, TERMS.project, TERMS.name, error=GIVEN_UP, log_message="")


@pytest.mark.parametrize("end", [Tenure.end, lambda tenure: tenure.lose(Loss.FORKED)])
def test_there_is_nothing_to_give_up_where_nothing_is_held(clock: PushedClock, end: Any) -> None:
    tenure = a_tenure(clock)
    end(tenure)
    assert play(leaving.give_up(tenure, a_session(clock)), clock).shape == []


def test_a_failure_is_logged(clock: PushedClock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        play(leaving.give_up(a_tenure(clock), a_session(clock)), clock, failing(EtcdOutOfSpaceError))
    assert "stays locked until its time is over" in caplog.text


def hand_back(clock: PushedClock, *script: Any) -> Played:
    return play(acquiring.hand_back(TERMS.changed(None, disable_cancel=True), a_session(clock)), clock, *script)


def test_its_own_lock_runs_out_within_seconds(clock: PushedClock) -> None:
    played = hand_back(clock, an_answer(a_record(LOCKED)), an_answer())
    _, step = played.sent
    assert (step.rpc.name, step.fencing_token, step.request.lock_for_seconds, step.request.is_disabled_cancel) == (
        "ProposeOperation",
        FENCE,
        1,
        False,
    )


@pytest.mark.parametrize(
    "record", [a_record(LOCKED, token=OTHER), a_record(EXPIRED), a_record(pb.OPERATION_STATE_PENDING)]
)
def test_what_is_not_its_lock_is_left_alone(clock: PushedClock, record: pb.OperationRecord) -> None:
    assert hand_back(clock, an_answer(record)).shape == ["GetOperation"]


@pytest.mark.parametrize(
    "script",
    [
        [failing(NotFoundError)],
        [an_answer(a_record(LOCKED)), failing(FencingTokenMismatchError)],
    ],
)
def test_a_lock_that_is_gone_already_needs_no_word(
    clock: PushedClock, caplog: pytest.LogCaptureFixture, script: list[Any]
) -> None:
    assert hand_back(clock, *script).is_ended
    assert caplog.text == ""


def test_it_takes_two_seconds_at_the_most_and_says_what_it_could_not_do(
    clock: PushedClock, caplog: pytest.LogCaptureFixture
) -> None:
    played = play_without_answers(acquiring.hand_back(TERMS, a_session(clock)), clock)
    assert played.error is None
    assert clock() <= START + 2.1
    assert "may stay locked until 30 s have passed" in caplog.text


@pytest.mark.parametrize(
    ("error", "may_be"),
    [
        (failing(LockedError), False),
        (failing(OverloadedError), False),
        (unanswered(), True),
        (KeyboardInterrupt(), True),
        (ValueError(), False),
    ],
)
def test_a_lock_may_be_held_if_nobody_knows_what_became_of_the_proposal(error: BaseException, may_be: bool) -> None:
    assert acquiring.may_be_held(error) is may_be
