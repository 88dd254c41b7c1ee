"""What becomes of calls, locks and watches when one of three etcd members, or all of them, fall silent or die."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from e2e.support_cluster import FAILOVER_SECONDS, NOISE_SECONDS, Cluster, cluster_of_three, seconds_until_it_works
from e2e.support_e2e import Serve
from e2e.support_etcd import Etcd
from support import Peer, connected, event_name, refusal_of

from operation_service.embedded_binary import EtcdBinary

Fault = Callable[[Etcd], Awaitable[None]]


@pytest.fixture
async def cluster(tmp_path: Path, binary: EtcdBinary) -> AsyncIterator[Cluster]:
    cluster = cluster_of_three(binary, tmp_path)
    try:
        yield await cluster.start()
    finally:
        await cluster.kill()


async def freeze(member: Etcd) -> None:
    await member.freeze()


async def kill(member: Etcd) -> None:
    await member.kill()


FAULTS = pytest.mark.parametrize("fault", [kill, freeze])


def first(member: Etcd, cluster: Cluster) -> str:
    """The endpoints, that of one member first: the service begins with it."""
    return ",".join([member.url, *(url for url in cluster.endpoints if url != member.url)])


@FAULTS
@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_when_the_member_in_use_fails_the_next_one_serves_in_three_seconds(
    cluster: Cluster, serve: Serve, fault: Fault, role: str
) -> None:
    member = await (cluster.leader() if role == "leader" else cluster.follower())
    server = await serve("--etcd-endpoints", first(member, cluster))
    async with connected(server.address) as peer:
        await peer.propose(lock_for_seconds=600)
        fence = peer.fencing_token
        await fault(member)
        assert await seconds_until_it_works(lambda: peer.propose(lock_for_seconds=600, fence=fence)) < (
            FAILOVER_SECONDS + NOISE_SECONDS
        )
        # And from then on every call goes through at once.
        for _ in range(20):
            await peer.propose(lock_for_seconds=600, fence=fence)


@FAULTS
async def test_when_the_leader_fails_that_is_not_in_use_the_service_serves_in_three_seconds(
    cluster: Cluster, serve: Serve, fault: Fault
) -> None:
    leader, follower = await cluster.leader(), await cluster.follower()
    server = await serve("--etcd-endpoints", first(follower, cluster))
    async with connected(server.address) as peer:
        await peer.propose(lock_for_seconds=600)
        await fault(leader)
        assert await seconds_until_it_works(peer.get) < FAILOVER_SECONDS + NOISE_SECONDS


@FAULTS
async def test_a_watch_goes_on_without_a_gap_when_its_member_fails(
    cluster: Cluster, serve: Serve, fault: Fault
) -> None:
    leader, follower = await cluster.leader(), await cluster.follower()
    # The watcher's replica uses the member that fails; the changes are made by way of another one.
    watched = await serve("--etcd-endpoints", first(follower, cluster))
    changed = await serve("--etcd-endpoints", first(leader, cluster))
    async with connected(watched.address) as watcher, connected(changed.address) as peer:
        watch = await watcher.watching()
        await peer.propose(lock_for_seconds=600)
        assert event_name((await watch.read()).event) == "LOCKED"
        await fault(follower)
        silent_since = time.monotonic()
        for step in range(5):
            await peer.append(f"step {step}")
        told = [(await watch.read()).operation.operation.logs[-1].message for _ in range(5)]
        assert told == [f"step {step}" for step in range(5)]
        assert time.monotonic() - silent_since < FAILOVER_SECONDS + NOISE_SECONDS
        watch.cancel()


async def until_taken_over(peer: Peer) -> float:
    """Propose until it is granted; returns the wall time then."""
    while True:
        try:
            await peer.propose(lock_for_seconds=5)
        except grpc.aio.AioRpcError as error:
            assert refusal_of(error).reason in {"LOCKED", "ETCD_UNAVAILABLE"}  # noqa: PT017
            await asyncio.sleep(0.05)
        else:
            return time.time()


GRACE_SECONDS = 2.5


class TestTheDeadline:
    """Rule 12: neither earlier than the holder was told, nor stretched by the full time that etcd gives to leases."""

    LOCK_SECONDS = 12
    FAULT_AFTER_SECONDS = 7
    """Late enough for a lock that were given its whole time again then to miss its deadline by far."""

    async def take(self, server_address: str) -> float:
        """Take a lock; returns until when, by the wall clock that the service and this test share."""
        async with connected(server_address) as peer:
            operation = await peer.propose(lock_for_seconds=self.LOCK_SECONDS)
        return operation.locked_until.ToNanoseconds() / 1e9

    async def assert_taken_over_in_time(self, server_address: str, until: float) -> None:
        async with connected(server_address, "another") as peer:
            taken_over = await until_taken_over(peer)
        assert until <= taken_over < until + GRACE_SECONDS + NOISE_SECONDS

    async def test_is_kept_when_etcd_restarts(self, serve: Serve, tmp_path: Path, binary: EtcdBinary) -> None:
        etcd = await Etcd(binary, tmp_path / "etcd").start()
        try:
            server = await serve("--etcd-endpoints", etcd.url)
            until = await self.take(server.address)
            await asyncio.sleep(self.FAULT_AFTER_SECONDS)
            await etcd.kill()
            await etcd.start()
            await self.assert_taken_over_in_time(server.address, until)
        finally:
            await etcd.kill()

    @FAULTS
    async def test_is_kept_when_the_leader_changes(self, cluster: Cluster, serve: Serve, fault: Fault) -> None:
        leader, follower = await cluster.leader(), await cluster.follower()
        server = await serve("--etcd-endpoints", first(follower, cluster))
        until = await self.take(server.address)
        await asyncio.sleep(self.FAULT_AFTER_SECONDS)
        await fault(leader)
        await self.assert_taken_over_in_time(server.address, until)

    async def test_is_kept_by_a_replica_that_saw_it_taken_when_the_one_that_granted_it_dies_too(
        self, cluster: Cluster, serve: Serve
    ) -> None:
        leader, follower = await cluster.leader(), await cluster.follower()
        granting, seeing = await asyncio.gather(
            *(serve("--etcd-endpoints", first(follower, cluster)) for _ in range(2))
        )
        until = await self.take(granting.address)
        await granting.stop()
        await asyncio.sleep(self.FAULT_AFTER_SECONDS)
        await leader.kill()
        await self.assert_taken_over_in_time(seeing.address, until)

    async def test_when_all_restart_together_is_stretched_by_no_more_than_the_locks_whole_time_from_then_on(
        self, serve: Serve, tmp_path: Path, binary: EtcdBinary
    ) -> None:
        etcd = await Etcd(binary, tmp_path / "etcd").start()
        try:
            server = await serve("--etcd-endpoints", etcd.url)
            until = await self.take(server.address)
            await asyncio.sleep(2)
            await asyncio.gather(server.stop(), etcd.kill())
            await etcd.start()
            server = await serve("--etcd-endpoints", etcd.url)
            restarted = time.time()
            async with connected(server.address, "another") as peer:
                taken_over = await until_taken_over(peer)
            assert until <= taken_over < restarted + self.LOCK_SECONDS + GRACE_SECONDS + NOISE_SECONDS
        finally:
            await etcd.kill()
