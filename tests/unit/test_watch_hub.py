"""What the hub does by itself with each change that it receives."""

import asyncio
import contextlib
from typing import Any, cast

import pytest
from etcd3.etcdrpc.kv_pb2 import Event as EtcdEvent
from etcd3.etcdrpc.kv_pb2 import KeyValue
from unit_support import FakeClock, a_record

from operation_service.changes import Occurrence
from operation_service.clock import Deadline
from operation_service.codec import encode
from operation_service.etcd_watch import Batch
from operation_service.keys import Keys
from operation_service.lock_times import LockTimes
from operation_service.model import Logs, Resource, View
from operation_service.watch_hub import WatchHub

KEYS = Keys("/test")
CHANGES = 5_000


class Store:
    """Reads as soon as it may."""

    def __init__(self) -> None:
        self.may_read = asyncio.Event()

    async def view_after(self, occurrence: Occurrence, _deadline: Deadline) -> View:
        await self.may_read.wait()
        record = occurrence.record()
        assert record is not None
        return View(occurrence.resource, record, occurrence.revision, None, None, None, Logs())


def a_hub(store: Store) -> WatchHub:
    nothing: Any = None
    times = LockTimes(FakeClock())
    return WatchHub(nothing, KEYS, cast("Any", store), times, expiry=nothing, on_record_gone=lambda _: None)


def a_change(revision: int) -> Batch:
    key = KEYS.record(Resource("project", f"name-{revision}"))
    kv = KeyValue(key=key, value=encode(a_record()), mod_revision=revision)
    return Batch(revision, (EtcdEvent(type=EtcdEvent.PUT, kv=kv),))


async def test_changes_that_come_faster_than_they_are_read_do_not_pile_up_and_are_all_told() -> None:
    store = Store()
    hub = a_hub(store)
    hub._begin(1)  # noqa: SLF001
    told: list[int] = []

    async def listen() -> None:
        async with contextlib.aclosing(hub.follow(0)) as entries:
            async for entry in entries:
                told.append((await hub.view(entry)).revision)
                if len(told) == CHANGES:
                    return

    async with asyncio.timeout(30):
        listener = asyncio.create_task(listen())
        await asyncio.sleep(0)
        before = len(asyncio.all_tasks())
        for revision in range(1, CHANGES + 1):
            hub._receive(a_change(revision))  # noqa: SLF001
            if revision % 100 == 0:
                await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) - before <= 100
        store.may_read.set()
        await listener
    assert told == list(range(1, CHANGES + 1))


async def test_who_listens_for_what_is_to_come_is_not_too_slow_for_what_the_hub_hears_of_the_past(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("operation_service.watch_hub._BUFFERED", 5)
    hub = a_hub(Store())
    hub._begin(1)  # noqa: SLF001
    hub._seen_up_to = 20  # noqa: SLF001

    async def first_after(revision: int) -> int:
        async with contextlib.aclosing(hub.follow(revision)) as entries:
            return (await anext(entries)).occurrence.revision

    async with asyncio.timeout(30):
        listener = asyncio.create_task(first_after(20))
        await asyncio.sleep(0)
        for revision in range(1, 22):
            hub._receive(a_change(revision))  # noqa: SLF001
        assert await listener == 21
