"""Places for some at once, and a line before them."""

import asyncio

from unit_support import turns_until

from operation_service.line import Line


async def test_as_many_step_in_as_there_are_places() -> None:
    line = Line(2)
    assert [line.step_in() for _ in range(3)] == [True, True, False]
    line.leave()
    assert [line.step_in() for _ in range(2)] == [True, False]


async def test_a_place_goes_to_who_has_waited_for_longest_and_to_nobody_who_comes_meanwhile() -> None:
    line, had = Line(0), list[int]()

    async def wait(number: int) -> None:
        await line.wait()
        had.append(number)

    waiting = [asyncio.create_task(wait(number)) for number in range(2)]
    await asyncio.sleep(0)
    line.leave()
    assert not line.step_in()
    await turns_until(lambda: had == [0])
    line.leave()
    await asyncio.wait(waiting)
    assert had == [0, 1]
    line.leave()
    assert line.step_in()


async def test_who_gives_up_is_passed_over() -> None:
    line = Line(0)
    first, second = (asyncio.create_task(line.wait()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    line.leave()
    await second
    assert not line.step_in()


async def test_who_gives_up_in_the_moment_in_which_it_is_given_a_place_leaves_it_to_the_next() -> None:
    line = Line(0)
    first, second = (asyncio.create_task(line.wait()) for _ in range(2))
    await asyncio.sleep(0)
    line.leave()
    first.cancel()
    await asyncio.wait({first, second}, timeout=10)
    assert first.cancelled()
    assert second.done()
    assert not line.step_in()
