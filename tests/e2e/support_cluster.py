"""A cluster of three etcd members, each a process that tests may freeze, kill and start again."""

import asyncio
import http.client
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
from e2e.support_etcd import Etcd
from ports import a_port

from operation_service.embedded_binary import EtcdBinary
from operation_service.embedded_member import Member

_PROBE_SECONDS = 2.0

FAILOVER_SECONDS = 3.0
"""The promise."""
NOISE_SECONDS = 3.0
"""What a busy machine of two cores, on which three members, a service and the tests run, may add."""


@dataclass(frozen=True, slots=True)
class ClusterMember(Member):
    """One member of several, on loopback."""

    cluster: str = ""

    @property
    def peer(self) -> str:
        """Its part of --initial-cluster."""
        return f"{self.name}=http://127.0.0.1:{self.peer_port}"

    def flags(self, data_dir: Path) -> list[str]:
        """The last word on a flag counts."""
        cluster = ("--initial-cluster", self.cluster, "--initial-cluster-token", "cluster-of-a-test")
        return [*Member.flags(self, data_dir), *cluster]

    def serves(self) -> bool:
        """Whether it reads what needs a leader."""
        connection = http.client.HTTPConnection("127.0.0.1", self.client_port, timeout=_PROBE_SECONDS)
        try:
            connection.request("POST", "/v3/kv/range", json.dumps({"key": "AA=="}))
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def leads(self) -> bool:
        """Whether it is the leader, by its own word."""
        connection = http.client.HTTPConnection("127.0.0.1", self.client_port, timeout=_PROBE_SECONDS)
        try:
            connection.request("POST", "/v3/maintenance/status", "{}")
            status = json.load(connection.getresponse())
        except (OSError, http.client.HTTPException, ValueError):
            return False
        finally:
            connection.close()
        return bool(status["leader"] == status["header"]["member_id"])


@dataclass
class Cluster:
    """Three members."""

    members: Sequence[Etcd]

    @property
    def endpoints(self) -> list[str]:
        return [member.url for member in self.members]

    async def leader(self) -> Etcd:
        """The member that leads now."""
        while True:
            for member in self.members:
                assert isinstance(member.member, ClusterMember)
                if await asyncio.to_thread(member.member.leads):
                    return member
            await asyncio.sleep(0.1)

    async def follower(self) -> Etcd:
        """A member that does not lead now."""
        leader = await self.leader()
        return next(member for member in self.members if member is not leader)

    async def kill(self) -> None:
        """End all of them at once."""
        await asyncio.gather(*(member.kill() for member in self.members))

    async def start(self) -> "Cluster":
        """Start all of them, and wait until they serve."""
        await asyncio.gather(*(member.start() for member in self.members))
        return self


def cluster_of_three(binary: EtcdBinary, data_dir: Path) -> Cluster:
    """Make one; it is not started."""
    members = [ClusterMember(f"{secrets.token_hex(4)}-{number}", a_port(), a_port()) for number in range(3)]
    cluster = ",".join(member.peer for member in members)
    etcds = [
        Etcd(binary, data_dir / f"member-{number}", member=replace(member, cluster=cluster))
        for number, member in enumerate(members, 1)
    ]
    return Cluster(etcds)


async def seconds_until_it_works(call: Callable[[], Awaitable[object]]) -> float:
    """How long it takes until a call succeeds, made again as callers do."""
    began = time.monotonic()
    while True:
        try:
            await call()
        except grpc.aio.AioRpcError as error:
            assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}  # noqa: PT017
        else:
            return time.monotonic() - began
        await asyncio.sleep(0.05)
