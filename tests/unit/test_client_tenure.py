"""What a holder knows of its lock, by its own clock alone."""

import logging
from collections.abc import Callable

import pytest
from client_support import FENCE, START, TERMS, PushedClock, a_tenure
from hypothesis import given
from hypothesis import strategies as st

from operation_service.client import tenure as room
from operation_service.client.errors import LockLostError, Loss, UnavailableError
from operation_service.client.tenure import Tenure
from operation_service.client.terms import Terms

DRIFT = 0.001


def terms(lock_for: int) -> Terms:
    return TERMS.changed(lock_for=lock_for, disable_cancel=None)


def loss_of(tenure: Tenure) -> Loss | None:
    error = tenure.lost()
    return error.loss if error else None


def test_a_lock_is_counted_from_when_its_proposal_was_sent_less_what_clocks_differ() -> None:
    clock = PushedClock()
    tenure = a_tenure(clock, lock_for=30, sent_at=START - 4)
    assert tenure.deadline == START - 4 + 30 * (1 - DRIFT)
    assert tenure.remaining == pytest.approx(26 - 30 * DRIFT)


def test_it_is_renewed_at_a_third_of_its_time() -> None:
    clock = PushedClock()
    assert a_tenure(clock, lock_for=30).renew_at == START + 10
    assert a_tenure(clock, lock_for=3, sent_at=START - 1).renew_at == START


@pytest.mark.parametrize(
    ("seconds", "loss"), [(0, None), (29.9, None), (29.97, Loss.RAN_OUT), (30, Loss.RAN_OUT), (1e6, Loss.RAN_OUT)]
)
def test_it_is_lost_as_soon_as_the_clock_says_so_without_anybody_telling(seconds: float, loss: Loss | None) -> None:
    clock = PushedClock()
    tenure = a_tenure(clock, lock_for=30)
    clock.push(seconds)
    assert loss_of(tenure) is loss
    assert tenure.is_over is (loss is not None)


def test_what_is_lost_has_nothing_left_and_each_check_raises_an_error_of_its_own() -> None:
    clock = PushedClock()
    tenure = a_tenure(clock)
    tenure.check()
    cause = ValueError("told so")
    tenure.lose(Loss.CANCELLED, cause)
    assert tenure.remaining == 0
    raised = []
    for _ in range(2):
        with pytest.raises(LockLostError, match=r"demo/virtual_machines/web-1 .* 41 is lost \(cancelled\)") as caught:
            tenure.check()
        raised.append(caught.value)
    assert raised[0] is not raised[1]
    assert {(error.loss, error.fencing_token, error.__cause__) for error in raised} == {(Loss.CANCELLED, FENCE, cause)}


def test_only_the_first_loss_counts() -> None:
    clock = PushedClock()
    tenure = a_tenure(clock)
    assert tenure.lose(Loss.CANCELLED) is tenure.lose(Loss.TAKEN_OVER)
    clock.push(1e6)
    assert loss_of(tenure) is Loss.CANCELLED


def test_a_renewal_does_not_bring_back_what_is_lost() -> None:
    clock = PushedClock()
    tenure = a_tenure(clock)
    tenure.lose(Loss.EXPIRED)
    tenure.renewed(clock(), terms(30))
    assert loss_of(tenure) is Loss.EXPIRED


def test_whoever_wants_to_know_of_a_loss_is_told_once() -> None:
    told: list[Loss] = []
    clock = PushedClock()
    tenure = a_tenure(clock, on_lost=lambda error: told.append(error.loss))
    clock.push(1e6)
    for _ in range(3):
        tenure.lost()
        tenure.lose(Loss.CANCELLED)
    assert told == [Loss.RAN_OUT]


def test_a_callback_that_fails_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fails(error: LockLostError) -> None:
        raise ArithmeticError(error.loss)

    tenure = a_tenure(PushedClock(), on_lost=fails)
    with caplog.at_level(logging.ERROR):
        assert tenure.lose(Loss.EXPIRED).loss is Loss.EXPIRED
    assert "on_lost failed for demo/virtual_machines/web-1" in caplog.text
    assert "ArithmeticError" in caplog.text


def test_a_callback_may_ask_for_what_it_is_told() -> None:
    seen: list[object] = []
    tenure = a_tenure(PushedClock(), on_lost=lambda error: seen.append(tenure.lost() is error))
    tenure.lose(Loss.EXPIRED)
    assert seen == [True]


def test_a_renewal_counts_from_when_it_was_sent_and_not_from_its_answer() -> None:
    clock = PushedClock()
    tenure = a_tenure(clock, lock_for=30)
    clock.push(10)
    sent_at = clock()
    tenure.renewing(terms(30))
    clock.push(5)
    tenure.renewed(sent_at, terms(30))
    assert tenure.deadline == sent_at + 30 * (1 - DRIFT)


def test_a_renewal_that_was_not_answered_prolongs_nothing() -> None:
    clock = PushedClock()
    tenure = a_tenure(clock, lock_for=30)
    clock.push(10)
    tenure.renewing(terms(60))
    assert tenure.deadline == START + 30 * (1 - DRIFT)


