"""Bounds that end what takes too long: late by a little, never early, and nobody else's cancellation is swallowed."""

import asyncio

import pytest

from operation_service.bounds import Bound, Bounds

FOREVER = 600.0


async def test_what_takes_too_long_is_ended() -> None:
    with pytest.raises(TimeoutError), Bounds().within(0.01):
        await asyncio.Event().wait()


async def test_what_ends_in_time_is_not_and_what_comes_after_it_neither() -> None:
    bounds = Bounds()
    with bounds.within(0.05):
        await asyncio.sleep(0)
    await asyncio.sleep(0.5)
    assert bounds._bounds == set()  # noqa: SLF001


async def test_each_of_several_is_ended_at_its_own_time() -> None:
    bounds, ended = Bounds(), []

    async def work(name: str, seconds: float) -> None:
        try:
            with bounds.within(seconds):
                await asyncio.sleep(1.0)
        except TimeoutError:
            ended.append(name)

    await asyncio.gather(work("third", FOREVER), work("second", 0.5), work("first", 0.01))
    assert ended == ["first", "second"]


async def test_an_error_of_the_block_is_its_own() -> None:
    with pytest.raises(ArithmeticError), Bounds().within(FOREVER):
        raise ArithmeticError


async def test_of_two_the_outer_one_ends_the_inner_block_as_well() -> None:
    bounds, ended = Bounds(), []

    async def inner() -> None:
        try:
            with bounds.within(FOREVER):
                await asyncio.Event().wait()
        finally:
            ended.append("inner")

    with pytest.raises(TimeoutError), bounds.within(0.01):
        await inner()
    assert ended == ["inner"]
    await asyncio.sleep(0)


@pytest.mark.parametrize("order", ["cancelled first", "ended first"])
async def test_who_is_cancelled_by_somebody_else_as_well_stays_cancelled(order: str) -> None:
    bound: list[Bound] = []

    async def work() -> None:
        with Bounds().within(FOREVER) as mine:
            bound.append(mine)
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    if order == "cancelled first":
        task.cancel()
        bound[0].end()
    else:
        bound[0].end()
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_bound_that_is_over_ends_nothing() -> None:
    with Bounds().within(FOREVER) as bound:
        pass
    bound.end()
    await asyncio.sleep(0)
