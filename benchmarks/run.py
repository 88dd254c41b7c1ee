"""One run: starts the servers, measures everything, and leaves nothing behind."""

import contextlib
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Summary, summaries
from benchmarks.held import hold, prepare_places
from benchmarks.peers.catalogue import Skipped, ready_peers
from benchmarks.scenarios import CEILINGS, at_long_logs, at_places, etcd_txn, health_check, life_of_locks
from benchmarks.schedule import Part, Schedule, in_rounds
from benchmarks.servers import running_etcd, running_service

NAMES = ("calls", "logs", "peers", "held")
"""What `--only` takes."""


@dataclass(slots=True)
class Results:
    """What a run has measured so far.

    Attributes:
        figures: All of them.
        phases: Of conditions that are measured in the rounds of another one, which that is.
        skipped: Peers that were not measured.
    """

    figures: list[Figure] = field(default_factory=list)
    phases: dict[str, str] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)

    def add(self, figure: Figure) -> None:
        """Keep a figure, and tell of it on standard error."""
        self.figures.append(figure)
        print(
            f"{figure.name}, {figure.condition}, {figure.in_flight} in flight, round {figure.round}: "
            f"{figure.per_second:,.0f}/s",
            file=sys.stderr,
            flush=True,
        )

    def rows(self) -> list[Summary]:
        """Return what the table shows."""
        return summaries(self.figures, self.phases, CEILINGS)


async def run(schedule: Schedule, only: frozenset[str]) -> Results:
    """Measure what is asked for."""
    results = Results()
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        etcd = await stack.enter_async_context(running_etcd(folder))
        service = await stack.enter_async_context(running_service(folder, etcd))
        bench = Bench(service, etcd, schedule.timing)
        await hold(bench, 0, 1)
        await prepare_places(bench, max(schedule.levels), schedule.entries if "logs" in only else 0)
        few, many = "1 held", f"{schedule.held:,} held"
        calls = [Part(health_check), Part(etcd_txn), Part(life_of_locks), Part(at_places)]
        first = calls if "calls" in only else calls[:2]
        if "logs" in only:
            long = f"log of {schedule.entries:,}"
            results.phases[long] = few
            first = [*first, Part(at_long_logs, long)]
        if "peers" in only:
            ready, results.skipped = await stack.enter_async_context(ready_peers(folder))
            first = [*first, *(Part(peer.measure) for peer in ready)]
        async for figure in in_rounds(bench, schedule, few, first):
            results.add(figure)
        if "held" in only:
            await hold(bench, 1, schedule.held - 1)
            async for figure in in_rounds(bench, schedule, many, calls):
                results.add(figure)
    return results
