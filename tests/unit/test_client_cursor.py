"""Where a watch goes on after an interruption, and when it does not."""

import pytest
from client_support import LOCKED, PushedClock, a_session, failing, told, unanswered

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.client.cursor import Cursor
from operation_service.client.errors import (
    InvalidArgumentError,
    OperationServiceError,
    OverloadedError,
    RevisionCompactedError,
    RevisionInFutureError,
    TooManyWatchesError,
    UnavailableError,
    UnforeseenError,
    WatchEndedError,
)


@pytest.fixture
def clock() -> PushedClock:
    return PushedClock()


def a_cursor(clock: PushedClock, start_revision: int = 0) -> Cursor:
    request = pb.WatchOperationsRequest(project="demo", name_prefix="virtual", start_revision=start_revision)
    return Cursor(request, a_session(clock, timeout=10))


def test_it_begins_where_it_was_told_to(clock: PushedClock) -> None:
    asked = a_cursor(clock, 7).request()
    assert (asked.project, asked.name_prefix, asked.start_revision) == ("demo", "virtual", 7)


def test_it_goes_on_after_the_last_revision_that_was_told(clock: PushedClock) -> None:
    cursor = a_cursor(clock)
    for revision in (41, 42):
        cursor.saw(told(LOCKED, revision=revision))
    cursor.pause_after(unanswered())
    assert cursor.request().start_revision == 43


def test_what_is_not_told_in_full_yet_is_asked_for_again(clock: PushedClock) -> None:
    cursor = a_cursor(clock)
    cursor.saw(told(LOCKED, revision=0))
    cursor.pause_after(unanswered())
    assert cursor.request().start_revision == 0


def test_the_service_knows_better_where_to_go_on(clock: PushedClock) -> None:
    cursor = a_cursor(clock)
    cursor.saw(told(LOCKED, revision=42))
    cursor.pause_after(failing(WatchEndedError, resume_revision="77"))
    assert cursor.request().start_revision == 77
    cursor.pause_after(failing(WatchEndedError))
    assert cursor.request().start_revision == 77


@pytest.mark.parametrize("kind", [UnavailableError, OverloadedError, TooManyWatchesError, WatchEndedError])
def test_an_interruption_is_not_the_end(clock: PushedClock, kind: type[OperationServiceError]) -> None:
    cursor = a_cursor(clock)
    cursor.stands()
    assert cursor.pause_after(failing(kind)) <= 0.1


@pytest.mark.parametrize(
    "kind",
    [RevisionCompactedError, RevisionInFutureError, InvalidArgumentError, UnforeseenError, OperationServiceError],
)
def test_what_going_on_does_not_mend_ends_it(clock: PushedClock, kind: type[OperationServiceError]) -> None:
    cursor = a_cursor(clock)
    cursor.saw(told(LOCKED, revision=42))
    error = failing(kind)
    with pytest.raises(kind) as caught:
        cursor.pause_after(error)
    assert caught.value is error


def pauses_until_it_gives_up(cursor: Cursor, clock: PushedClock) -> int:
    for number in range(1_000):
        try:
            clock.push(cursor.pause_after(unanswered()))
        except UnavailableError:
            return number
    return 1_000


def test_a_watch_that_cannot_be_begun_is_given_up_after_the_timeout(clock: PushedClock) -> None:
    begun = clock()
    assert pauses_until_it_gives_up(a_cursor(clock), clock) > 3
    assert begun + 8 <= clock() < begun + 10


@pytest.mark.parametrize("stood", [Cursor.stands, lambda cursor: cursor.saw(told(LOCKED, revision=1))])
def test_one_that_stood_goes_on_however_long_the_service_is_away(clock: PushedClock, stood: object) -> None:
    cursor = a_cursor(clock)
    assert callable(stood)
    stood(cursor)
    assert pauses_until_it_gives_up(cursor, clock) == 1_000
    assert cursor.pause_after(unanswered()) >= 1


def test_the_pauses_are_short_again_once_something_was_told(clock: PushedClock) -> None:
    cursor = a_cursor(clock)
    cursor.stands()
    for _ in range(8):
        cursor.pause_after(unanswered())
    cursor.saw(told(LOCKED, revision=1))
    assert cursor.pause_after(unanswered()) <= 0.1


def test_it_waits_for_as_long_as_it_is_told_to(clock: PushedClock) -> None:
    cursor = a_cursor(clock)
    assert 3 <= cursor.pause_after(failing(OverloadedError, retry_after=3.0)) <= 3.1
