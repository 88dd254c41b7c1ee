"""What is measured when: figures that are compared are measured next to each other, again and again."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from benchmarks.bench import Bench, Spot, Timing
from benchmarks.figures import Figure
from benchmarks.scenarios import Scenario


@dataclass(frozen=True, slots=True)
class Schedule:
    """How much is measured.

    Attributes:
        rounds: How often each figure is measured.
        levels: How many calls are in flight at once.
        timing: How long each figure is.
        held: How many locks are held, where there are many.
        entries: How many entries a long log has at first.
        operations: Of how many operations pages are listed, where there are few of them.
        watchers: How many there are, where there are many.
        idle_connections: How many there are, to see what one of them takes.
    """

    rounds: int
    levels: tuple[int, ...]
    timing: Timing
    held: int
    entries: int
    operations: int
    watchers: int
    idle_connections: int


FULL = Schedule(
    rounds=3,
    levels=(1, 16, 64),
    timing=Timing(seconds=1.5, warm_up=0.4),
    held=100_000,
    entries=1_000,
    operations=1_000,
    watchers=500,
    idle_connections=2_000,
)
QUICK = Schedule(
    rounds=1,
    levels=(1, 64),
    timing=Timing(seconds=0.6, warm_up=0.2),
    held=10_000,
    entries=100,
    operations=1_000,
    watchers=100,
    idle_connections=500,
)


@dataclass(frozen=True, slots=True)
class Part:
    """A scenario, and the condition that its figures are labelled with. None: that of the phase."""

    scenario: Scenario
    condition: str | None = None


async def in_rounds(bench: Bench, schedule: Schedule, phase: str, parts: Sequence[Part]) -> AsyncIterator[Figure]:
    """Measure the parts one after the other, in each round again, at each level."""
    for in_flight in schedule.levels:
        for number in range(1, schedule.rounds + 1):
            for part in parts:
                async for figure in part.scenario(bench, Spot(part.condition or phase, in_flight, number)):
                    yield figure
