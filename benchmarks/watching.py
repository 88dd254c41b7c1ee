"""How fast watchers are told, one of them and many."""

from collections.abc import AsyncIterator

from benchmarks.bench import Bench, Spot
from benchmarks.children import run_child
from benchmarks.figures import Figure
from benchmarks.usage import cpu_seconds
from benchmarks.watchers import Watched, WatchPlan

TOLD, ANSWERED = "watch: changes told", "watch: changes answered"


class Watching:
    """A scenario: some watchers, each of whom is told of all changes.

    Args:
        watchers: How many.
    """

    def __init__(self, watchers: int) -> None:
        self._watchers = watchers

    async def measure(self, bench: Bench, spot: Spot) -> AsyncIterator[Figure]:
        """Watch, and change; the seconds of a core are those for 1,000 changes told."""
        plan = WatchPlan(
            bench.service.address, self._watchers, spot.in_flight, bench.timing.seconds, bench.timing.warm_up
        )
        servers = (bench.service.pid, bench.etcd.pid)
        before = [cpu_seconds(pid) for pid in servers]
        watched = Watched(**await run_child("benchmarks.watchers", plan))
        used = [cpu_seconds(pid) - begin for pid, begin in zip(servers, before, strict=True)]
        told = watched.changes * self._watchers / 1000
        yield Figure(
            name=TOLD,
            condition=spot.condition,
            in_flight=spot.in_flight,
            round=spot.round,
            per_second=watched.delivered / watched.seconds,
            p50_ms=watched.p50_ms,
            p99_ms=watched.p99_ms,
            server_cpu=used[0] / told,
            etcd_cpu=used[1] / told,
            client_cpu=watched.cpu_seconds / watched.delivered * 1000,
        )
        yield Figure(
            name=ANSWERED,
            condition=spot.condition,
            in_flight=spot.in_flight,
            round=spot.round,
            per_second=watched.answered / watched.seconds,
            p50_ms=watched.answered_p50_ms,
            p99_ms=watched.answered_p99_ms,
        )
