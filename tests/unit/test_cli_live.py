"""The live table: what is going on comes first, and there is an end to what it keeps."""

import io
from types import SimpleNamespace
from typing import Any, cast

from rich.console import Console

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.live import LiveTable


def drawn(table: LiveTable, height: int = 20) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=120, height=height, force_terminal=True, color_system=None).print(table)
    return [line.split()[1] for line in out.getvalue().splitlines()[1:]]


def record(name: str, state: "pb.OperationState.ValueType" = pb.OPERATION_STATE_LOCKED) -> pb.OperationRecord:
    return pb.OperationRecord(project="demo", name=name, state=state)


def test_the_latest_change_is_first_and_what_is_over_comes_last() -> None:
    table = LiveTable()
    for name in ("a", "b", "c"):
        table.take(record(name))
    assert drawn(table) == ["c", "b", "a"]
    table.take(record("a"))
    table.take(record("c", pb.OPERATION_STATE_SUCCEEDED))
    assert drawn(table) == ["a", "b", "c"]
    table.take(record("b", pb.OPERATION_STATE_OPERATOR_DEAD))
    assert drawn(table) == ["b", "a", "c"]


def test_it_is_no_higher_than_the_terminal() -> None:
    table = LiveTable()
    for number in range(100):
        table.take(record(str(number)))
    assert drawn(table, height=12) == [str(number) for number in range(99, 89, -1)]


def test_of_what_is_over_it_keeps_the_latest_thousand() -> None:
    table = LiveTable()
    table.take(record("held"))
    for number in range(1_500):
        table.take(record(str(number), pb.OPERATION_STATE_FAILED))
    shown = drawn(table, height=5_000)
    assert shown == ["held", *(str(number) for number in range(1_499, 499, -1))]


def test_a_change_looks_at_no_other_operation() -> None:
    looked_at: list[str] = []

    class Noted(SimpleNamespace):
        def __getattribute__(self, attribute: str) -> Any:
            if attribute == "state":
                looked_at.append(super().__getattribute__("name"))
            return super().__getattribute__(attribute)

    table = LiveTable()
    for name in ("a", "b", "c"):
        table.take(cast("pb.OperationRecord", Noted(project="demo", name=name, state=pb.OPERATION_STATE_LOCKED)))
    # With a hundred thousand operations at the beginning of a watch, each look at all of them is one too many.
    assert looked_at == ["a", "b", "c"]
