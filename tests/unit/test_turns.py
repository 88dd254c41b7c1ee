"""One call after the other for each resource, and nobody waits for longer than he wants to."""

import asyncio

import pytest
from unit_support import RESOURCE, turns_until

from operation_service.clock import Deadline
from operation_service.errors import ContentionError, StoreUnavailableError
from operation_service.model import Resource
from operation_service.turns import Turns

OTHER_RESOURCE = Resource("project", "virtual_machines/web-2")
SOON = Deadline(3_600)
"""Made when the tests are collected, and they take minutes."""


class Caller:
    """Has a turn for as long as the test likes."""

    def __init__(self, turns: Turns, resource: Resource = RESOURCE, deadline: Deadline = SOON) -> None:
        self.has_turn = False
        self.may_end = asyncio.Event()
        self.task = asyncio.create_task(self._have(turns, resource, deadline))

    async def _have(self, turns: Turns, resource: Resource, deadline: Deadline) -> None:
        async with turns.one(resource, deadline):
            self.has_turn = True
            await self.may_end.wait()

    async def end(self) -> None:
        self.may_end.set()
        await self.task


async def test_the_calls_for_one_resource_have_their_turns_in_the_order_in_which_they_came() -> None:
    turns = Turns()
    first, second, third = (Caller(turns) for _ in range(3))
    for caller, waiting in ((first, [second, third]), (second, [third]), (third, [])):
        await turns_until(lambda caller=caller: caller.has_turn)  # type: ignore[misc]
        assert not any(other.has_turn for other in waiting)
        await caller.end()


async def test_another_resource_waits_for_nobody() -> None:
    turns = Turns()
    one, other = Caller(turns), Caller(turns, OTHER_RESOURCE)
    await turns_until(lambda: one.has_turn and other.has_turn)
    await one.end()
    await other.end()
    assert turns._turns == {}  # noqa: SLF001


async def test_a_turn_that_ends_in_an_error_or_a_cancellation_lets_the_next_one_have_its_own() -> None:
    turns = Turns()
    with pytest.raises(ArithmeticError):
        async with turns.one(RESOURCE, SOON):
            raise ArithmeticError
    first, second, third = (Caller(turns) for _ in range(3))
    await turns_until(lambda: first.has_turn)
    second.task.cancel()
    first.task.cancel()
    await turns_until(lambda: third.has_turn)
    await third.end()
    await asyncio.wait({first.task, second.task})
    assert not second.has_turn
    assert turns._turns == {}  # noqa: SLF001


async def test_who_waits_while_others_have_their_turns_is_told_of_contention() -> None:
    turns = Turns()
    first, second = Caller(turns), Caller(turns)
    await turns_until(lambda: first.has_turn)
    late = Caller(turns, deadline=Deadline(0.05))
    await asyncio.sleep(0)
    await first.end()
    with pytest.raises(ContentionError):
        await late.task
    await second.end()


async def test_who_waits_while_nobody_gets_on_is_told_that_etcd_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("operation_service.turns._SILENT_SECONDS", 0.05)
    turns = Turns()
    first = Caller(turns)
    await turns_until(lambda: first.has_turn)
    with pytest.raises(StoreUnavailableError):
        await Caller(turns, deadline=Deadline(0.1)).task
    await first.end()


async def test_who_comes_just_when_a_turn_ends_waits_no_longer_than_its_deadline() -> None:
    """Whose turn it is next has it from then on, though its task has yet to run."""
    turns = Turns()
    first = Caller(turns)
    await asyncio.sleep(0)
    second = Caller(turns)
    await asyncio.sleep(0)
    first.may_end.set()
    # It runs after the first has ended its turn, and before the second runs.
    third = Caller(turns, deadline=Deadline(0.05))
    done, _ = await asyncio.wait({third.task}, timeout=5.0)
    await second.end()
    assert done
    with pytest.raises(ContentionError):
        third.task.result()


async def test_who_comes_between_one_who_ends_and_one_who_gives_up_has_its_turn() -> None:
    turns = Turns()
    first = Caller(turns)
    await turns_until(lambda: first.has_turn)
    leaving = Caller(turns)
    await asyncio.sleep(0)
    first.may_end.set()
    coming = Caller(turns)
    leaving.task.cancel()
    await turns_until(lambda: coming.has_turn)
    await coming.end()
    await asyncio.wait({first.task, leaving.task})
    assert turns._turns == {}  # noqa: SLF001
