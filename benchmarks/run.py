"""One run: starts the servers, measures everything, and leaves nothing behind."""

import contextlib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bench import Bench, Spot
from benchmarks.figures import Figure, Summary, summaries
from benchmarks.h2load import h2load, is_installed
from benchmarks.held import hold, prepare_places
from benchmarks.listing import Listing
from benchmarks.peers.catalogue import Skipped, ready_peers
from benchmarks.scenarios import CEILINGS, at_long_logs, at_places, etcd_txn, health_check, life_of_locks
from benchmarks.schedule import Part, Schedule, in_rounds
from benchmarks.servers import running_etcd, running_service
from benchmarks.sizes import Growth, Size, connection_sizes
from benchmarks.stock_grpc import running_stock_grpc
from benchmarks.watching import Watching

CALLS, LOGS, PEERS, WATCH, HELD, SIZES = NAMES = ("calls", "logs", "peers", "watch", "held", "sizes")
"""What `--only` takes: the calls; those at long logs; cycles of the peers; watches; calls and lists where many locks
are held; bytes of connections."""


@dataclass(slots=True)
class Results:
    """What a run has measured so far.

    Attributes:
        figures: All of them.
        phases: Of conditions that are measured in the rounds of another one, which that is.
        skipped: What was not measured.
        sizes: What things take.
        versions: Of the servers, by their names.
    """

    figures: list[Figure] = field(default_factory=list)
    phases: dict[str, str] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def add(self, figure: Figure) -> None:
        """Keep a figure, and tell of it on standard error."""
        self.figures.append(figure)
        tell(
            f"{figure.name}, {figure.condition}, {figure.in_flight} in flight, round {figure.round}: "
            f"{figure.per_second:,.0f}/s"
        )

    def rows(self) -> list[Summary]:
        """Return what the table shows."""
        return summaries(self.figures, self.phases, CEILINGS)


def tell(line: str) -> None:
    """Say how far it is."""
    print(line, file=sys.stderr, flush=True)


class Run:
    """A run.

    Args:
        bench: The servers.
        schedule: How much is measured.
        only: What is measured.
        folder: Where other servers may keep their data.
    """

    def __init__(self, bench: Bench, schedule: Schedule, only: frozenset[str], folder: Path) -> None:
        self._bench = bench
        self._schedule = schedule
        self._only = only
        self._folder = folder
        self._calls = (Part(life_of_locks), Part(at_places))
        self.results = Results(versions={"etcd": bench.etcd.version})

    async def measure(self) -> None:
        """Measure what is asked for."""
        await hold(self._bench, 0, 1)
        await prepare_places(
            self._bench, max(self._schedule.levels), self._schedule.entries if LOGS in self._only else 0
        )
        if self._only & {CALLS, LOGS, PEERS, WATCH}:
            await self._with_few()
        if HELD in self._only:
            await self._with_many()
        if SIZES in self._only:
            tell("connections")
            self.results.sizes += await connection_sizes(
                self._bench, self._schedule.idle_connections, self._schedule.watchers
            )

    async def _with_few(self) -> None:
        phase, parts = "1 held", list[Part]()
        if CALLS in self._only:
            parts += self._calls
            if is_installed():
                parts.append(Part(h2load))
            else:
                self.results.skipped.append(Skipped("h2load", "it is not installed"))
        if LOGS in self._only:
            long = f"log of {self._schedule.entries:,}"
            self.results.phases[long] = phase
            parts.append(Part(at_long_logs, long))
        if WATCH in self._only:
            for watchers in (1, self._schedule.watchers):
                part = Part(Watching(watchers).measure, f"watchers: {watchers:,}")
                parts.append(part)
        async with contextlib.AsyncExitStack() as stack:
            if CALLS in self._only:
                stock = await stack.enter_async_context(running_stock_grpc(self._folder))
                parts.append(Part(stock.measure))
            if PEERS in self._only:
                ready, skipped = await stack.enter_async_context(ready_peers(self._folder))
                self.results.skipped += skipped
                self.results.versions |= {peer.server.name: peer.server.version for peer in ready if peer.server}
                parts += [Part(peer.measure) for peer in ready]
            await self._rounds(phase, parts)

    async def _with_many(self) -> None:
        schedule, growth = self._schedule, await Growth.from_here(self._bench)
        for first, last in ((1, schedule.operations), (schedule.operations, schedule.held)):
            tell(f"taking {last:,} locks")
            await hold(self._bench, first, last - first)
            if last == schedule.held:
                self.results.sizes += await growth.sizes(self._bench, "a held lock", schedule.held - 1)
            for number in range(1, schedule.rounds + 1):
                async for figure in Listing(last).measure(self._bench, Spot(f"of {last:,}", 1, number)):
                    self.results.add(figure)
        await self._rounds(f"{schedule.held:,} held", self._calls)

    async def _rounds(self, phase: str, parts: Sequence[Part]) -> None:
        every = (Part(health_check), Part(etcd_txn), *parts)
        async for figure in in_rounds(self._bench, self._schedule, phase, every):
            self.results.add(figure)


async def run(schedule: Schedule, only: frozenset[str]) -> Results:
    """Measure what is asked for."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        etcd = await stack.enter_async_context(running_etcd(folder))
        service = await stack.enter_async_context(running_service(folder, etcd))
        one = Run(Bench(service, etcd, schedule.timing), schedule, only, folder)
        await one.measure()
        return one.results
