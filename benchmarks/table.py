"""The table, as plain text."""

from collections.abc import Sequence

from benchmarks.figures import Spread, Summary

_HEADS = (
    "",
    "condition",
    "in flight",
    "per second",
    "(lowest-highest)",
    "p50 ms",
    "p99 ms",
    "of Health",
    "of etcd",
    "CPU server",
    "CPU etcd",
    "CPU client",
)
_LEFT = 2
"""So many columns are words, which stand on the left."""
NOTHING = "-"


def number(value: float | None) -> str:
    """Write a number with three digits that say something, or none after the point: 0.123, 1.23, 12.3, 1,234."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    for limit, digits in ((1, 3), (10, 2), (100, 1)):
        if abs(value) < limit:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def _ratio(spread: Spread | None) -> str:
    return NOTHING if spread is None else f"{spread.middle:.2f}"


def row_of(summary: Summary, ceilings: Sequence[str]) -> tuple[str, ...]:
    """Return what one row says."""
    return (
        summary.name,
        summary.condition,
        str(summary.in_flight),
        number(summary.per_second.middle),
        f"{number(summary.per_second.low)}-{number(summary.per_second.high)}",
        number(summary.p50_ms),
        number(summary.p99_ms),
        *(_ratio(summary.ratios.get(ceiling)) for ceiling in ceilings),
        number(summary.server_cpu),
        number(summary.etcd_cpu),
        number(summary.client_cpu),
    )


def aligned(rows: Sequence[Sequence[str]], left: int = _LEFT) -> list[str]:
    """Return lines with columns below each other; the first row is the heads."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    lines = [line(row) for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def table(summaries: Sequence[Summary], ceilings: Sequence[str]) -> list[str]:
    """Return the lines of the table: figures in the order given, each with its numbers of calls in flight together."""
    order = list(dict.fromkeys((summary.name, summary.condition) for summary in summaries))
    ordered = sorted(summaries, key=lambda one: (order.index((one.name, one.condition)), one.in_flight))
    return aligned([_HEADS, *(row_of(summary, ceilings) for summary in ordered)])
