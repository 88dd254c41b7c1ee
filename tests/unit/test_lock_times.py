"""How long a lock lasts: measured on the monotonic clock wherever it was seen taken, whatever the wall clock does."""

from datetime import timedelta

import pytest
from msgspec.structs import replace
from unit_support import NOW, RESOURCE, FakeClock, a_lock

from operation_service.lock_times import LockTimes, Outlived
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

    def test_those_that_are_not_found_any_more_after_changes_were_missed_are_forgotten(self, times: LockTimes) -> None:
        times.look_again()
        times.looked()
        assert left(times, lock_of(60)) == 10

    def test_those_that_are_found_unchanged_after_changes_were_missed_are_as_well_known_as_before(
        self, times: LockTimes
    ) -> None:
        times.look_again()
        times.found(RESOURCE, REVISION, lock_of(60))
        times.looked()
        assert left(times, lock_of(60)) == 40
        assert times.is_measured(RESOURCE, lock_of(60))

    def test_those_that_were_taken_while_looking_are_kept(self, clock: FakeClock, times: LockTimes) -> None:
        times.look_again()
        times.taken(OTHER_RESOURCE, REVISION + 1, lock_of(30, later=50), asked_at=clock.monotonic())
        times.looked()
        assert times.is_measured(OTHER_RESOURCE, lock_of(30, later=50))

    def test_the_next_lock_is_measured_again(self, clock: FakeClock, times: LockTimes) -> None:
        times.gone(RESOURCE, REVISION + 1)
        times.taken(RESOURCE, REVISION + 2, lock_of(30, later=50), asked_at=clock.monotonic())
        clock.push(wall=-HOUR, monotonic=10)
        assert left(times, lock_of(30, later=50)) == 20


class TestALockThatWasFound:
    """It was taken at some time before now, so it ends within its whole time from now on."""

    def test_is_not_measured_and_lasts_as_the_wall_clocks_say(self, clock: FakeClock, times: LockTimes) -> None:
        clock.push(wall=50)
        times.found(RESOURCE, REVISION, lock_of(60))
        assert not times.is_measured(RESOURCE, lock_of(60))
        assert left(times, lock_of(60)) == 10

    def test_lasts_no_longer_than_its_whole_time_from_then_on_whatever_the_wall_clock_says(
        self, clock: FakeClock, times: LockTimes
    ) -> None:
        clock.push(wall=-HOUR)
        times.found(RESOURCE, REVISION, lock_of(60))
        clock.push(monotonic=20)
        assert left(times, lock_of(60)) == 40

    def test_whose_lease_was_asked_for_is_measured(self, clock: FakeClock, times: LockTimes) -> None:
        times.found(RESOURCE, REVISION, lock_of(60))
        clock.push(wall=HOUR)
        times.found(RESOURCE, REVISION, lock_of(60), left_seconds=25)
        assert times.is_measured(RESOURCE, lock_of(60))
        clock.push(monotonic=5)
        assert left(times, lock_of(60)) == 20

    def test_with_a_lease_that_lasts_longer_than_the_lock_lasts_its_own_time(
        self, clock: FakeClock, times: LockTimes
    ) -> None:
        times.found(RESOURCE, REVISION, lock_of(60), left_seconds=HOUR)
        clock.push(monotonic=20)
        assert left(times, lock_of(60)) == 40

    def test_after_a_renewal_was_seen_is_old_news(self, clock: FakeClock, times: LockTimes) -> None:
        times.taken(RESOURCE, REVISION + 1, lock_of(60, later=20), asked_at=clock.monotonic())
        times.found(RESOURCE, REVISION, lock_of(60), left_seconds=5)
        assert left(times, lock_of(60, later=20)) == 60


GRACE = 1.0


