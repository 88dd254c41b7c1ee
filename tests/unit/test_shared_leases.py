"""Leases that keys share: none ends before any of its keys may, none holds too many, none is kept for nothing."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from unit_support import FakeClock, turns_until

from operation_service.clock import Deadline
from operation_service.errors import StoreOutOfSpaceError, StoreUnavailableError
from operation_service.etcd_client import Lease
from operation_service.shared_leases import SharedLeases

SOON = Deadline(3_600)
"""Made when the tests are collected, and they take minutes."""


class Etcd:
    """Grants leases by the test's clock, as soon as it may."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.ends: dict[int, float] = {}
        self.revoked: list[int] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.error: Exception | None = None
        self.least_seconds = 0
        self.is_asked_again = False

    async def grant(self, seconds: int, _deadline: Deadline) -> Lease:
        asked_at = self.clock.monotonic()
        await self.may_answer.wait()
        if self.is_asked_again:
            asked_at = self.clock.monotonic()
        if self.error is not None:
            raise self.error
        ttl = max(seconds, self.least_seconds)
        lease = Lease(len(self.ends) + 1, ttl, asked_at)
        self.ends[lease.id] = asked_at + ttl
        return lease

    async def revoke(self, lease_id: int, _deadline: Deadline) -> None:
        self.revoked.append(lease_id)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def etcd(clock: FakeClock) -> Etcd:
    return Etcd(clock)


@pytest.fixture
async def leases(etcd: Etcd, clock: FakeClock) -> AsyncIterator[SharedLeases]:
    """With the tolerance that locks have."""
    leases = SharedLeases(etcd, clock, 1.0, is_exact_when_alone=True)  # type: ignore[arg-type]
    yield leases
    await leases.close()


async def settled() -> None:
    """Let what is under way come to its end."""
    for _ in range(5):
        await asyncio.sleep(0)


class TestHowLongAPlaceLasts:
    async def test_alone_it_is_what_was_asked_for(self, leases: SharedLeases) -> None:
        assert (await leases.take(30, SOON)).seconds == 30

    async def test_never_less_than_asked_for_nor_a_second_more_whenever_it_is_asked_for(
        self, leases: SharedLeases, clock: FakeClock, etcd: Etcd
    ) -> None:
        for step in range(400):
            clock.push(monotonic=0.037)
            place = await leases.take(30 + step % 3, SOON)
            assert 30 + step % 3 <= place.seconds <= 31 + step % 3
            assert place.taken_at + place.seconds <= etcd.ends[place.lease_id]

    async def test_it_is_what_etcd_grants_at_the_least_where_that_is_more(
        self, leases: SharedLeases, etcd: Etcd
    ) -> None:
        """8 s with an election timeout of 5 s (ETCD_FACTS, Leases)."""
        etcd.least_seconds = 8
        async with asyncio.timeout(5):
            assert (await leases.take(2, SOON)).seconds == 8

    async def test_keys_that_end_in_the_same_second_share_a_lease(
        self, leases: SharedLeases, clock: FakeClock, etcd: Etcd
    ) -> None:
        for _ in range(100):
            clock.push(monotonic=0.01)
            await leases.take(30, SOON)
        assert len(etcd.ends) <= 3

    async def test_a_shorter_one_shares_the_lease_of_a_longer_one_that_began_earlier(
        self, leases: SharedLeases, clock: FakeClock
    ) -> None:
        longer = await leases.take(30, SOON)
        clock.push(monotonic=10.5)
        shorter = await leases.take(19, SOON)
        assert (shorter.lease_id, shorter.seconds) == (longer.lease_id, 19.5)

    async def test_it_is_measured_from_before_the_grant_was_asked_for(
        self, leases: SharedLeases, clock: FakeClock, etcd: Etcd
    ) -> None:
        etcd.may_answer.clear()
        taking = asyncio.create_task(leases.take(30, SOON))
        await settled()
        clock.push(monotonic=0.8)
        etcd.may_answer.set()
        place = await taking
        assert place.taken_at + place.seconds == etcd.ends[place.lease_id]


