"""What was measured, and what several rounds of it come to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement.

    Attributes:
        name: Of what: "acquire".
        condition: Under which circumstances: "1 held".
        in_flight: How many calls, or cycles, were under way at once.
        round: In which round, from 1: figures of one round and condition were measured next to each other.
        per_second: Operations, cycles or messages.
        p50_ms: The median of what they took, in milliseconds.
        p99_ms: 99 of 100 took no longer.
        server_cpu: Seconds of a core that the server used for 1,000 operations, its children included.
        etcd_cpu: The same of the etcd below or beside it.
        client_cpu: The same of the client.
    """

    name: str
    condition: str
    in_flight: int
    round: int
    per_second: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    server_cpu: float | None = None
    etcd_cpu: float | None = None
    client_cpu: float | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """What one figure came to in several rounds."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A row: a figure over all rounds.

    Attributes:
        name: As in `Figure`.
        condition: As in `Figure`.
        in_flight: As in `Figure`.
        per_second: Median, lowest and highest of the rounds.
        p50_ms: The median of the rounds.
        p99_ms: The median of the rounds.
        server_cpu: The median of the rounds.
        etcd_cpu: The median of the rounds.
        client_cpu: The median of the rounds.
        ratios: per_second by that of another figure of the same round, by its name.
    """

    name: str
    condition: str
    in_flight: int
    per_second: Spread
    p50_ms: float | None
    p99_ms: float | None
    server_cpu: float | None
    etcd_cpu: float | None
    client_cpu: float | None
    ratios: dict[str, Spread]


def spread(values: Sequence[float]) -> Spread:
    """Return the median, the lowest and the highest of some values, at least one."""
    return Spread(median(values), min(values), max(values))


def summaries(figures: Iterable[Figure], phases: dict[str, str], ceilings: Sequence[str]) -> list[Summary]:
    """Return a row for each figure, in the order in which they were first measured.

    Args:
        figures: All rounds.
        phases: Of conditions that are measured in the rounds of another one, which that is.
        ceilings: Names of figures to compare the others with.
    """
    rows: dict[tuple[str, str, int], list[Figure]] = {}
    for figure in figures:
        rows.setdefault((figure.name, figure.condition, figure.in_flight), []).append(figure)
    tops = {
        (figure.name, figure.condition, figure.in_flight, figure.round): figure.per_second
        for some in rows.values()
        for figure in some
        if figure.name in ceilings
    }
    return [_summary(some, phases, ceilings, tops) for some in rows.values()]


def _summary(
    rounds: Sequence[Figure],
    phases: dict[str, str],
    ceilings: Sequence[str],
    tops: dict[tuple[str, str, int, int], float],
) -> Summary:
    one = rounds[0]
    phase = phases.get(one.condition, one.condition)
    ratios: dict[str, Spread] = {}
    for ceiling in ceilings:
        pairs = [(figure.per_second, tops.get((ceiling, phase, one.in_flight, figure.round))) for figure in rounds]
        found = [per_second / top for per_second, top in pairs if top]
        if found and ceiling != one.name:
            ratios[ceiling] = spread(found)
    return Summary(
        name=one.name,
        condition=one.condition,
        in_flight=one.in_flight,
        per_second=spread([figure.per_second for figure in rounds]),
        p50_ms=_median_if_any([figure.p50_ms for figure in rounds]),
        p99_ms=_median_if_any([figure.p99_ms for figure in rounds]),
        server_cpu=_median_if_any([figure.server_cpu for figure in rounds]),
        etcd_cpu=_median_if_any([figure.etcd_cpu for figure in rounds]),
        client_cpu=_median_if_any([figure.client_cpu for figure in rounds]),
        ratios=ratios,
    )


def _median_if_any(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
