"""The hub and what is built on it, with its parts in hand."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest
from etcd_hands import EtcdHands
from stores import a_store
from support import (
    NAME,
    PROJECT,
    Peer,
    TestClock,
    connected,
)
from waiting import soon

from operation_service.changes import Occurrence
from operation_service.clock import Deadline
from operation_service.codec import encode
from operation_service.errors import (
    RevisionCompactedError,
    StoreUnavailableError,
    WatcherTooSlowError,
    WatchInterruptedError,
)
from operation_service.etcd_client import EtcdClient
from operation_service.etcd_store import EtcdStore
from operation_service.expiry import Expiry
from operation_service.keys import Keys
from operation_service.landmarks import Landmarks
from operation_service.listing import DETAILS_AT_ONCE, Listing
from operation_service.lock_times import LockTimes
from operation_service.model import Event, Resource, Snapshot
from operation_service.server import running
from operation_service.settings import Settings
from operation_service.survey import Survey
from operation_service.watch_hub import WatchHub
from operation_service.watching import Watching, WatchQuery

RESOURCE = Resource(PROJECT, NAME)


@dataclass
class Parts:
    """A hub of its own on the keys of the test's service, and what it is made of."""

    client: EtcdClient
    keys: Keys
    store: EtcdStore
    hub: WatchHub


@pytest.fixture
async def parts(etcd: str, settings: Settings) -> AsyncIterator[Parts]:
    clock, keys, client = TestClock(), Keys(settings.key_prefix), EtcdClient([etcd])
    times = LockTimes(clock)
    store = a_store(client, keys, clock, times=times)
    expiry = Expiry(client, keys, times)
    yield Parts(
        client, keys, store, WatchHub(client, keys, store, times, expiry=expiry, on_record_gone=lambda _resource: None)
    )
    await client.close()


async def test_a_listener_that_is_left_behind_is_told_so_and_from_where_to_resume(
    peer: Peer, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operation_service.watch_hub._BUFFERED", 5)
    hub, store = parts.hub, parts.store
    hearing = asyncio.create_task(hub.run())
    try:
        await peer.propose("vm/0")
        revision = await store.current_revision(Deadline(10))

        async def is_hearing() -> bool:
            return hub.covers(revision)

        assert await soon(is_hearing)
        listener = hub.follow(revision)
        await peer.propose("vm/1")
        first = await anext(listener)
        for number in range(2, 12):
            await peer.propose(f"vm/{number}")
        last = await store.current_revision(Deadline(10))

        async def has_heard_all() -> bool:
            return any(each.occurrence.revision == last for each in hub._buffer)  # noqa: SLF001

        assert await soon(has_heard_all)
        assert not hub.covers(revision)
        with pytest.raises(WatcherTooSlowError) as caught:
            await anext(listener)
        assert caught.value.metadata["resume_revision"] == str(first.occurrence.revision + 1)
    finally:
        hearing.cancel()
        await asyncio.wait({hearing})


async def test_a_listener_across_a_gap_in_what_the_service_heard_is_told_so(peer: Peer, parts: Parts) -> None:
    hub = parts.hub
    hearing = asyncio.create_task(hub.run())
    try:
        revision = await parts.store.current_revision(Deadline(10))

        async def is_hearing() -> bool:
            return hub.covers(revision)

        assert await soon(is_hearing)
        listener = hub.follow(revision)
        await peer.propose("vm")
        await anext(listener)
        hub._begin(revision + 100)  # noqa: SLF001, as after a compaction beyond what was heard
        with pytest.raises(WatchInterruptedError):
            await anext(listener)
        with pytest.raises(WatchInterruptedError):
            await anext(hub.follow(revision))
    finally:
        hearing.cancel()
        await asyncio.wait({hearing})


async def test_a_change_whose_operation_has_gone_since_is_compacted_and_not_told_without_its_logs(
    peer: Peer, parts: Parts, hands: EtcdHands
) -> None:
    await peer.propose(log_message="begun")
    await peer.append("a step")
    then = await parts.store.read(RESOURCE, "", Deadline(10))
    assert then.record is not None
    change = Occurrence(RESOURCE, Event.LOGGED, then.record_revision, encode(then.record))
    await hands.compact()
    view = await parts.store.view_after(change, Deadline(10))
    assert [log.message for log in view.logs] == ["begun", "a step"]
    await peer.complete()
    await peer.propose()

    async def its_details_have_gone() -> bool:
        return not await hands.keys(f"details/{RESOURCE}#{view.record.operation_id}/")

    await hands.compact()
    assert await soon(its_details_have_gone)
    with pytest.raises(RevisionCompactedError):
        await parts.store.view_after(change, Deadline(10))


async def test_a_watch_that_is_cancelled_while_there_is_news_for_others_is_over(etcd: str, settings: Settings) -> None:
    async with running(settings, [etcd]) as service, connected(service.address) as peer:
        others = [await peer.watching(project="another") for _ in range(100)]
        writing = [asyncio.create_task(_propose_on_and_on(peer, f"vm/{number}")) for number in range(8)]
        for watch in others:
            await asyncio.sleep(0.005)
            watch.cancel()
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)

        async def all_are_over() -> bool:
            return service.admission.watches.inside == 0

        assert await soon(all_are_over)


async def _propose_on_and_on(peer: Peer, name: str) -> None:
    while True:
        await peer.propose(name)


async def test_a_watch_whose_beginning_breaks_off_tells_from_where_to_resume(
    peer: Peer, parts: Parts, hands: EtcdHands, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        await peer.propose(f"vm/{number}")
    listing = Listing(parts.client, parts.keys, parts.store, Survey(parts.client, parts.keys, Landmarks()))
    watching = Watching(parts.client, parts.keys, parts.store, listing, parts.hub)
    # After the first page etcd is out of reach.
    reachable = parts.store.snapshots
    pages = 0

    async def snapshots(resources: Sequence[Resource], revision: int, deadline: Deadline) -> list[Snapshot]:
        nonlocal pages
        pages += 1
        if pages > 1:
            raise StoreUnavailableError("it cannot be reached")
        return await reachable(resources, revision, deadline)

    monkeypatch.setattr(parts.store, "snapshots", snapshots)
    watch = watching.watch(WatchQuery("", "", 0), await hands.revision())
    told = [await anext(watch) for _ in range(DETAILS_AT_ONCE)]
    with pytest.raises(WatchInterruptedError) as caught:
        await anext(watch)
    assert caught.value.metadata["resume_revision"] == str(told[-1].revision + 1)