class TestHowManyKeysALeaseHolds:
    @pytest.fixture(autouse=True)
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("operation_service.shared_leases._KEYS_PER_LEASE", 4)

    async def test_no_more_than_allowed_one_after_the_other(self, leases: SharedLeases) -> None:
        held = Counter([(await leases.take(30, SOON)).lease_id for _ in range(30)])
        assert max(held.values()) <= 4

    async def test_no_more_than_allowed_all_at_once(self, leases: SharedLeases) -> None:
        places = await asyncio.gather(*(leases.take(30, SOON) for _ in range(30)))
        assert max(Counter(place.lease_id for place in places).values()) <= 4

    async def test_a_place_that_was_given_back_is_free_again(self, leases: SharedLeases, etcd: Etcd) -> None:
        for _ in range(30):
            leases.leave((await leases.take(30, SOON)).lease_id)
        assert len(etcd.ends) == 1


class TestALeaseThatHoldsNothing:
    async def test_is_ended_once_it_is_not_given_out_any_more(
        self, leases: SharedLeases, clock: FakeClock, etcd: Etcd
    ) -> None:
        place = await leases.take(600, SOON)
        leases.leave(place.lease_id)
        clock.push(monotonic=2)
        other = await leases.take(30, SOON)
        await settled()
        assert etcd.revoked == [place.lease_id]
        assert other.lease_id != place.lease_id

    async def test_is_not_ended_while_one_key_is_left(self, leases: SharedLeases, clock: FakeClock, etcd: Etcd) -> None:
        first, second = await leases.take(600, SOON), await leases.take(600, SOON)
        third = await leases.take(600, SOON)
        assert second.lease_id == third.lease_id
        leases.leave(first.lease_id)
        leases.leave(second.lease_id)
        clock.push(monotonic=20)
        await leases.take(30, SOON)
        await settled()
        assert third.lease_id not in etcd.revoked

    async def test_is_not_ended_when_it_was_given_out_again_meanwhile(
        self, leases: SharedLeases, clock: FakeClock, etcd: Etcd
    ) -> None:
        place = await leases.take(600, SOON)
        leases.leave(place.lease_id)
        clock.push(monotonic=0.5)
        again = await leases.take(599, SOON)
        assert again.lease_id == place.lease_id
        clock.push(monotonic=20)
        await leases.take(30, SOON)
        await settled()
        assert etcd.revoked == []

    async def test_that_was_ended_while_its_taker_slept_is_not_handed_out(
        self, leases: SharedLeases, clock: FakeClock, etcd: Etcd
    ) -> None:
        """As after a SIGSTOP between etcd's answer and the next step of who waited for it."""
        etcd.may_answer.clear()
        taking = asyncio.create_task(leases.take(600, SOON))
        await settled()
        etcd.may_answer.set()
        await turns_until(lambda: etcd.ends)
        clock.push(monotonic=5)
        leases._tidy(clock.monotonic())  # noqa: SLF001, what a timer does
        place = await taking
        await settled()
        assert place.lease_id not in etcd.revoked

    async def test_is_ended_at_the_end_of_the_service(self, leases: SharedLeases, etcd: Etcd) -> None:
        empty, held = await leases.take(600, SOON), await leases.take(30, SOON)
        leases.leave(empty.lease_id)
        await leases.close()
        assert etcd.revoked == [empty.lease_id] != [held.lease_id]

    async def test_of_which_nobody_knows_what_hangs_on_it_is_left_to_end_by_itself(
        self, leases: SharedLeases, clock: FakeClock, etcd: Etcd
    ) -> None:
        place = await leases.take(600, SOON)
        leases.forget(place.lease_id)
        leases.leave(place.lease_id)
        clock.push(monotonic=20)
        assert (await leases.take(600, SOON)).lease_id != place.lease_id
        await settled()
        assert etcd.revoked == []


