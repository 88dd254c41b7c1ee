"""What waits while a call is under way leaves together with the next one."""

import asyncio
import contextlib
import gc
import math
import weakref
from collections.abc import Sequence
from typing import Any, cast

import pytest
from unit_support import turns_until

from operation_service.clock import Deadline
from operation_service.errors import StoreUnavailableError
from operation_service.together import Together

SOON = Deadline(3_600)
"""Made when the tests are collected, and they take minutes."""


class Pushed(Deadline):
    """Passes when the test says so."""

    def pass_by(self) -> None:
        self._at = -math.inf


class Carrier:
    """Carries requests out when it may, and remembers which went together."""

    def __init__(self) -> None:
        self.carried: list[list[int]] = []
        self.may_answer = asyncio.Event()
        self.poisoned: set[int] = set()

    async def __call__(self, requests: Sequence[int], _deadline: Deadline) -> Sequence[str | Exception]:
        self.carried.append(list(requests))
        await self.may_answer.wait()
        return [ValueError(request) if request in self.poisoned else str(request) for request in requests]


@pytest.fixture
def carrier() -> Carrier:
    return Carrier()


def together(carrier: Carrier, *, is_repeatable: bool = False) -> Together[int, str]:
    return Together(carrier, max_requests=4, max_size=10, is_repeatable=is_repeatable)


async def begun(group: Together[int, str], *requests: int, size: int = 1) -> list[asyncio.Task[str]]:
    """Begin requests, and let what can be sent be sent."""
    tasks = [asyncio.create_task(group.do(request, size, SOON)) for request in requests]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_what_comes_at_once_goes_at_once_and_each_has_its_own_answer(carrier: Carrier) -> None:
    tasks = await begun(together(carrier), 1, 2, 3)
    carrier.may_answer.set()
    assert await asyncio.gather(*tasks) == ["1", "2", "3"]
    assert carrier.carried == [[1, 2, 3]]


async def test_those_who_come_back_after_an_answer_soon_go_together_again(carrier: Carrier) -> None:
    group = together(carrier)
    carrier.may_answer.set()

    async def call_twice(number: int, turns: int) -> None:
        await group.do(number, 1, SOON)
        for _ in range(turns):
            await asyncio.sleep(0)
        await group.do(number + 10, 1, SOON)

    await asyncio.gather(*(call_twice(number, 5 * number) for number in (1, 2, 3)))
    assert carrier.carried == [[1, 2, 3], [11, 12, 13]]


async def test_one_that_went_alone_is_no_reason_for_the_others_not_to_be_let_come(carrier: Carrier) -> None:
    group = together(carrier)
    carrier.may_answer.set()
    await asyncio.gather(group.do(1, 1, SOON), group.do(2, 1, SOON))
    for _ in range(100):
        await asyncio.sleep(0)
    await group.do(3, 1, SOON)
    first = await begun(group, 4)
    last = await begun(group, 5)
    await asyncio.gather(*first, *last)
    assert carrier.carried == [[1, 2], [3], [4, 5]]


async def test_as_many_as_may_go_together_wait_for_no_more(carrier: Carrier) -> None:
    group = together(carrier)
    tasks = await begun(group, 1, 2, 3, 4, 11, 12, 13, 14)
    carrier.may_answer.set()
    await asyncio.wait(tasks[:4])
    for _ in range(5):
        await asyncio.sleep(0)
    assert carrier.carried == [[1, 2, 3, 4], [11, 12, 13, 14]]


async def test_as_much_as_may_go_together_waits_for_no_more_either(carrier: Carrier) -> None:
    group = together(carrier)
    tasks = await begun(group, 1, 2, size=5) + await begun(group, 11, 12, size=5)
    carrier.may_answer.set()
    await asyncio.wait(tasks[:2])
    for _ in range(5):
        await asyncio.sleep(0)
    assert carrier.carried == [[1, 2], [11, 12]]


async def test_what_is_late_when_it_could_be_sent_is_not_and_its_caller_knows(carrier: Carrier) -> None:
    group = together(carrier)
    (first,) = await begun(group, 1)
    deadline = Pushed(3_600)
    late = asyncio.create_task(group.do(2, 1, deadline))
    await asyncio.sleep(0)
    deadline.pass_by()
    carrier.may_answer.set()
    with pytest.raises(StoreUnavailableError) as caught:
        await late
    assert not caught.value.is_outcome_unknown
    assert await first == "1"
    assert carrier.carried == [[1]]


async def test_who_is_alone_waits_for_nobody(carrier: Carrier) -> None:
    group = together(carrier)
    carrier.may_answer.set()
    await group.do(1, 1, SOON)
    await begun(group, 2)
    await begun(group, 3)
    assert carrier.carried == [[1], [2], [3]]


async def test_what_comes_meanwhile_goes_with_the_next_one(carrier: Carrier) -> None:
    group = together(carrier)
    tasks = await begun(group, 1)
    tasks += await begun(group, 2)
    tasks += await begun(group, 3)
    carrier.may_answer.set()
    assert await asyncio.gather(*tasks) == ["1", "2", "3"]
    assert carrier.carried == [[1], [2, 3]]


async def test_no_more_than_allowed_go_together(carrier: Carrier) -> None:
    carrier.may_answer.set()
    await asyncio.gather(*await begun(together(carrier), *range(10)))
    assert [len(each) for each in carrier.carried] == [4, 4, 2]


async def test_what_is_too_large_together_goes_apart_and_what_is_too_large_alone_goes_alone(carrier: Carrier) -> None:
    carrier.may_answer.set()
    group = together(carrier)
    await asyncio.gather(*await begun(group, 1, 2, 3, size=5))
    await asyncio.gather(*await begun(group, 4, 5, size=11))
    assert carrier.carried == [[1, 2], [3], [4], [5]]


