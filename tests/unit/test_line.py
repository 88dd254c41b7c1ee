"""Places for some at once, and a line before them."""

import asyncio

import pytest

from operation_service.line import Line, Ticket

LONG = 60.0


async def test_as_many_step_in_as_there_are_places() -> None:
    line = Line(2)
    assert [line.step_in() for _ in range(3)] == [True, True, False]
    line.leave()
    assert [line.step_in() for _ in range(2)] == [True, False]


async def test_who_joins_where_a_place_is_free_has_it() -> None:
    line = Line(1)
    assert await line.wait(line.join(), 0)
    assert not line.step_in()


async def test_a_place_goes_to_who_has_waited_for_longest_and_to_nobody_who_comes_meanwhile() -> None:
    line = Line(0)
    tickets = [line.join() for _ in range(2)]
    line.leave()
    assert not line.step_in()
    assert [ticket.done() for ticket in tickets] == [True, False]
    line.leave()
    assert [await line.wait(ticket, LONG) for ticket in tickets] == [True, True]
    line.leave()
    assert line.step_in()


async def test_who_looks_around_for_a_while_keeps_its_place_in_line() -> None:
    line = Line(0)
    first = line.join()
    assert not await line.wait(first, 0.01)
    last = line.join()
    line.leave()
    assert (await line.wait(first, LONG), await line.wait(last, 0)) == (True, False)


async def test_who_gives_up_is_passed_over_and_kept_no_longer() -> None:
    line = Line(0)
    first, last = line.join(), line.join()
    line.give_up(first)
    assert line._waiting == {last: None}  # noqa: SLF001
    line.leave()
    assert last.done()
    assert not line.step_in()


@pytest.mark.parametrize("is_given", [True, False], ids=["in the moment in which it is given a place", "in vain"])
async def test_who_is_cancelled_leaves_the_place_to_the_next(*, is_given: bool) -> None:
    line = Line(0)
    first, last = line.join(), line.join()
    waiting = asyncio.create_task(line.wait(first, LONG))
    await asyncio.sleep(0)
    if is_given:
        line.leave()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    assert last.done() == is_given
    line.leave()
    assert last.done()


async def test_a_place_that_was_left_while_the_only_one_in_line_gives_up_is_free_for_who_comes_now() -> None:
    line = Line(0)
    waiting = asyncio.create_task(line.wait(line.join(), LONG))
    await asyncio.sleep(0)
    line.leave()
    waiting.cancel()
    came: Ticket = line.join()
    assert await line.wait(came, LONG)
