"""One of three etcd members is cut off, from its peers and from the service: packets are lost, and nobody is told."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chaos import cluster
from chaos.cluster import Member
from chaos.etcd_admin import EtcdAdmin
from chaos.namespaces import Network, are_demanded, cut, heal, why_not
from e2e.support_cluster import FAILOVER_SECONDS, NOISE_SECONDS, seconds_until_it_works
from e2e.support_e2e import Serve
from support import connected

from operation_service.embedded_binary import EtcdBinary


@dataclass(frozen=True)
class Hosts:
    """Three members, each on a host of its own."""

    members: list[Member]
    admin: EtcdAdmin

    async def one(self, role: str) -> Member:
        """The leader, or a member that follows."""
        leader = await self.admin.leader()
        assert leader is not None
        return self.members[leader if role == "leader" else (leader + 1) % 3]

    def endpoints(self, first: Member) -> str:
        """All members, the one first that the service is to begin with."""
        others = [member for member in self.members if member is not first]
        return ",".join(f"http://{member.address}" for member in [first, *others])


@pytest.fixture
async def hosts(tmp_path: Path, binary: EtcdBinary) -> AsyncIterator[Hosts]:
    if why := why_not():
        (pytest.fail if are_demanded() else pytest.skip)(f"no network namespaces: {why}")
    network = Network()
    members: list[Member] = []
    try:
        members = cluster.members(await network.open(3), tmp_path)
        await cluster.start_all(members, binary.path)
        admin = EtcdAdmin(members)
        assert await admin.until_well(range(3), 30)
        yield Hosts(members, admin)
        await admin.close()
    finally:
        for member in members:
            await member.process.kill()
        await network.close()


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_when_the_member_in_use_is_cut_off_the_next_one_serves_in_three_seconds(
    hosts: Hosts, serve: Serve, role: str
) -> None:
    member = await hosts.one(role)
    server = await serve("--etcd-endpoints", hosts.endpoints(member))
    async with connected(server.address) as peer, connected(server.address) as watcher:
        watch = await watcher.watching()
        await peer.propose(lock_for_seconds=600)
        fence = peer.fencing_token
        await watch.read()
        await cut(member.place)
        seconds = await seconds_until_it_works(lambda: peer.propose(lock_for_seconds=600, fence=fence))
        assert seconds < FAILOVER_SECONDS + NOISE_SECONDS
        for step in range(5):
            await peer.append(f"step {step}", fence=fence)
        told: list[str] = []
        asked_at = time.monotonic()
        while "step 4" not in told:
            told += [log.message for log in (await watch.read()).operation.operation.logs[-1:]]
        assert [message for message in told if message] == [f"step {step}" for step in range(5)]
        assert time.monotonic() - asked_at < FAILOVER_SECONDS + NOISE_SECONDS
        await heal(member.place)
        watch.cancel()