def test_a_renewal_that_shortens_is_believed_at_once_even_if_its_answer_never_comes() -> None:
    clock = PushedClock()
    tenure = a_tenure(clock, lock_for=30)
    clock.push(10)
    tenure.renewing(terms(5))
    assert tenure.deadline == START + 10 + 5 * (1 - DRIFT)
    assert tenure.terms.lock_for == 30, "what it is renewed with is not changed by what was not answered"


def test_a_lock_that_runs_out_names_why_it_was_not_renewed() -> None:
    clock = PushedClock()
    tenure = a_tenure(clock)
    failure = UnavailableError("no answer")
    tenure.renewal_failed(failure)
    clock.push(30)
    with pytest.raises(LockLostError) as caught:
        tenure.check()
    assert caught.value.__cause__ is failure


def test_a_failure_is_forgotten_when_a_renewal_was_answered() -> None:
    clock = PushedClock()
    tenure = a_tenure(clock)
    tenure.renewal_failed(UnavailableError("no answer"))
    tenure.renewed(clock(), terms(30))
    clock.push(30)
    with pytest.raises(LockLostError) as caught:
        tenure.check()
    assert caught.value.__cause__ is None


def test_what_was_given_back_cannot_be_lost() -> None:
    told: list[LockLostError] = []
    clock = PushedClock()
    tenure = a_tenure(clock, on_lost=told.append)
    tenure.end()
    assert tenure.is_over
    assert tenure.lose(Loss.EXPIRED).loss is Loss.EXPIRED, "whoever asks is answered all the same"
    clock.push(1e6)
    assert tenure.lost() is None
    assert told == []


def test_what_was_given_back_is_of_no_use_to_whoever_has_it_yet() -> None:
    tenure = a_tenure(PushedClock())
    tenure.end()
    assert tenure.remaining == 0
    with pytest.raises(LockLostError, match="given back") as caught:
        tenure.check()
    assert caught.value.loss is Loss.GIVEN_BACK


@pytest.mark.parametrize("end", [Tenure.end, lambda tenure: tenure.lose(Loss.EXPIRED)])
def test_whoever_waits_is_woken_by_the_end_and_at_once_if_it_came_before(end: Callable[[Tenure], object]) -> None:
    woken: list[str] = []
    tenure = a_tenure(PushedClock())
    tenure.when_over(lambda: woken.append("before"))
    assert woken == []
    end(tenure)
    tenure.when_over(lambda: woken.append("after"))
    assert woken == ["before", "after"]


def test_in_a_child_of_the_process_every_lock_is_the_parents() -> None:
    woken: list[str] = []
    clock = PushedClock()
    held, lost, given_back = (a_tenure(clock) for _ in range(3))
    lost.lose(Loss.CANCELLED)
    given_back.end()
    held.when_over(lambda: woken.append("a thread of the parent"))
    with held._mutex:  # noqa: SLF001, a thread of the parent may hold it
        room._all_forked()  # noqa: SLF001
    assert [loss_of(each) for each in (held, lost, given_back)] == [Loss.FORKED, Loss.CANCELLED, None]
    held.end()
    assert woken == []


def test_a_renewal_for_no_time_at_all_shortens_nothing_as_it_is_refused() -> None:
    clock = PushedClock()
    tenure = a_tenure(clock, lock_for=30)
    tenure.renewing(terms(0))
    assert tenure.deadline == START + 30 * (1 - DRIFT)


renewals = st.lists(
    st.tuples(
        st.integers(1, 40),  # for how long
        st.floats(0, 20),  # the pause before it
        st.floats(0, 10),  # on its way there
        st.floats(0, 10),  # and back
        st.sampled_from(["answered", "unanswered", "never arrived"]),
    ),
    max_size=12,
)


@given(first=st.integers(1, 40), there=st.floats(0, 5), back=st.floats(0, 5), renewals=renewals)
def test_the_holder_never_believes_in_its_lock_for_longer_than_the_service_keeps_it(
    first: int, there: float, back: float, renewals: list[tuple[int, float, float, float, str]]
) -> None:
    """Against a service that counts from when a proposal arrives, one after the other, with any delays and losses."""
    clock = PushedClock()
    sent_at = clock()
    clock.push(there)
    kept_until = clock() + first
    clock.push(back)
    tenure = a_tenure(clock, lock_for=first, sent_at=sent_at)
    for lock_for, pause, there_too, back_too, fate in renewals:
        clock.push(pause)
        if tenure.lost():
            return
        sent_at = clock()
        tenure.renewing(terms(lock_for))
        clock.push(there_too)
        assert tenure.lost() or clock() < kept_until
        if fate != "never arrived":
            if clock() >= kept_until:
                # The fencing token is a precondition: what is gone is not renewed.
                assert tenure.lost()
                return
            kept_until = clock() + lock_for
        clock.push(back_too)
        if fate == "answered":
            tenure.renewed(sent_at, terms(lock_for))
        else:
            tenure.renewal_failed(UnavailableError("no answer"))
        assert tenure.lost() or clock() < kept_until
        assert tenure.lost() or tenure.deadline < kept_until
