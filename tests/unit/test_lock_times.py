"""How long a lock lasts: measured on the monotonic clock wherever it was seen taken, whatever the wall clock does."""

from datetime import timedelta

import pytest
from unit_support import NOW, RESOURCE, FakeClock, a_lock

from operation_service.lock_times import LockTimes
from operation_service.model import Lock, Resource

OTHER_RESOURCE = Resource("project", "virtual_machines/web-2")
REVISION = 44
HOUR = 3_600.0
WALL_JUMPS = [-24 * HOUR, -1.0, 0.0, 1.0, 24 * HOUR]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def times(clock: FakeClock) -> LockTimes:
    return LockTimes(clock)


def lock_of(seconds: int, *, later: float = 0.0) -> Lock:
    """A lock of so many seconds, granted now or later."""
    until = NOW + timedelta(seconds=seconds + later)
    return a_lock(locked_since=NOW, locked_until=until, ttl_seconds=seconds)


def left(times: LockTimes, lock: Lock, resource: Resource = RESOURCE) -> float:
    return times.remaining(resource, lock).total_seconds()


class TestALockThatWasSeenTaken:
    @pytest.mark.parametrize("wall", WALL_JUMPS)
    def test_lasts_as_the_monotonic_clock_says_whatever_the_wall_clock_does(
        self, clock: FakeClock, times: LockTimes, wall: float
    ) -> None:
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic())
        clock.push(wall=wall, monotonic=20)
        assert left(times, lock_of(60)) == 40
        clock.push(wall=-2 * wall, monotonic=39.5)
        assert left(times, lock_of(60)) == 0.5

    def test_has_its_full_time_at_first(self, clock: FakeClock, times: LockTimes) -> None:
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic())
        assert left(times, lock_of(60)) == 60

    def test_is_measured_from_before_its_lease_was_asked_for(self, clock: FakeClock, times: LockTimes) -> None:
        asked_at = clock.monotonic()
        clock.push(monotonic=3)
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=asked_at)
        assert left(times, lock_of(60)) == 57

    def test_that_another_replica_asked_for_is_measured_from_the_news_on(
        self, clock: FakeClock, times: LockTimes
    ) -> None:
        clock.push(wall=HOUR)
        times.taken(RESOURCE, REVISION, lock_of(60))
        clock.push(monotonic=20)
        assert left(times, lock_of(60)) == 40

    def test_lasts_as_long_as_was_granted_and_not_as_its_wall_times_say(
        self, clock: FakeClock, times: LockTimes
    ) -> None:
        lock = a_lock(locked_until=NOW + timedelta(days=9), ttl_seconds=60)
        times.taken(RESOURCE, REVISION, lock, asked_at=clock.monotonic())
        assert left(times, lock) == 60

    @pytest.mark.parametrize("monotonic", [60, 60.001, HOUR])
    def test_that_has_run_out_has_0_left_and_never_less(
        self, clock: FakeClock, times: LockTimes, monotonic: float
    ) -> None:
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic())
        clock.push(monotonic=monotonic)
        assert left(times, lock_of(60)) == 0

    def test_never_has_more_left_than_was_granted(self, clock: FakeClock, times: LockTimes) -> None:
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic() + 5)
        assert left(times, lock_of(60)) == 60

    def test_says_nothing_of_other_resources(self, clock: FakeClock, times: LockTimes) -> None:
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic())
        clock.push(wall=10, monotonic=20)
        assert left(times, lock_of(60), OTHER_RESOURCE) == 50


class TestALockThatWasThereBefore:
    """Nothing but the wall clocks of the two replicas is known of it."""

    @pytest.mark.parametrize(("wall", "expected"), [(0, 60), (20, 40), (60, 0), (HOUR, 0), (-HOUR, 60)])
    def test_lasts_as_the_wall_clock_says_between_0_and_what_was_granted(
        self, clock: FakeClock, times: LockTimes, wall: float, expected: float
    ) -> None:
        clock.push(wall=wall, monotonic=5)
        assert left(times, lock_of(60)) == expected


class TestRenewals:
    @pytest.mark.parametrize("seconds", [5, 600], ids=["earlier", "later"])
    def test_a_renewal_is_measured_anew(self, clock: FakeClock, times: LockTimes, seconds: int) -> None:
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic())
        clock.push(wall=HOUR, monotonic=20)
        renewed = lock_of(seconds, later=20)
        times.taken(RESOURCE, REVISION + 1, renewed, asked_at=clock.monotonic())
        clock.push(monotonic=2)
        assert left(times, renewed) == seconds - 2

    @pytest.mark.parametrize("revision", [REVISION - 1, REVISION], ids=["older", "the same again"])
    def test_older_news_are_ignored(self, clock: FakeClock, times: LockTimes, revision: int) -> None:
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic())
        clock.push(monotonic=20)
        times.taken(RESOURCE, revision, lock_of(60))
        assert left(times, lock_of(60)) == 40

    def test_another_lock_than_the_one_seen_taken_is_not_measured_by_it(
        self, clock: FakeClock, times: LockTimes
    ) -> None:
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic())
        clock.push(wall=10, monotonic=50)
        assert left(times, lock_of(60, later=5)) == 55


class TestLocksThatGo:
    @pytest.fixture(autouse=True)
    def seen_taken(self, clock: FakeClock, times: LockTimes) -> None:
        """By the monotonic clock 40 s are left, by the wall clock 10."""
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic())
        clock.push(wall=50, monotonic=20)
        assert left(times, lock_of(60)) == 40

    @pytest.mark.parametrize("revision", [REVISION, REVISION + 1])
    def test_a_lock_that_has_gone_is_forgotten(self, times: LockTimes, revision: int) -> None:
        times.gone(RESOURCE, revision)
        assert left(times, lock_of(60)) == 10

    def test_older_news_of_a_lock_that_went_are_ignored(self, times: LockTimes) -> None:
        times.gone(RESOURCE, REVISION - 1)
        assert left(times, lock_of(60)) == 40

    def test_another_resources_lock_may_go(self, times: LockTimes) -> None:
        times.gone(OTHER_RESOURCE, REVISION + 1)
        assert left(times, lock_of(60)) == 40

    def test_all_are_forgotten_when_changes_were_missed(self, times: LockTimes) -> None:
        times.clear()
        assert left(times, lock_of(60)) == 10

    def test_the_next_lock_is_measured_again(self, clock: FakeClock, times: LockTimes) -> None:
        times.gone(RESOURCE, REVISION + 1)
        times.taken(RESOURCE, REVISION + 2, lock_of(30, later=50), asked_at=clock.monotonic())
        clock.push(wall=-HOUR, monotonic=10)
        assert left(times, lock_of(30, later=50)) == 20
