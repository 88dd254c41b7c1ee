"""How a lock is acquired: by itself, or after waiting for a resource that another peer holds."""

from typing import Any

import pytest
from client_support import (
    EXPIRED,
    LOCKED,
    SELF,
    START,
    TERMS,
    After,
    Played,
    PushedClock,
    a_session,
    an_answer,
    failing,
    play,
    told,
    unanswered,
)

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.client import acquiring, claims
from operation_service.client.acquiring import Wanted
from operation_service.client.claims import Claim
from operation_service.client.errors import (
    InvalidArgumentError,
    LockedError,
    OperationCancelledError,
    TooManyWatchesError,
    UnavailableError,
    WatchEndedError,
)

SUCCEEDED, FAILED, CANCELLED = (
    pb.OPERATION_STATE_SUCCEEDED,
    pb.OPERATION_STATE_FAILED,
    pb.OPERATION_STATE_CANCELLED,
)
SLACK = 2.5
"""CONTRACT rule 12."""


@pytest.fixture(autouse=True)
def _no_claims() -> None:
    claims._claims.clear()  # noqa: SLF001


@pytest.fixture
def clock() -> PushedClock:
    return PushedClock()


def acquire(clock: PushedClock, *script: Any, wait: float | None = 60.0, log_message: str = "") -> Played:
    session = a_session(clock)
    return play(
        acquiring.acquire(Wanted(TERMS, wait, log_message), session, Claim(TERMS.resource, session)), clock, *script
    )


def locked_for(seconds: float) -> LockedError:
    error = failing(LockedError, retry_after=seconds)
    assert isinstance(error, LockedError)
    return error


def test_a_free_resource_is_had_with_the_first_proposal(clock: PushedClock) -> None:
    played = acquire(clock, an_answer(), wait=0, log_message="here I am")
    assert played.shape == ["ProposeOperation"]
    [step] = played.sent
    assert step.request.lock_for_seconds == 30
    assert step.request.proposing_peer_token == SELF
    assert step.request.log_message == "here I am"
    assert step.fencing_token is None, "there is no lock yet"


def test_without_waiting_a_refusal_is_the_answer(clock: PushedClock) -> None:
    refused = locked_for(30)
    played = acquire(clock, refused, wait=0)
    assert (played.shape, played.error) == (["ProposeOperation"], refused)


def test_refused_it_watches_and_proposes_again_as_soon_as_the_resource_is_free(clock: PushedClock) -> None:
    played = acquire(clock, locked_for(30), None, told(LOCKED, remaining=30), After(4, told(SUCCEEDED)), an_answer())
    assert played.shape == ["ProposeOperation", "Open", "Read", "Read", "ProposeOperation"]
    assert played.result.sent_at == START + 4
    [watch] = played.opened
    assert watch.request == pb.WatchOperationsRequest(
        project=TERMS.project, name_prefix=TERMS.name, start_revision=0
    ), "it begins with what is there: what happens between the refusal and the watch is not missed"


@pytest.mark.parametrize("state", [EXPIRED, SUCCEEDED, FAILED, CANCELLED, pb.OPERATION_STATE_OPERATOR_DEAD])
def test_whatever_is_not_locked_is_free(clock: PushedClock, state: pb.OperationState.ValueType) -> None:
    played = acquire(clock, locked_for(30), None, told(state), an_answer())
    assert played.result is not None


def test_longer_names_that_begin_alike_are_none_of_its_business(clock: PushedClock) -> None:
    played = acquire(clock, locked_for(30), None, told(SUCCEEDED, name=f"{TERMS.name}2"), told(SUCCEEDED), an_answer())
    assert played.shape == ["ProposeOperation", "Open", "Read", "Read", "ProposeOperation"]


def test_the_watch_ends_when_the_locks_time_is_over_and_then_it_proposes(clock: PushedClock) -> None:
    played = acquire(clock, locked_for(10), None, After(10 + SLACK, unanswered()), an_answer())
    assert [step.timeout for step in played.opened] == [10 + SLACK]
    assert played.shape == ["ProposeOperation", "Open", "Read", "ProposeOperation"]


def test_a_renewal_that_it_sees_is_waited_for_too(clock: PushedClock) -> None:
    played = acquire(
        clock,
        locked_for(10),
        None,
        After(8, told(LOCKED, remaining=10)),
        After(2 + SLACK, unanswered()),
        None,
        After(8, told(EXPIRED)),
        an_answer(),
    )
    assert [step.timeout for step in played.opened] == [10 + SLACK, 8]
    assert played.shape == ["ProposeOperation", "Open", "Read", "Read", "Open", "Read", "ProposeOperation"]


def test_when_its_wait_is_over_it_proposes_once_more_and_is_told_who_holds_it(clock: PushedClock) -> None:
    last = locked_for(25)
    played = acquire(clock, locked_for(30), None, After(5, unanswered()), last, wait=5)
    assert [step.timeout for step in played.opened] == [5]
    assert played.error is last


def test_where_no_watch_is_to_be_had_it_waits_a_little_and_proposes(clock: PushedClock) -> None:
    played = acquire(clock, locked_for(30), failing(TooManyWatchesError, retry_after=1.0), an_answer())
    assert played.shape == ["ProposeOperation", "Open", "Rest", "ProposeOperation"]
    [rest] = played.rests
    assert 1.4 <= rest <= 1.8


def test_it_does_not_rest_for_longer_than_it_waits(clock: PushedClock) -> None:
    last = locked_for(30)
    played = acquire(clock, locked_for(30), failing(TooManyWatchesError, retry_after=60.0), last, wait=5)
    assert played.rests == [5]
    assert played.error is last


def test_a_watch_that_breaks_is_no_reason_to_give_up(clock: PushedClock) -> None:
    played = acquire(clock, locked_for(30), None, After(1, failing(WatchEndedError)), an_answer())
    assert played.shape == ["ProposeOperation", "Open", "Read", "Rest", "ProposeOperation"]


def test_who_waits_for_ever_is_refused_as_often_as_it_takes(clock: PushedClock) -> None:
    once = (locked_for(86_400), None, After(86_400 + SLACK, unanswered()))
    played = acquire(clock, *once * 50, an_answer(), wait=None)
    assert played.shape == ["ProposeOperation", "Open", "Read"] * 50 + ["ProposeOperation"]


def test_after_a_cancellation_it_waits_until_the_cancelled_time_is_over(clock: PushedClock) -> None:
    cancelled = failing(OperationCancelledError, retry_after=12.0)
    played = acquire(clock, cancelled, an_answer())
    assert played.rests == [12]
    assert played.shape == ["ProposeOperation", "Rest", "ProposeOperation"]


@pytest.mark.parametrize(("wait", "pause"), [(0.0, None), (10.0, 12.0)])
def test_a_cancellation_that_lasts_for_longer_than_it_waits_is_told_at_once(
    clock: PushedClock, wait: float, pause: float | None
) -> None:
    cancelled = failing(OperationCancelledError, retry_after=pause)
    played = acquire(clock, cancelled, wait=wait)
    assert (played.shape, played.error) == (["ProposeOperation"], cancelled)


def test_anything_else_ends_it(clock: PushedClock) -> None:
    wrong = failing(InvalidArgumentError)
    played = acquire(clock, wrong)
    assert (played.shape, played.error) == (["ProposeOperation"], wrong)


def test_a_service_that_is_away_is_waited_for_as_any_call_waits_even_if_the_lock_is_not(clock: PushedClock) -> None:
    played = acquire(clock, failing(UnavailableError), an_answer(), wait=0)
    assert played.result is not None
