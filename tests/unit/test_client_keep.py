"""How a lock is renewed, kept and watched over, and how its loss is noticed."""

from typing import Any

import pytest
from client_support import (
    EXPIRED,
    FENCE,
    LOCKED,
    START,
    TERMS,
    After,
    Played,
    PushedClock,
    a_record,
    a_session,
    a_tenure,
    an_answer,
    failing,
    play,
    play_without_answers,
    told,
    unanswered,
)

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.client import keeping
from operation_service.client.errors import (
    EtcdOutOfSpaceError,
    FencingTokenMismatchError,
    InvalidArgumentError,
    LockedError,
    LockLostError,
    Loss,
    NotFoundError,
    OperationCancelledError,
    TooManyWatchesError,
    UnavailableError,
)
from operation_service.client.flows import Renew, Rest
from operation_service.client.tenure import Tenure

SUCCEEDED, FAILED, CANCELLED = (
    pb.OPERATION_STATE_SUCCEEDED,
    pb.OPERATION_STATE_FAILED,
    pb.OPERATION_STATE_CANCELLED,
)


@pytest.fixture
def clock() -> PushedClock:
    return PushedClock()


def loss_of(tenure: Tenure) -> Loss | None:
    error = tenure.lost()
    return error.loss if error else None


def renew(tenure: Tenure, clock: PushedClock, *script: Any, lock_for: int | None = None) -> Played:
    terms = tenure.terms.changed(lock_for, None)
    return play(keeping.renew(tenure, a_session(clock), terms), clock, *script)


def test_it_names_its_lock_so_that_it_never_takes_a_new_one(clock: PushedClock) -> None:
    tenure = a_tenure(clock)
    clock.push(10)
    played = renew(tenure, clock, After(1, an_answer()))
    assert [(step.rpc.name, step.fencing_token) for step in played.sent] == [("ProposeOperation", FENCE)]
    assert tenure.deadline == START + 10 + 30 * 0.999


@pytest.mark.parametrize(("lock_for", "timeout"), [(60, 5.0), (12, 3.0), (4, 1.0), (1, 0.25)])
def test_one_attempt_leaves_time_for_others(clock: PushedClock, lock_for: int, timeout: float) -> None:
    played = renew(a_tenure(clock, lock_for=lock_for), clock)
    assert [step.timeout for step in played.sent] == [timeout]


def test_it_is_tried_for_as_long_as_the_lock_lasts_and_no_longer(clock: PushedClock) -> None:
    tenure = a_tenure(clock, lock_for=30)
    played = play_without_answers(keeping.renew(tenure, a_session(clock), tenure.terms), clock)
    assert isinstance(played.error, UnavailableError)
    assert START + 25 < clock() <= tenure.deadline + 0.1
    assert loss_of(tenure) in (None, Loss.RAN_OUT)


@pytest.mark.parametrize(
    ("record", "loss"),
    [
        (a_record(EXPIRED), Loss.EXPIRED),
        (a_record(pb.OPERATION_STATE_OPERATOR_DEAD), Loss.EXPIRED),
        (a_record(CANCELLED), Loss.CANCELLED),
        (a_record(SUCCEEDED), Loss.COMPLETED),
        (a_record(FAILED), Loss.COMPLETED),
        (a_record(LOCKED, fencing_token=FENCE + 1), Loss.TAKEN_OVER),
        (a_record(SUCCEEDED, fencing_token=FENCE + 1), Loss.TAKEN_OVER),
        (a_record(pb.OPERATION_STATE_PENDING, fencing_token=0), Loss.EXPIRED),
    ],
)
@pytest.mark.parametrize("refused", [FencingTokenMismatchError, LockedError, OperationCancelledError])
def test_refused_the_lock_is_lost_as_the_record_says(
    clock: PushedClock, record: pb.OperationRecord, loss: Loss, refused: type[Any]
) -> None:
    tenure = a_tenure(clock)
    error = failing(refused)
    played = renew(tenure, clock, error, an_answer(record))
    assert played.shape == ["ProposeOperation", "GetOperation"]
    assert isinstance(played.error, LockLostError)
    assert (played.error.loss, played.error.__cause__, loss_of(tenure)) == (loss, error, loss)


