"""The picture: how much, and how long it takes, by calls in flight; two panels for calls, and two for peers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Summary
from benchmarks.peers.catalogue import OURS, PEERS
from benchmarks.scenarios import CEILINGS

_CALLS = ("acquire", "renew", "append", "complete", "get", "refused proposal")
_PHASE = "1 held"


def draw(rows: Sequence[Summary], path: Path) -> None:
    """Draw the rows into an SVG file."""
    import matplotlib as mpl  # noqa: PLC0415, of the group bench, and slow to import

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "performance"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, panels = plt.subplots(2, 2, figsize=(12, 9), layout="constrained")
    peers = tuple(peer.name for peer in PEERS)
    for column, (names, title) in enumerate(
        (((*CEILINGS, *_CALLS), "calls, and their ceilings"), (peers, "lock and unlock, beside others"))
    ):
        _panel(panels[0][column], rows, names, lambda row: row.per_second.middle)
        _panel(panels[1][column], rows, names, lambda row: row.p50_ms or 0.0)
        panels[0][column].set_title(title)
        panels[0][column].set_ylabel("per second")
        panels[1][column].set_ylabel("median, ms")
        panels[1][column].set_xlabel("in flight")
        panels[1][column].legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    # matplotlib leaves blanks at the ends of lines.
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("".join(f"{line.rstrip()}\n" for line in lines), encoding="utf-8")


def _panel(axes: Any, rows: Sequence[Summary], names: Sequence[str], value: Callable[[Summary], float]) -> None:  # noqa: ANN401, matplotlib may be absent
    ticks: list[int] = []
    for name in names:
        some = sorted(
            (row for row in rows if row.name == name and row.condition == _PHASE), key=lambda row: row.in_flight
        )
        if some:
            levels = [row.in_flight for row in some]
            style = {CEILINGS[0]: "k--", CEILINGS[1]: "k:"}.get(name, "o-")
            axes.plot(levels, [value(row) for row in some], style, label=name, linewidth=3 if name == OURS else 1.5)
            ticks = levels
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(level) for level in ticks])
    axes.set_yscale("log")
    axes.grid(visible=True, alpha=0.3)
