"""One hold a resource within a process."""

import math
from concurrent.futures import Future

import pytest
from client_support import OTHER, TERMS, After, PushedClock, a_session, an_answer, play

from operation_service.client import claims
from operation_service.client.acquiring import Wanted, acquire
from operation_service.client.claims import Claim
from operation_service.client.errors import HeldHereError
from operation_service.client.flows import Await
from operation_service.client.session import Session

RESOURCE = TERMS.resource


@pytest.fixture(autouse=True)
def _no_claims() -> None:
    claims._claims.clear()  # noqa: SLF001


def a_claim(resource: str = RESOURCE, token: str | None = None) -> Claim:
    clock = PushedClock()
    return Claim(resource, Session(token, 10, clock) if token else a_session(clock))


def test_the_first_has_it_and_the_next_waits_until_it_lets_go() -> None:
    first, second = a_claim(), a_claim()
    assert first.try_take() is None
    let_go = second.try_take()
    assert let_go is not None
    assert (first.is_taken, second.is_taken, let_go.done()) == (True, False, False)
    first.release()
    assert let_go.done()
    assert second.try_take() is None


@pytest.mark.parametrize("other", [a_claim("demo/other"), a_claim(token=OTHER)])
def test_another_resource_and_another_peer_are_in_nobodys_way(other: Claim) -> None:
    assert a_claim().try_take() is None
    assert other.try_take() is None


def test_who_has_it_not_lets_go_of_nothing() -> None:
    first, second = a_claim(), a_claim()
    first.try_take()
    second.try_take()
    second.release()
    assert a_claim().try_take() is not None


def test_to_let_go_twice_does_not_harm_the_next() -> None:
    first, second = a_claim(), a_claim()
    first.try_take()
    first.release()
    second.try_take()
    first.release()
    assert a_claim().try_take() is not None


def test_a_child_of_the_process_has_none_and_touches_none_of_its_parent() -> None:
    of_the_parent = a_claim()
    of_the_parent.try_take()
    waited_for = a_claim().try_take()
    assert waited_for is not None
    with claims._mutex:  # noqa: SLF001, a thread of the parent may hold it
        claims._forget()  # noqa: SLF001
    of_the_child = a_claim()
    assert of_the_child.try_take() is None
    of_the_parent.release()
    assert not waited_for.done(), "its own lock may have been held by a thread of the parent"
    assert a_claim().try_take() is not None


def test_another_hold_of_the_process_is_waited_for_and_nothing_is_proposed_meanwhile() -> None:
    clock = PushedClock()
    other = a_claim()
    other.try_take()
    mine = Claim(RESOURCE, a_session(clock))
    flow = acquire(Wanted(TERMS, 20, ""), a_session(clock), mine)
    step = next(flow)
    assert isinstance(step, Await)
    assert step.seconds == 20
    other.release()
    assert step.done.done()
    played = play(flow, clock, an_answer())
    assert played.shape == ["ProposeOperation"]
    assert mine.is_taken


@pytest.mark.parametrize(("wait", "seconds"), [(20.0, 20.0), (None, math.inf)])
def test_it_waits_for_as_long_as_it_was_told_to(wait: float | None, seconds: float) -> None:
    clock = PushedClock()
    a_claim().try_take()
    step = next(acquire(Wanted(TERMS, wait, ""), a_session(clock), Claim(RESOURCE, a_session(clock))))
    assert isinstance(step, Await)
    assert isinstance(step.done, Future)
    assert step.seconds == seconds


@pytest.mark.parametrize("wait", [0.0, 20.0])
def test_a_hold_that_does_not_end_in_time_is_told_as_such(wait: float) -> None:
    clock = PushedClock()
    a_claim().try_take()
    mine = Claim(RESOURCE, a_session(clock))
    flow = acquire(Wanted(TERMS, wait, ""), a_session(clock), mine)
    steps = [None] if wait else []
    played = play(flow, clock, *(After(wait, step) for step in steps))
    assert isinstance(played.error, HeldHereError)
    assert "demo/virtual_machines/web-1 is held by this process already" in str(played.error)
    assert played.shape == ["Await"] * len(steps)
    assert not mine.is_taken
