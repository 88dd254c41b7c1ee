"""Rule 12: etcd keeps leases for longer than it granted them; a lock ends all the same, by the replicas' own clocks.

Time passes here for a service alone, so to it every lease of the real etcd lasts too long, as after a restart of etcd.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import pytest
from etcd_hands import EtcdHands
from links import linked
from support import NAME, PROJECT, Peer, TestClock, connected, event_name, refused
from waiting import reaches, soon

from operation_service.break_lock import lock_breaker
from operation_service.clock import Deadline
from operation_service.etcd_client import EtcdClient
from operation_service.expiry import Expiry
from operation_service.keys import Keys
from operation_service.lock_times import LockTimes, Outlived
from operation_service.model import Resource
from operation_service.server import running
from operation_service.settings import Settings

RESOURCE = Resource(PROJECT, NAME)
LOCK = f"locks/{PROJECT}/{NAME}"


@contextlib.asynccontextmanager
async def _replica(etcd: str, settings: Settings, clock: TestClock) -> AsyncIterator[Peer]:
    async with running(settings, [etcd], clock) as service, connected(service.address) as peer:
        yield peer


def replica(etcd: str, settings: Settings, clock: TestClock) -> AbstractAsyncContextManager[Peer]:
    """Another service over the same keys, with a clock of its own."""
    return _replica(etcd, settings, clock)


async def heard_of(peer: Peer, name: str) -> None:
    """Wait until a replica has heard of a lock by its own watch of etcd, and not only by being asked."""
    watch = await peer.watching()
    await peer.named("somebody").propose(name)
    while (await watch.read()).operation.name != name:
        pass
    watch.cancel()


async def test_a_lock_that_etcd_keeps_for_too_long_is_ended_by_the_replica_that_granted_it(
    peer: Peer, clock: TestClock, hands: EtcdHands
) -> None:
    await peer.propose(lock_for_seconds=60)
    (lock,) = await hands.entries(LOCK)
    clock.pass_seconds(61)
    assert await reaches(peer, "EXPIRED")
    assert await hands.lives(lock.lease)
    await peer.named("another").propose()


async def test_it_is_not_ended_before_its_time(peer: Peer, clock: TestClock) -> None:
    await peer.propose("short", lock_for_seconds=58)
    await peer.propose(lock_for_seconds=60)
    clock.pass_seconds(59.5)
    # The service has looked at the clock since then: the shorter lock has gone.
    assert await reaches(peer, "EXPIRED", "short")
    assert await peer.state() == "LOCKED"
    assert (await refused(peer.named("another").propose())).reason == "LOCKED"


@pytest.mark.parametrize("hours", [-1, 1])
async def test_no_wall_clock_counts(peer: Peer, clock: TestClock, hours: int) -> None:
    await peer.propose("short", lock_for_seconds=58)
    await peer.propose(lock_for_seconds=60)
    clock.push(hours=hours)
    clock.pass_seconds(59.5)
    assert await reaches(peer, "EXPIRED", "short")
    assert await peer.state() == "LOCKED"
    clock.pass_seconds(1.5)
    assert await reaches(peer, "EXPIRED")


async def test_a_renewed_lock_lasts_from_its_renewal_on(peer: Peer, clock: TestClock) -> None:
    await peer.propose("not-renewed", lock_for_seconds=60)
    await peer.propose(lock_for_seconds=60)
    clock.pass_seconds(50)
    await peer.propose(lock_for_seconds=60)
    clock.pass_seconds(12)
    assert await reaches(peer, "EXPIRED", "not-renewed")
    assert await peer.state() == "LOCKED"


async def test_its_end_is_news_like_any_other_expiry(peer: Peer, clock: TestClock) -> None:
    await peer.propose("may-be-cancelled", lock_for_seconds=60)
    await peer.propose("may-not-be-cancelled", lock_for_seconds=60, is_disabled_cancel=True)
    watch = await peer.watching()
    present = [(await watch.read()).operation.name for _ in range(2)]
    clock.pass_seconds(61)
    news = [await watch.read() for _ in present]
    assert {(each.operation.name, event_name(each.event)) for each in news} == {
        ("may-be-cancelled", "EXPIRED"),
        ("may-not-be-cancelled", "OPERATOR_DEAD"),
    }
    watch.cancel()


async def test_a_replica_that_only_saw_it_taken_ends_it_too(
    peer: Peer, etcd: str, settings: Settings, hands: EtcdHands
) -> None:
    clock = TestClock()
    async with replica(etcd, settings, clock) as bystander:
        await heard_of(bystander, "begun")
        await peer.propose(lock_for_seconds=60)
        await heard_of(bystander, "heard-after-it")
        clock.pass_seconds(62)
        assert await reaches(peer, "EXPIRED")
    assert LOCK not in await hands.keys()


async def test_a_replica_that_came_later_ends_it_one_whole_time_after_it_found_it(
    peer: Peer, etcd: str, settings: Settings
) -> None:
    await peer.propose(lock_for_seconds=60)
    clock = TestClock()
    async with replica(etcd, settings, clock) as late:
        await heard_of(late, "begun")
        clock.pass_seconds(62)
        assert await reaches(peer, "EXPIRED")


async def test_that_somebody_is_cancelled_does_not_last_longer_either(peer: Peer, clock: TestClock) -> None:
    await peer.propose(lock_for_seconds=60)
    clock.pass_seconds(30)
    await peer.cancel()
    assert (await refused(peer.propose())).reason == "OPERATION_CANCELLED"
    clock.pass_seconds(31)

    async def may_propose() -> bool:
        await peer.propose()
        return True

    assert await soon(may_propose)


@pytest.mark.parametrize("is_disabled_cancel", [False, True])
async def test_nor_does_it_that_somebody_s_lock_was_broken(
    peer: Peer, clock: TestClock, etcd: str, settings: Settings, is_disabled_cancel: bool
) -> None:
    await peer.propose(lock_for_seconds=60, is_disabled_cancel=is_disabled_cancel)
    clock.pass_seconds(30)
    async with lock_breaker([etcd], settings.key_prefix) as breaker:
        shown = await breaker.look(RESOURCE, Deadline(10))
        await breaker.break_lock(shown, "broken", Deadline(10))
    assert (await refused(peer.propose())).reason == "OPERATION_CANCELLED"
    clock.pass_seconds(31)

    async def may_propose() -> bool:
        await peer.propose()
        return True

    assert await soon(may_propose)


async def test_when_etcd_was_away_at_its_time_it_ends_once_etcd_is_back(
    etcd: str, settings: Settings, clock: TestClock, hands: EtcdHands
) -> None:
    async with linked(etcd) as proxy, replica(proxy.url, settings, clock) as peer:
        await peer.propose(lock_for_seconds=60)
        await proxy.close()
        clock.pass_seconds(61)
        peer.timeout = 1.0
        await refused(peer.get())
        assert LOCK in await hands.keys()
        await proxy.open()
        peer.timeout = 20.0
        assert await reaches(peer, "EXPIRED")


async def test_hundreds_that_end_together_are_ended_together(peer: Peer, clock: TestClock, hands: EtcdHands) -> None:
    await asyncio.gather(*(peer.propose(f"vm/{number}", lock_for_seconds=60) for number in range(300)))
    clock.pass_seconds(61)

    async def all_have_gone() -> bool:
        return not await hands.keys("locks/")

    assert await soon(all_have_gone)
    await peer.named("another").propose("vm/299")


class TestTheGuard:
    """What was renewed by way of another replica keeps its lock, though this one has not heard of it."""

    @pytest.fixture
    async def client(self, etcd: str) -> AsyncIterator[EtcdClient]:
        client = EtcdClient([etcd])
        yield client
        await client.close()

    async def test_a_lock_that_was_renewed_unheard_is_kept(
        self, peer: Peer, client: EtcdClient, settings: Settings, hands: EtcdHands
    ) -> None:
        await peer.propose(lock_for_seconds=60)
        (lock,) = await hands.entries(LOCK)
        await peer.propose(lock_for_seconds=60)
        expiry = Expiry(client, Keys(settings.key_prefix), LockTimes(TestClock()))
        await expiry.end([Outlived(RESOURCE, "", lock.mod_revision)])
        assert await peer.state() == "LOCKED"
        (lock,) = await hands.entries(LOCK)
        await expiry.end([Outlived(RESOURCE, "", lock.mod_revision)])
        assert await peer.state() == "EXPIRED"


class TestHowLongALockLasts:
    """`remaining` and the retry hint, where the replica that is asked did not see the lock taken."""

    @pytest.mark.parametrize("hours", [-1, 0, 1])
    async def test_is_asked_of_its_lease_and_not_of_the_wall_clocks(
        self, peer: Peer, etcd: str, settings: Settings, hours: int
    ) -> None:
        await peer.propose(lock_for_seconds=600)
        clock = TestClock()
        clock.push(hours=hours)
        async with replica(etcd, settings, clock) as late:
            remaining = (await late.get()).remaining.ToTimedelta().total_seconds()
            assert 500 < remaining <= 600
            refusal = await refused(late.named("another").propose())
            assert refusal.retry_seconds is not None
            assert 500 < refusal.retry_seconds <= 600