@pytest.mark.parametrize("nothing", [failing(NotFoundError), unanswered()])
def test_refused_the_lock_is_lost_even_if_nobody_tells_how(clock: PushedClock, nothing: Any) -> None:
    tenure = a_tenure(clock)
    renew(tenure, clock, failing(FencingTokenMismatchError), nothing)
    assert loss_of(tenure) is Loss.EXPIRED


@pytest.mark.parametrize("kind", [EtcdOutOfSpaceError, InvalidArgumentError])
def test_any_other_failure_leaves_the_lock_as_it_was(clock: PushedClock, kind: type[Any]) -> None:
    tenure = a_tenure(clock)
    before = tenure.deadline
    error = failing(kind)
    assert renew(tenure, clock, error).error is error
    assert (loss_of(tenure), tenure.deadline) == (None, before)


def test_what_is_lost_is_not_renewed(clock: PushedClock) -> None:
    tenure = a_tenure(clock)
    clock.push(30)
    played = renew(tenure, clock)
    assert (played.shape, type(played.error)) == ([], LockLostError)


@pytest.mark.parametrize("lock_for", [-1, 1.5, 2**32])
def test_terms_that_cannot_be_sent_do_not_cost_the_lock(clock: PushedClock, lock_for: Any) -> None:
    tenure = a_tenure(clock)
    before = tenure.deadline
    with pytest.raises((ValueError, TypeError)):
        renew(tenure, clock, lock_for=lock_for)
    assert (loss_of(tenure), tenure.deadline) == (None, before)


def test_it_renews_at_a_third_of_the_time_again_and_again(clock: PushedClock) -> None:
    tenure = a_tenure(clock, lock_for=30)
    flow = keeping.keep(tenure, a_session(clock))
    renewed_at: list[float] = []
    step = next(flow)
    while len(renewed_at) < 3:
        if isinstance(step, Rest):
            clock.push(step.seconds)
            step = flow.send(False)
        else:
            renewed_at.append(clock() - START)
            tenure.renewed(clock(), TERMS)
            clock.push(1)
            step = flow.send(None)
    assert renewed_at == [10, 20, 30]


def test_it_goes_on_after_failures_until_the_deadline_and_says_then_why(clock: PushedClock) -> None:
    tenure = a_tenure(clock, lock_for=30)
    played = play_without_answers(keeping.keep(tenure, a_session(clock)), clock)
    assert played.shape.count("Renew") > 5
    assert START + 30 * 0.999 <= clock() <= START + 30 * 0.999 + 2
    with pytest.raises(LockLostError) as caught:
        tenure.check()
    assert caught.value.loss is Loss.RAN_OUT
    assert isinstance(caught.value.__cause__, UnavailableError)


def test_it_waits_for_as_long_as_it_is_told_to_but_not_past_the_deadline(clock: PushedClock) -> None:
    tenure = a_tenure(clock, lock_for=30)
    played = play(keeping.keep(tenure, a_session(clock)), clock, failing(EtcdOutOfSpaceError, retry_after=600.0))
    assert sum(played.rests[:2]) == 10
    assert sum(played.rests[2:]) == pytest.approx(30 * 0.999 - 10)
    assert loss_of(tenure) is Loss.RAN_OUT


def test_it_ends_when_a_renewal_finds_the_lock_lost(clock: PushedClock) -> None:
    tenure = a_tenure(clock)
    lost = LockLostError(TERMS.resource, Loss.TAKEN_OVER, FENCE)
    played = play(keeping.keep(tenure, a_session(clock)), clock, lost)
    assert (played.shape, played.is_ended, played.error) == (["Rest", "Rest", "Renew"], True, None)


def test_it_looks_at_the_clock_now_and_then_as_a_wait_does_not_count_the_time_of_a_suspension(
    clock: PushedClock,
) -> None:
    flow = keeping.keep(a_tenure(clock, lock_for=3_600), a_session(clock))
    assert next(flow) == Rest(5)
    clock.push(1_300)  # the machine was suspended, and the wait goes on where it was
    assert isinstance(flow.send(False), Renew)