async def test_what_has_ended_is_forgotten(leases: SharedLeases, clock: FakeClock) -> None:
    for _ in range(50):
        await leases.take(2, SOON)
        clock.push(monotonic=4)
    assert len(leases._by_id) <= 2  # noqa: SLF001
    assert len(leases._ends) <= 2  # noqa: SLF001


class TestWhoWaitsForAGrant:
    async def test_waits_together_with_all_who_need_about_the_same(self, leases: SharedLeases, etcd: Etcd) -> None:
        etcd.may_answer.clear()
        taking = [asyncio.create_task(leases.take(30, SOON)) for _ in range(50)]
        await settled()
        etcd.may_answer.set()
        await asyncio.gather(*taking)
        assert len(etcd.ends) <= 2

    async def test_gets_one_of_its_own_if_it_was_granted_so_late_that_it_ends_too_late(
        self, leases: SharedLeases, etcd: Etcd, clock: FakeClock
    ) -> None:
        """The leader was cut off: the grant was asked for again at another member 2.2 s later, and lasted from then."""
        etcd.may_answer.clear()
        longer = asyncio.create_task(leases.take(4, SOON))
        await settled()
        clock.push(monotonic=1.5)
        shorter = asyncio.create_task(leases.take(2, SOON))
        await settled()
        clock.push(monotonic=0.7)
        etcd.is_asked_again = True
        etcd.may_answer.set()
        now = clock.monotonic()
        assert (await longer).lease_id != (await shorter).lease_id
        assert now + 2 <= etcd.ends[(await shorter).lease_id] <= now + 3

    async def test_does_not_end_it_for_the_others_when_it_goes(self, leases: SharedLeases, etcd: Etcd) -> None:
        etcd.may_answer.clear()
        first, second = (asyncio.create_task(leases.take(30, SOON)) for _ in range(2))
        await settled()
        first.cancel()
        etcd.may_answer.set()
        assert (await second).seconds == 30

    async def test_waits_no_longer_than_its_deadline(self, leases: SharedLeases, etcd: Etcd) -> None:
        etcd.may_answer.clear()
        with pytest.raises(StoreUnavailableError) as caught:
            await leases.take(30, Deadline(0.05))
        assert not caught.value.is_outcome_unknown
        etcd.may_answer.set()

    @pytest.mark.parametrize("error", [StoreUnavailableError("it has no leader"), StoreOutOfSpaceError()])
    async def test_is_told_what_went_wrong_each_with_an_error_of_its_own(
        self, leases: SharedLeases, etcd: Etcd, error: Exception
    ) -> None:
        etcd.error = error
        told = await asyncio.gather(*(leases.take(30, SOON) for _ in range(3)), return_exceptions=True)
        assert [type(each) for each in told] == [type(error)] * 3
        assert len({id(each) for each in told}) == 3


async def test_a_lease_that_is_emptied_again_and_again_is_noted_once(clock: FakeClock, etcd: Etcd) -> None:
    """A note is kept for as long as the lease may be given out again: for records up to a day."""
    leases = SharedLeases(cast("Any", etcd), clock, 60_480.0)
    for _ in range(1_000):
        leases.leave((await leases.take(604_800, SOON)).lease_id)
    noted = len(leases._emptied)  # noqa: SLF001
    await leases.close()
    assert noted <= 2


async def test_leases_that_were_ended_early_are_not_remembered_until_they_would_have_ended(
    clock: FakeClock, etcd: Etcd
) -> None:
    leases = SharedLeases(cast("Any", etcd), clock, 1.0, is_exact_when_alone=True)
    for _ in range(3_000):
        leases.leave((await leases.take(86_400, SOON)).lease_id)
        clock.push(monotonic=3)
    remembered, known = len(leases._ends), len(leases._by_id)  # noqa: SLF001
    await leases.close()
    assert known <= 2
    assert remembered <= 1_010


async def test_nothing_is_begun_any_more_after_the_end_of_the_service(leases: SharedLeases, etcd: Etcd) -> None:
    place = await leases.take(600, SOON)
    await leases.close()
    leases.leave(place.lease_id)
    assert leases._tidying is None  # noqa: SLF001
    assert etcd.revoked == []
