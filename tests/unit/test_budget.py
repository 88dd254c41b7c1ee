"""What is shared out among watches that begin: in turn, and not for ever."""

import asyncio
import contextlib

import pytest

from operation_service.budget import Budget
from operation_service.errors import OverloadedError

FOREVER = 600.0


async def test_a_budget_is_shared_out_first_come_first_served() -> None:
    budget, came = Budget(10, "apples"), []

    async def take(name: str, amount: int, until: asyncio.Event) -> None:
        async with budget.share(amount):
            came.append(name)
            await until.wait()

    done = [asyncio.Event() for _ in range(4)]
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(take("six", 6, done[0]))
        group.create_task(take("all and more", 1_000, done[1]))
        group.create_task(take("one", 1, done[2]))
        given_up = group.create_task(take("given up", 1, done[3]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert came == ["six"]
        given_up.cancel()
        for each in done[:3]:
            each.set()
    assert came == ["six", "all and more", "one"]
    async with asyncio.timeout(5), budget.share(10):
        pass


async def test_a_share_that_is_given_up_as_it_is_handed_out_comes_back() -> None:
    budget = Budget(1, "apples")
    async with budget.share(1):
        waiting = asyncio.create_task(contextlib.AsyncExitStack().enter_async_context(budget.share(1)))
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    async with asyncio.timeout(5), budget.share(1):
        pass


async def test_who_waits_for_a_share_for_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operation_service.budget._PATIENCE_SECONDS", 0.01)
    budget = Budget(10, "apples")
    async with asyncio.timeout(5):
        async with budget.share(6):
            with pytest.raises(OverloadedError, match="busy with 10 apples") as caught:
                await contextlib.AsyncExitStack().enter_async_context(budget.share(5))
            async with budget.share(4):
                pass
        async with budget.share(10):
            pass
    assert caught.value.retry_after is not None


async def test_who_wants_next_to_nothing_waits_behind_nobody() -> None:
    budget = Budget(20_000, "apples")
    async with asyncio.timeout(5), budget.share(20_000):
        waiting = asyncio.create_task(contextlib.AsyncExitStack().enter_async_context(budget.share(3)))
        await asyncio.sleep(0)
        async with budget.share(2), budget.share(1), budget.share(0):
            assert not waiting.done()
        waiting.cancel()
        await asyncio.wait({waiting})


async def test_a_budget_that_is_opened_up_lets_nobody_wait() -> None:
    budget = Budget(1, "apples")
    async with asyncio.timeout(5), budget.share(1):
        budget.open_up()
        async with budget.share(1):
            pass
