"""Which call is sent again after which failure, and for how long."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
from client_support import FENCE, START, After, PushedClock, an_answer, failing, play, unanswered
from hypothesis import given
from hypothesis import strategies as st

from operation_service.client import errors, rpcs
from operation_service.client.errors import (
    ContentionError,
    EtcdOutOfSpaceError,
    LockedError,
    OperationServiceError,
    OverloadedError,
    UnavailableError,
    UnforeseenError,
)
from operation_service.client.flows import Patience, backoff, exchange
from operation_service.client.rpcs import Rpc

RPCS: list[Rpc[Any, Any]] = [
    rpcs.GET,
    rpcs.LIST,
    rpcs.LOGS,
    rpcs.CREATE,
    rpcs.PROPOSE,
    rpcs.COMPLETE,
    rpcs.APPEND,
    rpcs.CANCEL,
]
ANY, SAFE, NONE = "any", "safe", "none"
"""Which calls are sent again: any; those that do no harm when they are done twice; none."""
DOES_HARM_TWICE = {rpcs.APPEND.name, rpcs.CANCEL.name}
FAILURES: dict[str, tuple[type[OperationServiceError], bool, str]] = {
    "etcd cannot be reached": (UnavailableError, False, ANY),
    "etcd did not answer": (UnavailableError, True, SAFE),
    "others came first": (ContentionError, False, ANY),
    "too many calls": (OverloadedError, False, ANY),
    "too many watches": (errors.TooManyWatchesError, False, ANY),
    "etcd is full": (EtcdOutOfSpaceError, False, NONE),
    "a mistake in the service": (UnforeseenError, True, NONE),
    "refused": (LockedError, False, NONE),
    "wrong": (errors.InvalidArgumentError, False, NONE),
    "not found": (errors.NotFoundError, False, NONE),
    "a lock that is gone": (errors.FencingTokenMismatchError, False, NONE),
    "a page that is gone": (errors.PageTokenExpiredError, False, NONE),
    "a record that cannot be read": (errors.CorruptRecordError, False, NONE),
    "a code that is not known": (OperationServiceError, True, NONE),
}


def call(rpc: Rpc[Any, Any], clock: PushedClock, *, seconds: float = 10.0, fencing_token: int | None = None) -> Any:
    return exchange(rpc, rpc.request(), Patience(clock, clock() + seconds), fencing_token)


@pytest.mark.parametrize("rpc", RPCS, ids=lambda rpc: rpc.name)
@pytest.mark.parametrize("failure", FAILURES)
def test_what_is_sent_again(rpc: Rpc[Any, Any], failure: str) -> None:
    kind, is_unclear, which = FAILURES[failure]
    clock = PushedClock()
    error = failing(kind, is_unclear=is_unclear)
    if which is ANY or (which is SAFE and rpc.name not in DOES_HARM_TWICE):
        played = play(call(rpc, clock), clock, error, an_answer())
        assert played.shape == [rpc.name, "Rest", rpc.name]
        assert played.result is not None
    else:
        played = play(call(rpc, clock), clock, error)
        assert played.shape == [rpc.name]
        assert played.error is error


def test_an_attempt_carries_the_request_and_the_lock_that_it_is_for() -> None:
    clock = PushedClock()
    played = play(call(rpcs.APPEND, clock, fencing_token=FENCE), clock, failing(ContentionError), an_answer())
    assert [(step.rpc, step.request, step.fencing_token) for step in played.sent] == [
        (rpcs.APPEND, rpcs.APPEND.request(), FENCE)
    ] * 2


@pytest.mark.parametrize("rpc", [rpcs.APPEND, rpcs.CANCEL], ids=lambda rpc: rpc.name)
def test_append_and_cancel_end_with_the_first_attempt_whose_outcome_is_unknown(rpc: Rpc[Any, Any]) -> None:
    clock = PushedClock()
    played = play(call(rpc, clock), clock, failing(ContentionError), failing(OverloadedError), unanswered())
    assert played.shape == [rpc.name, "Rest", rpc.name, "Rest", rpc.name]
    assert isinstance(played.error, UnavailableError)
    assert played.error.may_have_been_carried_out


def test_that_an_attempt_may_have_been_carried_out_is_not_forgotten_over_those_after_it() -> None:
    clock = PushedClock()
    refused = failing(LockedError)
    played = play(call(rpcs.PROPOSE, clock), clock, unanswered(), failing(ContentionError), refused)
    assert played.error is refused
    assert refused.may_have_been_carried_out


def test_what_was_surely_not_carried_out_says_so() -> None:
    clock = PushedClock()
    played = play(call(rpcs.PROPOSE, clock), clock, failing(ContentionError), failing(LockedError))
    assert isinstance(played.error, LockedError)
    assert not played.error.may_have_been_carried_out


def test_an_answer_was_sent_when_the_attempt_was_that_it_answers() -> None:
    clock = PushedClock()
    script = After(2, failing(ContentionError)), After(1, an_answer(fencing_token=FENCE))
    played = play(call(rpcs.PROPOSE, clock), clock, *script)
    [rest] = played.rests
    assert played.result.sent_at == START + 2 + rest
    assert played.result.fencing_token == FENCE


def test_no_attempt_takes_all_the_time_there_is() -> None:
    clock = PushedClock()
    played = play(call(rpcs.GET, clock, seconds=60), clock)
    assert [step.timeout for step in played.sent] == [5.0]


def test_the_last_attempt_has_what_is_left() -> None:
    clock = PushedClock()
    played = play(call(rpcs.GET, clock, seconds=7), clock, After(5, unanswered()))
    [rest] = played.rests
    assert [step.timeout for step in played.sent] == [5.0, pytest.approx(2 - rest)]


@pytest.mark.parametrize("seconds", [0, -5])
def test_one_attempt_is_made_in_any_case_and_has_a_moment(seconds: float) -> None:
    clock = PushedClock()
    played = play(call(rpcs.GET, clock, seconds=seconds), clock, unanswered())
    assert [step.timeout for step in played.sent] == [0.1]
    assert isinstance(played.error, UnavailableError)


def test_it_rests_for_as_long_as_it_was_told_to_at_least() -> None:
    clock = PushedClock()
    played = play(call(rpcs.GET, clock), clock, failing(OverloadedError, retry_after=3), an_answer())
    [rest] = played.rests
    assert 3.05 <= rest <= 3.1


def test_it_does_not_wait_for_what_comes_when_nobody_waits_any_more() -> None:
    clock = PushedClock()
    error = failing(OverloadedError, retry_after=60)
    played = play(call(rpcs.GET, clock), clock, error)
    assert (played.shape, played.error) == (["GetOperation"], error)


def test_who_waits_for_ever_never_gives_up() -> None:
    clock = PushedClock()
    played = play(call(rpcs.PROPOSE, clock, seconds=math.inf), clock, *(After(5, unanswered()) for _ in range(1_000)))
    assert not played.is_ended
    assert {step.timeout for step in played.sent} == {5.0}


@pytest.mark.parametrize(("number", "longest"), [(1, 0.1), (2, 0.2), (3, 0.4), (5, 1.6), (6, 2.0), (10_000, 2.0)])
def test_pauses_grow_and_are_never_the_same(number: int, longest: float) -> None:
    pauses = {backoff(number) for _ in range(50)}
    assert longest / 2 <= min(pauses) < max(pauses) <= longest
    assert len(pauses) > 1


def play_for_ever(
    flow: Any, clock: PushedClock, attempts: list[tuple[float, type[OperationServiceError]]], retry_after: float
) -> Iterator[None]:
    step = next(flow)
    for share, kind in itertools.cycle(attempts):
        clock.push(share * step.timeout)
        step = flow.throw(failing(kind, retry_after=retry_after))
        clock.push(step.seconds)
        step = next(flow)
    yield


@given(
    patience=st.floats(0, 30),
    attempts=st.lists(
        st.tuples(st.floats(0, 1), st.sampled_from([UnavailableError, ContentionError, OverloadedError])), min_size=1
    ),
    retry_after=st.floats(0, 3),
)
def test_it_never_goes_on_past_its_patience(
    patience: float, attempts: list[tuple[float, type[OperationServiceError]]], retry_after: float
) -> None:
    """Each attempt takes a share of the time that it may take, and fails."""
    clock = PushedClock()
    played_until_it_raises = play_for_ever(call(rpcs.GET, clock, seconds=patience), clock, attempts, retry_after)
    with pytest.raises(OperationServiceError):
        next(played_until_it_raises)
    assert clock() <= START + patience + 0.1 + 1e-6
