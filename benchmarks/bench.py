"""What scenarios work with: the servers, how long to measure, and one way to do it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from benchmarks.children import run_load
from benchmarks.figures import Figure
from benchmarks.load import Outcome, Plan
from benchmarks.servers import Server
from benchmarks.usage import cpu_seconds

OK, FAILED_PRECONDITION = "0", "9"


class UnexpectedStatusError(Exception):
    """Calls ended otherwise than they have to: what was measured is something else."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long to measure.

    Attributes:
        seconds: Each figure.
        warm_up: Seconds before it that do not count.
    """

    seconds: float
    warm_up: float


@dataclass(frozen=True, slots=True)
class Spot:
    """Where in the schedule a figure is measured.

    Attributes:
        condition: Under which circumstances.
        in_flight: How many calls at once.
        round: From 1.
    """

    condition: str
    in_flight: int
    round: int


@dataclass(slots=True)
class Numbers:
    """Numbers for calls, none of which is given twice, so that each of them is about a resource of its own."""

    next: int = 0


@dataclass(frozen=True, slots=True)
class Bench:
    """The servers, and how to measure them."""

    service: Server
    etcd: Server
    timing: Timing
    numbers: Numbers = field(default_factory=Numbers)

    def timed(self, address: str, path: str, requests: list[str], spot: Spot) -> Plan:
        """Return a plan for one figure."""
        return Plan(
            address=address,
            path=path,
            requests=requests,
            in_flight=spot.in_flight,
            seconds=self.timing.seconds,
            warm_up=self.timing.warm_up,
        )

    async def measure(
        self, name: str, plan: Plan, spot: Spot, *, expected: str = OK, server: Server | None = None
    ) -> tuple[Figure, Outcome]:
        """Carry out a plan.

        Args:
            name: The figure's.
            plan: The calls.
            spot: When.
            expected: The status that all calls have to end with.
            server: Whose time to look at, beside etcd's. None: the service's.

        Raises:
            UnexpectedStatusError: Some ended otherwise.
        """
        server = server or self.service
        before = _cpu(server, self.etcd)
        outcome = await run_load(plan)
        after = _cpu(server, self.etcd)
        check(name, outcome, expected)
        made = (outcome.last - plan.first) / 1000
        of_server, of_etcd = ((end - begin) / made for begin, end in zip(before, after, strict=True))
        figure = figure_of(name, outcome, spot)
        is_etcd = server is self.etcd
        return replace(figure, server_cpu=None if is_etcd else of_server, etcd_cpu=of_etcd), outcome


def _cpu(*servers: Server) -> Sequence[float]:
    return [cpu_seconds(server.pid) for server in servers]


def check(name: str, outcome: Outcome, expected: str = OK) -> None:
    """See that there were calls, and that all have ended as they have to.

    Raises:
        UnexpectedStatusError: They have not.
    """
    if set(outcome.statuses) != {expected}:
        raise UnexpectedStatusError(
            f"{name}: every call has to end with {expected}, but they did so: {outcome.statuses}"
        )


def figure_of(name: str, outcome: Outcome, spot: Spot) -> Figure:
    """Return what an outcome comes to."""
    return Figure(
        name=name,
        condition=spot.condition,
        in_flight=spot.in_flight,
        round=spot.round,
        per_second=outcome.operations / outcome.seconds,
        p50_ms=outcome.p50_ms,
        p99_ms=outcome.p99_ms,
        client_cpu=outcome.cpu_seconds / outcome.operations * 1000,
    )
