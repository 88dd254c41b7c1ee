"""Who waits while others work: for how long, and what they are told."""

import asyncio
from datetime import timedelta
from typing import Any, cast

import pytest
from unit_support import FakeClock

from operation_service.clock import Deadline
from operation_service.errors import ContentionError, NotFoundError, OverloadedError, StoreUnavailableError
from operation_service.model import Append, Caller, Resource, Snapshot
from operation_service.operations import Operations
from operation_service.workers import Progress, Workers

FOREVER = 600.0


async def test_work_waits_for_a_worker_as_long_as_its_deadline_allows_while_nothing_is_done() -> None:
    workers = Workers(1)
    async with workers.one(Deadline(FOREVER)):
        with pytest.raises(StoreUnavailableError):
            async with workers.one(Deadline(0.01)):
                raise AssertionError
    async with workers.one(Deadline(FOREVER)):
        pass


async def test_work_that_waits_for_long_while_other_work_is_done_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operation_service.workers._PATIENCE_SECONDS", 0.05)
    workers, end = Workers(1), asyncio.Event()

    async def work(until: asyncio.Event) -> None:
        async with workers.one(Deadline(FOREVER)):
            await until.wait()

    first_end = asyncio.Event()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(work(first_end))
        await asyncio.sleep(0)
        group.create_task(work(end))
        last = asyncio.create_task(work(end))
        await asyncio.sleep(0)
        first_end.set()
        with pytest.raises(OverloadedError) as caught:
            await last
        end.set()
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= timedelta(seconds=0.5)


async def test_who_waits_for_earlier_calls_for_the_resource_is_not_told_that_etcd_is_not_available() -> None:
    class SlowStore:
        async def read(self, *_: object) -> Snapshot:
            return await asyncio.Event().wait() and Snapshot()

    operations = Operations(cast("Any", SlowStore()), FakeClock())
    command = Append(Resource("p", "n"), Caller("token", "somebody"), "a step")
    async with asyncio.timeout(5):
        earlier = asyncio.create_task(operations.change(command, Deadline(FOREVER)))
        await asyncio.sleep(0)
        with pytest.raises(ContentionError, match="earlier calls for p/n") as caught:
            await operations.change(command, Deadline(0.01))
        assert caught.value.retry_after is not None
        earlier.cancel()
        await asyncio.wait({earlier})


async def test_who_waits_while_no_call_for_the_resource_is_done_is_told_that_etcd_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("operation_service.turns._SILENT_SECONDS", 0.05)
    may_end = asyncio.Event()

    class SlowStore:
        async def read(self, *_: object) -> Snapshot:
            await may_end.wait()
            may_end.clear()
            return Snapshot(is_confirmed=True)

    operations = Operations(cast("Any", SlowStore()), FakeClock())
    command = Append(Resource("p", "n"), Caller("token", "somebody"), "a step")
    async with asyncio.timeout(5):
        earlier = [asyncio.create_task(operations.change(command, Deadline(FOREVER))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailableError, match="earlier calls"):
            await operations.change(command, Deadline(0.1))
        last = asyncio.create_task(operations.change(command, Deadline(0.1)))
        await asyncio.sleep(0)
        may_end.set()
        with pytest.raises(ContentionError):
            await last
        for each in earlier:
            each.cancel()
        await asyncio.wait(earlier)
        with pytest.raises(NotFoundError):
            await earlier[0]


async def test_who_waits_while_all_the_others_end_without_an_answer_is_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its patience ends in the very moment in which etcd's silence ends all the others."""
    monkeypatch.setattr("operation_service.workers._PATIENCE_SECONDS", 0.05)
    workers = Workers(1)
    loop = asyncio.get_running_loop()
    silent = loop.create_future()

    async def work() -> None:
        async with workers.one(Deadline(FOREVER)):
            await silent

    first, last = asyncio.create_task(work()), asyncio.create_task(work())
    await asyncio.sleep(0)
    loop.call_later(0.05, silent.set_exception, StoreUnavailableError("no answer in time"))
    done, _ = await asyncio.wait({first, last}, timeout=10)
    assert done == {first, last}
    for task in done:
        assert isinstance(task.exception(), StoreUnavailableError)


async def test_who_has_waited_for_longest_is_next_also_after_its_patience_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("operation_service.workers._PATIENCE_SECONDS", 0.02)
    workers, served, may_end = Workers(1), list[int](), asyncio.Event()

    async def work(number: int) -> None:
        async with workers.one(Deadline(FOREVER)):
            served.append(number)
            await may_end.wait()

    holder, first = asyncio.create_task(work(0)), asyncio.create_task(work(1))
    await asyncio.sleep(0.2)
    last = asyncio.create_task(work(2))
    await asyncio.sleep(0)
    may_end.set()
    await asyncio.wait({holder, first, last})
    assert served == [0, 1, 2]


async def test_calls_whose_callers_have_gone_say_nothing_of_etcd() -> None:
    progress = Progress()
    progress.note(asyncio.CancelledError())
    progress.note(StoreUnavailableError("no answer in time"))
    assert progress.done == 0
    progress.note(None)
    progress.note(NotFoundError(Resource("p", "n")))
    assert progress.done == 2
