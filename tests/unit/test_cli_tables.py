"""Tables on wide and narrow terminals, and in pipes."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from operation_service.rows import HEADER, Row
from operation_service.tables import aligned, operations_table

DEAD = Row("demo", "virtual_machines/web-1", "OPERATOR_DEAD", "192.0.2.1:50001", "2026-01-02T03:04:05Z", "-", "x" * 150)
HELD = Row(
    "demo", "networks/lan", "LOCKED", "192.0.2.1:5", "2026-01-02T03:04:05Z", "1m01s", "[red]stopping[/red] :smile:"
)


def drawn(width: int, rows: list[Row], *, color: bool = False) -> list[str]:
    out = io.StringIO()
    kind = {"force_terminal": True, "color_system": "standard"} if color else {}
    Console(file=out, width=width, highlight=False, **kind).print(operations_table(rows, width))  # type: ignore[arg-type]
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120, 300])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert all(cell_len(line) <= width for line in drawn(width, [DEAD, HELD]))


@pytest.mark.parametrize("width", [60, 80, 120, 300])
def test_each_operation_is_one_line_in_which_its_name_and_state_are_whole(width: int) -> None:
    header, first, second = drawn(width, [DEAD, HELD])
    assert header.split()[:3] == ["PROJECT", "NAME", "STATE"]
    assert first.split()[:3] == ["demo", "virtual_machines/web-1", "OPERATOR_DEAD"]
    assert second.split()[:3] == ["demo", "networks/lan", "LOCKED"]


def test_a_log_that_does_not_fit_is_cut_and_says_so() -> None:
    _, first, _ = drawn(140, [DEAD, HELD])
    assert first.rstrip().endswith("x…")


def test_a_narrow_terminal_goes_without_the_columns_that_are_needed_least() -> None:
    assert "HELD SINCE" in drawn(140, [DEAD])[0]
    assert "HELD SINCE" not in drawn(100, [DEAD])[0]
    assert "HOLDER" in drawn(100, [DEAD])[0]


def test_what_a_log_says_is_not_taken_for_markup() -> None:
    assert "[red]stopping[/red] :smile:" in drawn(200, [HELD])[1]


def test_a_dead_operator_stands_out() -> None:
    _, dead, held = drawn(200, [DEAD, HELD], color=True)
    assert "\x1b[1;37;41mOPERATOR_DEAD" in dead
    assert "\x1b[32mLOCKED" in held


def test_in_a_pipe_columns_are_aligned_by_what_characters_take_and_nothing_is_cut() -> None:
    wide = HELD._replace(name="網路/lan")
    header, first, second = aligned([HEADER, DEAD, wide])
    assert first.endswith("x" * 150)
    columns = [cell_len(line[: line.index(word)]) for line, word in ((header, "STATE"), (second, "LOCKED"))]
    assert columns[0] == columns[1]
    assert second == second.rstrip()
