"""The peers: their servers, their clients, and what each of them guarantees."""

import contextlib
import importlib.util
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.bench import Bench, Spot, check, figure_of
from benchmarks.children import run_child
from benchmarks.figures import Figure
from benchmarks.load import Outcome
from benchmarks.peers.cycles import CyclePlan
from benchmarks.peers.servers import NotInstalledError, running_postgres, running_redis, running_zookeeper
from benchmarks.servers import Server
from benchmarks.usage import cpu_seconds

OURS = "cycle: this service"


@dataclass(frozen=True, slots=True)
class Peer:
    """What can be locked with.

    Attributes:
        name: For people, and of its figures.
        module: Its client, which is run as a process.
        library: The package that the client needs; None: none that the service does not need too.
        server: Runs its server in a folder; None: it uses the benchmark's own.
        guarantee: What it gives, in a sentence.
    """

    name: str
    module: str
    library: str | None
    server: Callable[[Path], AbstractAsyncContextManager[Server]] | None
    guarantee: str


PEERS = (
    Peer(
        OURS,
        "benchmarks.peers.ours",
        None,
        None,
        "consensus by etcd; a deadline that both sides can rely on, a fencing token, a log, and the state of operators "
        "that have died",
    ),
    Peer(
        "cycle: etcd v3lock",
        "benchmarks.peers.etcd_v3lock",
        None,
        None,
        "consensus; a lease that etcd may stretch; the key's revision can serve as a fencing token, but nothing checks "
        "it; no log",
    ),
    Peer(
        "cycle: ZooKeeper, kazoo",
        "benchmarks.peers.zookeeper_lock",
        "kazoo",
        running_zookeeper,
        "consensus (one member here); the lock ends with the client's session, of which the server alone is the judge",
    ),
    Peer(
        "cycle: Redis, redis-py",
        "benchmarks.peers.redis_lock",
        "redis",
        running_redis,
        "one server, no consensus, writes to disk now and then: after a crash or a failover a lock may be lost, or be "
        "granted twice",
    ),
    Peer(
        "cycle: PostgreSQL, advisory",
        "benchmarks.peers.postgres_lock",
        "psycopg",
        running_postgres,
        "one server, locks in its memory only; a lock ends with its session, and has no deadline",
    ),
)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A peer that was not measured, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Ready:
    """A peer whose server runs. None: the benchmark's own service and etcd."""

    peer: Peer
    server: Server | None

    async def measure(self, bench: Bench, spot: Spot) -> AsyncIterator[Figure]:
        """Lock and unlock."""
        own = bench.service if self.peer.name == OURS else bench.etcd
        server = self.server or own
        plan = CyclePlan(server.address, spot.in_flight, bench.timing.seconds, bench.timing.warm_up)
        is_on_etcd = self.server is None
        before = cpu_seconds(server.pid), cpu_seconds(bench.etcd.pid)
        outcome = Outcome(**await run_child(self.peer.module, plan))
        after = cpu_seconds(server.pid), cpu_seconds(bench.etcd.pid)
        check(self.peer.name, outcome)
        of_server, of_etcd = ((end - begin) / outcome.last * 1000 for begin, end in zip(before, after, strict=True))
        yield replace(
            figure_of(self.peer.name, outcome, spot),
            server_cpu=None if server is bench.etcd else of_server,
            etcd_cpu=of_etcd if is_on_etcd else None,
        )


@contextlib.asynccontextmanager
async def ready_peers(folder: Path) -> AsyncIterator[tuple[list[Ready], list[Skipped]]]:
    """Run the peers' servers, as far as they and their clients are installed."""
    ready: list[Ready] = []
    skipped: list[Skipped] = []
    async with contextlib.AsyncExitStack() as stack:
        for peer in PEERS:
            if peer.library is not None and importlib.util.find_spec(peer.library) is None:
                skipped.append(Skipped(peer.name, f"the Python package {peer.library} is not installed"))
                continue
            try:
                server = await stack.enter_async_context(peer.server(folder)) if peer.server else None
            except NotInstalledError as error:
                skipped.append(Skipped(peer.name, str(error)))
                continue
            ready.append(Ready(peer, server))
        yield ready, skipped
