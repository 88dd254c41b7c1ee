"""Tables: with colours and cut to fit on a terminal, plain and whole in a pipe."""

import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from operation_service.rows import HEADER, Row

_STYLES = {
    "OPERATOR_DEAD": "bold white on red",
    "EXPIRED": "yellow",
    "FAILED": "red",
    "LOCKED": "green",
    "SUCCEEDED": "dim",
    "CANCELLED": "dim",
}
_LAST_LOG = "LAST LOG"
_LEFT_OUT = ("HELD SINCE", "HOLDER", _LAST_LOG, "REMAINING")
"""What a terminal that is too narrow goes without, the least needed first."""
_SHORTEST_LOG = 20
_GAP = 2


def print_operations(rows: Sequence[Row]) -> None:
    """Print a table of operations on standard output."""
    if sys.stdout.isatty():
        console = Console(highlight=False)
        console.print(operations_table(rows, console.width))
        return
    write("".join(f"{line}\n" for line in aligned([HEADER, *rows])))


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print what is to be told of one thing, a line each: "holder  192.0.2.1:51234"."""
    pairs = list(facts)
    width = max(len(name) for name, _ in pairs) + _GAP
    if not sys.stdout.isatty():
        write("".join(f"{name:<{width}}{value}".rstrip() + "\n" for name, value in pairs))
        return
    console = Console(highlight=False)
    for name, value in pairs:
        console.print(Text(f"{name:<{width}}", "bold") + Text(value, _STYLES.get(value, "")), soft_wrap=True)


def operations_table(rows: Sequence[Row], width: int) -> Table:
    """Return a table that fits a terminal.

    The last log is cut first. Where that is not enough, columns are left out: who holds what is needed most.

    Args:
        rows: The operations.
        width: The terminal's, in columns.
    """
    natural = {column[0]: max(map(cell_len, column)) for column in zip(HEADER, *rows, strict=True)}
    natural[_LAST_LOG] = min(natural[_LAST_LOG], _SHORTEST_LOG)
    columns = list(HEADER)
    for word in _LEFT_OUT:
        if _takes(columns, natural) > width:
            columns.remove(word)
    # Only the last log gives way, as long as that helps.
    folded = {_LAST_LOG} if _takes(columns, natural) <= width else {_LAST_LOG, "PROJECT", "NAME"}
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for word in columns:
        table.add_column(word, no_wrap=word not in folded, overflow="fold")
    for row in rows:
        cells = dict(zip(HEADER, row, strict=True))
        table.add_row(*(_cell(word, cells[word]) for word in columns))
    return table


def _takes(columns: Iterable[str], widths: Mapping[str, int]) -> int:
    return sum(widths[word] + _GAP for word in columns)


def _cell(word: str, text: str) -> Text:
    # A Text of its own mind about wrapping, in a column that may get narrower than it.
    return Text(
        text,
        _STYLES.get(text, "") if word == "STATE" else "",
        no_wrap=word == _LAST_LOG,
        overflow="ellipsis" if word == _LAST_LOG else "fold",
    )


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines with their columns below each other, by the width that characters have on a terminal."""
    widths = [max(map(cell_len, column)) + _GAP for column in zip(*rows, strict=True)]
    return [
        "".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def write(text: str) -> None:
    """Write to standard output, at once: whoever reads it may have gone."""
    sys.stdout.write(text)
    sys.stdout.flush()