class TestWhatHasOutlivedItsTime:
    def outlived(self, times: LockTimes, limit: int = 10) -> list[Outlived]:
        return times.outlived(GRACE, limit)

    def test_is_named_once_the_time_and_the_grace_have_passed_and_not_before(
        self, clock: FakeClock, times: LockTimes
    ) -> None:
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic())
        clock.push(monotonic=60.9)
        assert self.outlived(times) == []
        clock.push(monotonic=0.1)
        assert self.outlived(times) == [Outlived(RESOURCE, "", REVISION)]

    @pytest.mark.parametrize("wall", WALL_JUMPS)
    def test_is_told_by_no_wall_clock(self, clock: FakeClock, times: LockTimes, wall: float) -> None:
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic())
        clock.push(wall=wall, monotonic=60)
        assert self.outlived(times) == []
        clock.push(wall=-wall, monotonic=1)
        assert self.outlived(times) == [Outlived(RESOURCE, "", REVISION)]

    def test_is_measured_from_the_renewal(self, clock: FakeClock, times: LockTimes) -> None:
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic())
        clock.push(monotonic=50)
        times.taken(RESOURCE, REVISION + 1, lock_of(60, later=50), asked_at=clock.monotonic())
        clock.push(monotonic=60)
        assert self.outlived(times) == []
        clock.push(monotonic=1)
        assert self.outlived(times) == [Outlived(RESOURCE, "", REVISION + 1)]

    def test_comes_earlier_after_a_renewal_for_a_shorter_time(self, clock: FakeClock, times: LockTimes) -> None:
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic())
        times.taken(RESOURCE, REVISION + 1, lock_of(5), asked_at=clock.monotonic())
        clock.push(monotonic=6)
        assert self.outlived(times) == [Outlived(RESOURCE, "", REVISION + 1)]

    def test_that_was_found_ends_within_its_whole_time_from_then_on(self, clock: FakeClock, times: LockTimes) -> None:
        times.found(RESOURCE, REVISION, lock_of(60))
        clock.push(monotonic=60)
        assert self.outlived(times) == []
        clock.push(monotonic=1)
        assert self.outlived(times) == [Outlived(RESOURCE, "", REVISION)]

    def test_is_named_again_every_second_until_its_end_is_news(self, clock: FakeClock, times: LockTimes) -> None:
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic())
        clock.push(monotonic=61)
        (first,) = self.outlived(times)
        assert self.outlived(times) == []
        clock.push(monotonic=1)
        assert self.outlived(times) == [first]
        times.settled(first)
        clock.push(monotonic=1)
        assert self.outlived(times) == [first]
        times.gone(RESOURCE, REVISION + 1)
        clock.push(monotonic=1)
        assert self.outlived(times) == []

    def test_of_a_cancelled_peer_there_is_no_news_so_that_settles_it(self, clock: FakeClock, times: LockTimes) -> None:
        times.cancelled(RESOURCE, REVISION, lock_of(60))
        clock.push(monotonic=61)
        (cancelled,) = self.outlived(times)
        times.settled(cancelled)
        clock.push(monotonic=1)
        assert self.outlived(times) == []

    def test_a_cancellation_of_which_the_news_come_after_the_end_ends_with_its_lock(
        self, clock: FakeClock, times: LockTimes
    ) -> None:
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic())
        clock.push(monotonic=61)
        (outlived,) = self.outlived(times)
        # The lock is not there any more, as it was cancelled; the watch has yet to tell of it.
        times.settled(outlived)
        times.cancelled(RESOURCE, REVISION + 1, lock_of(60))
        times.gone(RESOURCE, REVISION + 1)
        assert self.outlived(times) == [Outlived(RESOURCE, lock_of(60).token, REVISION + 1)]

    def test_that_was_renewed_meanwhile_is_not_settled(self, clock: FakeClock, times: LockTimes) -> None:
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic())
        clock.push(monotonic=61)
        (outlived,) = self.outlived(times)
        times.taken(RESOURCE, REVISION + 1, lock_of(60, later=61), asked_at=clock.monotonic())
        times.settled(outlived)
        clock.push(monotonic=61)
        assert self.outlived(times) == [Outlived(RESOURCE, "", REVISION + 1)]

    def test_is_no_lock_that_went_in_time(self, clock: FakeClock, times: LockTimes) -> None:
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic())
        times.gone(RESOURCE, REVISION + 1)
        clock.push(monotonic=61)
        assert self.outlived(times) == []

    def test_comes_in_bites(self, clock: FakeClock, times: LockTimes) -> None:
        resources = [Resource("project", f"vm/{number}") for number in range(5)]
        for resource in resources:
            times.taken(resource, REVISION, lock_of(60), asked_at=clock.monotonic())
        clock.push(monotonic=61)
        bites = [self.outlived(times, 2) for _ in range(4)]
        assert [[each.resource for each in bite] for bite in bites] == [
            resources[:2],
            resources[2:4],
            resources[4:],
            [],
        ]

    def test_costs_no_memory_for_each_renewal(self, clock: FakeClock, times: LockTimes) -> None:
        for number in range(5_000):
            times.taken(RESOURCE, REVISION + number, lock_of(60, later=number), asked_at=clock.monotonic())
            clock.push(monotonic=1)
            assert self.outlived(times) == []
        assert len(times._due) <= 2  # noqa: SLF001, nothing else tells

    def test_costs_no_memory_for_each_renewal_for_a_shorter_time(self, clock: FakeClock, times: LockTimes) -> None:
        for number in range(5_000):
            times.taken(RESOURCE, REVISION + number, lock_of(6_000 - number), asked_at=clock.monotonic())
        assert len(times._due) < 1_500  # noqa: SLF001, as above
        clock.push(monotonic=1_002)
        assert self.outlived(times) == [Outlived(RESOURCE, "", REVISION + 4_999)]

    def test_costs_no_memory_for_locks_that_have_gone(self, clock: FakeClock, times: LockTimes) -> None:
        for number in range(5_000):
            resource = Resource("project", f"vm/{number}")
            times.taken(resource, REVISION + number, lock_of(86_400), asked_at=clock.monotonic())
            times.gone(resource, REVISION + number + 1)
        assert len(times._due) < 1_500  # noqa: SLF001, as above
        assert not times._due_at  # noqa: SLF001, as above

    def test_a_cancelled_peer_is_refused_for_no_longer_than_it_would_have_held_its_lock(
        self, clock: FakeClock, times: LockTimes
    ) -> None:
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic())
        clock.push(monotonic=20)
        times.cancelled(RESOURCE, REVISION + 1, lock_of(60))
        times.gone(RESOURCE, REVISION + 1)
        clock.push(monotonic=40)
        assert self.outlived(times) == []
        clock.push(monotonic=1)
        assert self.outlived(times) == [Outlived(RESOURCE, lock_of(60).token, REVISION + 1)]

    def test_a_cancelled_peer_whose_lock_was_not_seen_taken_has_its_whole_time_from_then_on(
        self, clock: FakeClock, times: LockTimes
    ) -> None:
        times.cancelled(RESOURCE, REVISION + 1, lock_of(60))
        clock.push(monotonic=61)
        assert self.outlived(times) == [Outlived(RESOURCE, lock_of(60).token, REVISION + 1)]

    def test_a_cancelled_peer_does_not_hide_the_next_holder(self, clock: FakeClock, times: LockTimes) -> None:
        times.taken(RESOURCE, REVISION, lock_of(60), asked_at=clock.monotonic())
        # This replica granted the next lock before the watch told it of the cancellation.
        times.taken(RESOURCE, REVISION + 2, lock_of(30), asked_at=clock.monotonic())
        times.cancelled(RESOURCE, REVISION + 1, lock_of(60))
        times.gone(RESOURCE, REVISION + 1)
        clock.push(monotonic=31)
        assert self.outlived(times) == [Outlived(RESOURCE, "", REVISION + 2)]
        assert left(times, lock_of(30)) == 0


def test_locks_are_counted_and_cancelled_peers_are_not(times: LockTimes) -> None:
    lock = replace(a_lock(), is_disabled_cancel=True)
    times.taken(RESOURCE, 1, lock)
    times.taken(RESOURCE, 2, lock)
    times.found(OTHER_RESOURCE, 3, a_lock())
    assert times.locks == 2
    assert times.lock_is_uncancellable(RESOURCE)
    assert not times.lock_is_uncancellable(OTHER_RESOURCE)
    times.cancelled(RESOURCE, 4, lock)
    times.gone(RESOURCE, 4)
    times.gone(RESOURCE, 5)
    assert times.locks == 1
    assert not times.lock_is_uncancellable(RESOURCE)
    times.look_again()
    times.looked()
    assert times.locks == 0