@pytest.mark.parametrize("end", [Tenure.end, lambda tenure: tenure.lose(Loss.CANCELLED)])
def test_the_renewing_ends_with_the_lock(clock: PushedClock, end: Any) -> None:
    tenure = a_tenure(clock)
    flow = keeping.keep(tenure, a_session(clock))
    assert isinstance(next(flow), Rest)
    end(tenure)
    with pytest.raises(StopIteration):
        flow.send(True)


@pytest.mark.parametrize(
    ("state", "fencing_token", "loss"),
    [
        (EXPIRED, FENCE, Loss.EXPIRED),
        (pb.OPERATION_STATE_OPERATOR_DEAD, FENCE, Loss.EXPIRED),
        (CANCELLED, FENCE, Loss.CANCELLED),
        (SUCCEEDED, FENCE, Loss.COMPLETED),
        (FAILED, FENCE, Loss.COMPLETED),
        (LOCKED, FENCE + 1, Loss.TAKEN_OVER),
        (pb.OPERATION_STATE_PENDING, 0, Loss.EXPIRED),
    ],
)
def test_the_loss_is_noted_as_soon_as_it_is_told(
    clock: PushedClock, state: pb.OperationState.ValueType, fencing_token: int, loss: Loss
) -> None:
    tenure = a_tenure(clock)
    played = play(keeping.watch_over(tenure), clock, None, told(LOCKED), told(state, fencing_token=fencing_token))
    assert (loss_of(tenure), played.is_ended, played.shape) == (loss, True, ["Open", "Read", "Read"])


def test_its_own_renewals_and_longer_names_say_nothing(clock: PushedClock) -> None:
    tenure = a_tenure(clock)
    longer = told(CANCELLED, name=f"{TERMS.name}/disk", fencing_token=FENCE + 7)
    played = play(keeping.watch_over(tenure), clock, None, told(LOCKED), longer, told(LOCKED))
    assert (loss_of(tenure), played.is_ended) == (None, False)


def test_it_begins_with_what_is_there_and_has_no_end_of_its_own(clock: PushedClock) -> None:
    [watch] = play(keeping.watch_over(a_tenure(clock)), clock).opened
    assert (watch.request.project, watch.request.name_prefix, watch.request.start_revision, watch.timeout) == (
        TERMS.project,
        TERMS.name,
        0,
        None,
    )


def test_a_watch_that_breaks_is_begun_anew_after_pauses_that_grow(clock: PushedClock) -> None:
    tenure = a_tenure(clock, lock_for=86_400)
    played = play(keeping.watch_over(tenure), clock, *(failing(UnavailableError) for _ in range(8)))
    assert played.shape == ["Open", "Rest"] * 8 + ["Open"]
    assert played.rests[0] <= 0.1
    assert played.rests[-1] >= 1.0


def test_the_pauses_are_short_again_once_it_was_told_something(clock: PushedClock) -> None:
    tenure = a_tenure(clock, lock_for=86_400)
    broken = [failing(UnavailableError) for _ in range(6)]
    played = play(keeping.watch_over(tenure), clock, *broken, None, told(LOCKED), failing(UnavailableError))
    assert played.rests[-1] <= 0.1


def test_any_failure_leaves_the_lock_to_its_renewals(clock: PushedClock) -> None:
    tenure = a_tenure(clock)
    played = play(keeping.watch_over(tenure), clock, failing(InvalidArgumentError), failing(TooManyWatchesError))
    assert (loss_of(tenure), played.is_ended) == (None, False)


def test_the_watching_ends_with_the_lock(clock: PushedClock) -> None:
    tenure = a_tenure(clock)
    flow = keeping.watch_over(tenure)
    next(flow)
    tenure.end()
    step = flow.throw(failing(UnavailableError))
    assert isinstance(step, Rest)
    with pytest.raises(StopIteration):
        flow.send(True)