async def test_one_that_fails_fails_alone(carrier: Carrier) -> None:
    carrier.may_answer.set()
    carrier.poisoned = {2}
    tasks = await begun(together(carrier), 1, 2, 3)
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert (told[0], told[2]) == ("1", "3")
    assert isinstance(told[1], ValueError)


async def test_whose_caller_goes_while_it_waits_is_never_sent_and_its_settlement_says_so(carrier: Carrier) -> None:
    group = together(carrier)
    (first,) = await begun(group, 1)
    settled: list[object] = []
    second = asyncio.create_task(group.do(2, 1, SOON, settled.append))
    await asyncio.sleep(0)
    second.cancel()
    carrier.may_answer.set()
    assert await first == "1"
    await asyncio.wait({second})
    await turns_until(lambda: settled)
    assert (carrier.carried, settled) == ([[1]], [None])


async def test_whose_caller_goes_while_it_is_under_way_is_settled_all_the_same(carrier: Carrier) -> None:
    settled: list[object] = []
    gone = asyncio.create_task(together(carrier).do(1, 1, SOON, settled.append))
    await turns_until(lambda: carrier.carried)
    gone.cancel()
    await asyncio.wait({gone})
    assert settled == []
    carrier.may_answer.set()
    await turns_until(lambda: settled)
    assert settled == ["1"]


@pytest.mark.parametrize("is_repeatable", [True, False])
async def test_whose_deadline_comes_first_is_told_whether_it_may_have_been_carried_out(
    carrier: Carrier, *, is_repeatable: bool
) -> None:
    group = together(carrier, is_repeatable=is_repeatable)
    settled: list[object] = []
    with pytest.raises(StoreUnavailableError) as sent:
        await group.do(1, 1, Deadline(0.05), settled.append)
    with pytest.raises(StoreUnavailableError) as waited:
        await group.do(2, 1, Deadline(0.05), settled.append)
    assert sent.value.is_outcome_unknown is not is_repeatable
    assert not waited.value.is_outcome_unknown
    carrier.may_answer.set()
    await turns_until(lambda: len(settled) == 2)
    assert (carrier.carried, settled) == ([[1]], [None, "1"])


async def test_whose_deadline_has_passed_is_not_sent(carrier: Carrier) -> None:
    with pytest.raises(StoreUnavailableError):
        await together(carrier).do(1, 1, Deadline(-1))
    assert carrier.carried == []


async def test_a_mistake_in_carrying_out_leaves_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_requests: Sequence[int], _deadline: Deadline) -> Sequence[str | Exception]:
        raise ArithmeticError

    group: Together[int, str] = Together(broken, max_requests=4, max_size=10, is_repeatable=False)
    for _ in range(2):
        told = await asyncio.gather(*await begun(group, 1, 2), return_exceptions=True)
        assert [type(each) for each in told] == [ArithmeticError] * 2
    assert "could not be carried out" in caplog.text


async def test_what_nobody_waits_for_any_more_is_not_kept_while_etcd_is_slow() -> None:
    """The gates bound calls and their bytes, but the queue keeps what their callers have left behind."""
    may_answer = asyncio.Event()

    async def carry_out(requests: Any, _: Deadline) -> Any:
        await may_answer.wait()
        return list(requests)

    group: Together[int, int] = Together(carry_out, max_requests=100, max_size=1 << 20, is_repeatable=False)
    first = asyncio.create_task(group.do(0, 1, SOON))
    await asyncio.sleep(0.01)
    settled: list[object] = []
    for number in range(1_000):
        gone = asyncio.create_task(group.do(number, 1, SOON, settled.append))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait({gone})
    kept = len(group._queue)  # noqa: SLF001
    may_answer.set()
    await first
    assert kept <= 1
    assert len(settled) == 1_000


async def test_who_comes_after_its_deadline_is_settled_too() -> None:
    """Else its places on leases were never given back, and these leases never ended."""
    group: Together[int, int] = Together(cast("Any", None), max_requests=1, max_size=1, is_repeatable=False)
    settled: list[object] = []
    with pytest.raises(StoreUnavailableError):
        await group.do(1, 1, Deadline(-1), settled.append)
    assert settled == [None]


async def test_a_settlement_that_fails_leaves_nobody_else_waiting() -> None:
    async def carry_out(requests: Any, _: Deadline) -> Any:
        return list(requests)

    def broken(_: object) -> None:
        raise ArithmeticError

    group: Together[int, int] = Together(carry_out, max_requests=9, max_size=9, is_repeatable=False)
    calls = [asyncio.create_task(group.do(1, 1, Deadline(5), broken)), asyncio.create_task(group.do(2, 1, Deadline(5)))]
    done, _ = await asyncio.wait({calls[1]}, timeout=0.5)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert done


async def test_a_request_that_failed_is_freed_without_the_garbage_collector() -> None:
    """Which looks seldom (ADR 16). The error holds the frame of `do`."""

    class Request:
        pass

    async def carry_out(requests: Any, _: Deadline) -> Any:
        return [StoreUnavailableError("it cannot be reached") for _ in requests]

    group: Together[Request, int] = Together(carry_out, max_requests=9, max_size=9, is_repeatable=False)

    async def call() -> weakref.ref[Request]:
        request = Request()
        with contextlib.suppress(StoreUnavailableError):
            await group.do(request, 1, SOON)
        return weakref.ref(request)

    gc.collect()
    gc.disable()
    try:
        request = await call()
        await asyncio.sleep(0.01)
        assert request() is None
    finally:
        gc.enable()
