"""What a run prints, and what of it goes into a file of documentation."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Summary
from benchmarks.machine import Machine
from benchmarks.peers.catalogue import PEERS
from benchmarks.run import Results
from benchmarks.scenarios import CEILINGS
from benchmarks.schedule import Schedule
from benchmarks.table import number, table

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
_KIB = 1024


class NoPlaceError(Exception):
    """A file has no section for what was measured."""


def lines_of(results: Results, machine: Machine, schedule: Schedule) -> list[str]:
    """Return all that there is to say about a run."""
    rows = results.rows()
    lines = [*machine.lines(results.versions), _how(schedule), "", *table(rows, CEILINGS)]
    if results.sizes:
        lines += ["", "Bytes:"]
        lines += [f"  {size.what}: {number(size.bytes_each / _KIB)} KiB (of {size.count:,})" for size in results.sizes]
    guarantees = _guarantees(rows)
    if guarantees:
        lines += ["", "What is compared does not guarantee the same:", *guarantees]
    if results.skipped:
        lines += ["", "Not measured:"]
        lines += [f"  {skipped.name}: {skipped.why}" for skipped in results.skipped]
    return lines


def _how(schedule: Schedule) -> str:
    rounds = f"{schedule.rounds} rounds" if schedule.rounds > 1 else "1 round"
    return (
        f"Medians of {rounds} of {schedule.timing.seconds:g} s each. of Health, of etcd: per second, as a share of "
        "that ceiling in the same round. CPU: seconds of a core for 1,000."
    )


def _guarantees(rows: Sequence[Summary]) -> list[str]:
    shown = {row.name for row in rows}
    return [f"  {peer.name.removeprefix('cycle: ')}: {peer.guarantee}" for peer in PEERS if peer.name in shown]


def with_section(text: str, lines: Sequence[str], picture: str) -> str:
    """Return a document with its section for what was measured written anew.

    Args:
        text: The document.
        lines: What to say.
        picture: The name of the picture's file.

    Raises:
        NoPlaceError: It has no such section.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoPlaceError(f"there has to be a line {BEGIN} and, after it, a line {END}")
    image = f"![Per second, and the median of what it took, by calls in flight]({picture})"
    section = "\n".join([BEGIN, "", image, "", "```text", *lines, "```", "", END])
    return f"{before}{section}{after}"


def write(path: Path, lines: Sequence[str]) -> Path:
    """Write the section of a document, and return where its picture belongs."""
    picture = path.with_suffix(".svg")
    path.write_text(with_section(path.read_text(encoding="utf-8"), lines, picture.name), encoding="utf-8")
    return picture
