"""What is told to Prometheus: made of plain numbers when somebody asks, and of nothing that has to be read then.

Labels have few values, which this service itself has made: methods and codes and reasons, never what a caller sends.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from grpc import StatusCode
from grpc import __version__ as grpc_version
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from operation_service.admission import Admission
from operation_service.census import ENDS, Census
from operation_service.lines import Lines
from operation_service.lock_times import LockTimes
from operation_service.model import Event
from operation_service.status import TABLE
from operation_service.tallies import Spread, Tallies

_PREFIX = "operation_service_"
_CODES = {code.value[0]: code.name for code in StatusCode}


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to tell.

    Attributes:
        version: The service's.
        tallies: What was counted.
        times: The locks.
        census: The dead operators.
        admission: Who is inside.
        is_healthy: Whether etcd answers.
        deaf_seconds: For how long etcd's changes have not been heard.
        lines: Where log lines go.
        certificate_ends_at: When the certificate that is served ends, as Unix time; None: there is none.
    """

    version: str
    tallies: Tallies
    times: LockTimes
    census: Census
    admission: Admission
    is_healthy: Callable[[], bool]
    deaf_seconds: Callable[[], float]
    lines: Lines | None = None
    certificate_ends_at: Callable[[], float | None] = field(default=lambda: None)


class Metrics:
    """The text that Prometheus reads.

    Args:
        facts: What there is to tell.
        worker: Which worker tells it; each of its lines is labelled so. Empty: there is only one process.
    """

    def __init__(self, facts: Facts, worker: str = "") -> None:
        self._registry = CollectorRegistry()
        labels = {"worker": worker} if worker else {}
        for collector in (_ServiceCollector(facts), ProcessCollector(registry=None), _garbage()):
            self._registry.register(_Labelled(collector, labels))

    def text(self) -> bytes:
        """Return it as it is now."""
        return generate_latest(self._registry)


def _garbage() -> Collector:
    return GCCollector(registry=CollectorRegistry())


class _Labelled(Collector):
    """A collector, each sample of which has some labels more."""

    def __init__(self, collector: Collector, labels: dict[str, str]) -> None:
        self._collector = collector
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        """Return its families."""
        for family in self._collector.collect():
            if self._labels:
                family.samples = [each._replace(labels=each.labels | self._labels) for each in family.samples]
            yield family

    def describe(self) -> Iterable[Metric]:
        """Return none: a registry would ask for everything to learn their names."""
        return ()


class _ServiceCollector(Collector):
    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        """Return the service's families."""
        yield from self._calls()
        yield from self._changes()
        yield from self._cluster()
        yield from self._etcd()
        yield from self._process()

    def _calls(self) -> Iterator[Metric]:
        tallies, admission = self._facts.tallies, self._facts.admission
        ended = _counter("calls", "Calls that this replica has ended, watches among them.", "method", "code")
        took = _histogram(
            "call_duration_seconds", "From a call's arrival to its answer; watches are left out.", "method"
        )
        for method, tally in tallies.calls.items():
            for code, count in tally.codes.items():
                ended.add_metric([method, _CODES.get(code, "UNKNOWN")], count)
            if method != "WatchOperations":
                _add(took, [method], tally.seconds)
        yield ended
        yield took
        refused = _counter(
            "refusals", "Calls that this replica answered with an error, by its ErrorInfo's reason.", "reason"
        )
        at_gates = {"OVERLOADED": admission.calls.refused, "TOO_MANY_WATCHES": admission.watches.refused}
        for reason in dict.fromkeys(reason for _, reason in TABLE.values()):
            refused.add_metric([reason], tallies.refusals[reason] + at_gates.get(reason, 0))
        yield refused
        yield _gauge("calls_in_flight", "Calls that this replica is serving, watches apart.", admission.calls.inside)
        yield _gauge("watches", "Watches that this replica is serving.", admission.watches.inside)

    def _changes(self) -> Iterator[Metric]:
        tallies = self._facts.tallies
        made = _counter("changes", "Changes that this replica has made, by the event that watches tell of.", "event")
        for event in Event:
            if event not in ENDS:
                made.add_metric([event.value], tallies.changes[event])
        yield made
        yield _counted(
            "takeovers",
            "Operations that this replica gave to another operator, after their lock had run out.",
            tallies.takeovers,
        )
        together = _histogram("commit_changes", "Changes that this replica sent to etcd in one transaction.")
        _add(together, [], tallies.batches)
        yield together

    def _cluster(self) -> Iterator[Metric]:
        """Tell what is so in all of etcd: each replica and worker tells the same, so it is for max, not for sum."""
        tallies, census = self._facts.tallies, self._facts.census
        if census.is_known:
            yield _gauge(
                "locks_held",
                "Locks that are held in all of etcd. Each replica knows all: take max.",
                self._facts.times.locks,
            )
            yield _gauge(
                "dead_operators",
                "Operations in all of etcd whose lock ran out while nobody could cancel them, and that nobody has "
                "taken over. Each replica knows all: take max.",
                census.dead,
            )
        heard = _counter(
            "expiries_heard",
            "Locks that ran out or were broken, of which this replica has heard, whoever had granted them: take max, "
            "since each replica hears of all.",
            "event",
        )
        for event in ENDS:
            heard.add_metric([event.value], tallies.expiries[event])
        yield heard
        yield _counted(
            "stretched_locks_ended",
            "Locks that this replica ended, since etcd kept them for longer than they were granted.",
            tallies.stretched,
        )

    def _etcd(self) -> Iterator[Metric]:
        took = _histogram("etcd_call_duration_seconds", "Calls of etcd by this replica, each attempt.", "call")
        failed = _counter("etcd_errors", "Calls of etcd by this replica that failed, each attempt.", "call", "code")
        for call, tally in self._facts.tallies.etcd.items():
            _add(took, [call], tally.seconds)
            for code, count in tally.codes.items():
                if code:
                    failed.add_metric([call, _CODES.get(code, "UNKNOWN")], count)
        yield took
        yield failed
        yield _gauge("healthy", "1 while etcd answers this replica, else 0.", int(self._facts.is_healthy()))
        yield _gauge(
            "etcd_watch_interrupted_seconds",
            "For how long this replica has not heard what changes in etcd. 0: it hears.",
            self._facts.deaf_seconds(),
        )

    def _process(self) -> Iterator[Metric]:
        lag = _histogram("event_loop_lag_seconds", "How late this process's event loop was, ten times a second.")
        _add(lag, [], self._facts.tallies.loop_lag)
        yield lag
        if self._facts.lines is not None:
            yield _counted(
                "log_lines_lost",
                "Log lines that were dropped, since nobody read standard error.",
                self._facts.lines.dropped,
            )
        labels = ("version", "python", "grpc")
        build = GaugeMetricFamily(_PREFIX + "build_info", "1, and what this process is made of.", labels=labels)
        build.add_metric([self._facts.version, platform.python_version(), grpc_version], 1)
        yield build
        ends_at = self._facts.certificate_ends_at()
        if ends_at is not None:
            yield _gauge("certificate_expiry_timestamp_seconds", "When the certificate that is served ends.", ends_at)


def _counter(name: str, told: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(_PREFIX + name, told, labels=labels)


def _counted(name: str, told: str, count: float) -> CounterMetricFamily:
    return CounterMetricFamily(_PREFIX + name, told, value=count)


def _gauge(name: str, told: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(_PREFIX + name, told, value=value)


def _histogram(name: str, told: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(_PREFIX + name, told, labels=labels)


def _add(family: HistogramMetricFamily, labels: Sequence[str], spread: Spread) -> None:
    up_to = accumulate(spread.counts)
    bounds = (*(f"{bound:g}" for bound in spread.bounds), "+Inf")
    family.add_metric(labels, list(zip(bounds, up_to, strict=True)), spread.sum)
