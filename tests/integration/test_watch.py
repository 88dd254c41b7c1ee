"""WatchOperations: what is there, then every change, with no gap and no duplicate; and how it ends."""

import asyncio
import contextlib
import http.client
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from etcd_hands import EtcdHands
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status
from support import (
    NAME,
    PROJECT,
    Peer,
    TestClock,
    connected,
    event_name,
    messages,
    refused,
    shutdown_request,
    state_name,
)
from waiting import soon

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.changes import Occurrence
from operation_service.clock import Deadline
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
from operation_service.leases import Leases
from operation_service.listing import DETAILS_AT_ONCE, Listing
from operation_service.lock_times import LockTimes
from operation_service.model import Event, Resource, Snapshot
from operation_service.server import running
from operation_service.settings import Settings
from operation_service.watch_hub import WatchHub
from operation_service.watching import Watching, WatchQuery


async def read(watch: Any, count: int) -> list[pb.WatchOperationsResponse]:
    """Read so many messages."""
    async with asyncio.timeout(20):
        return [await watch.read() for _ in range(count)]


def told(responses: list[pb.WatchOperationsResponse]) -> list[str]:
    return [f"{event_name(response.event)} {response.operation.name}" for response in responses]


async def test_first_what_is_there_one_event_each_that_fits_its_state(peer: Peer, hands: EtcdHands) -> None:
    await peer.create("pending")
    await peer.propose("locked")
    await peer.propose("dead", is_disabled_cancel=True)
    await hands.let_lock_run_out("dead")
    await peer.propose("expired")
    await hands.let_lock_run_out("expired")
    await peer.propose("succeeded")
    await peer.complete("succeeded")
    await peer.propose("failed")
    await peer.complete("failed", error=Status(code=Code.ABORTED))
    await peer.propose("cancelled")
    await peer.cancel("cancelled")

    responses = await read(peer.watch(), 7)

    assert sorted(told(responses)) == [
        "CANCELLED cancelled",
        "CREATED pending",
        "EXPIRED expired",
        "FAILED failed",
        "LOCKED locked",
        "OPERATOR_DEAD dead",
        "SUCCEEDED succeeded",
    ]


async def test_then_every_change_as_it_happens(peer: Peer, hands: EtcdHands) -> None:
    watch = await peer.watching(project=PROJECT)
    await peer.create("vm", log_message="requested")
    await peer.propose("vm", is_disabled_cancel=True)
    await peer.propose("vm", is_disabled_cancel=True)
    await peer.append("a step", "vm")
    await hands.let_lock_run_out("vm")
    await peer.propose("vm")
    await hands.let_lock_run_out("vm")
    await peer.propose("vm")
    await peer.cancel("vm")
    await peer.named("other").create("vm", lock_for_seconds=30)
    await peer.named("other").complete("vm")

    responses = await read(watch, 11)

    assert [event.split()[0] for event in told(responses)] == [
        "CREATED",
        "LOCKED",
        "RENEWED",
        "LOGGED",
        "OPERATOR_DEAD",
        "LOCKED",
        "EXPIRED",
        "LOCKED",
        "CANCELLED",
        "LOCKED",
        "SUCCEEDED",
    ]


async def test_each_event_shows_the_operation_as_it_was_after_the_change(peer: Peer, hands: EtcdHands) -> None:
    watch = await peer.watching()
    await peer.create(log_message="requested")
    await peer.propose(log_message="begin", is_disabled_cancel=True)
    await peer.append("a step")
    await hands.let_lock_run_out("virtual_machines/web-1")

    created, locked, logged, dead = [response.operation for response in await read(watch, 4)]

    assert created.operation.operation_request == shutdown_request()
    assert [state_name(each.state) for each in (created, locked, logged, dead)] == [
        "PENDING",
        "LOCKED",
        "LOCKED",
        "OPERATOR_DEAD",
    ]
    assert messages(created.operation) == ["requested"]
    assert messages(locked.operation) == ["requested", "begin"]
    assert messages(dead.operation) == ["requested", "begin", "a step"]
    assert dead.operation.is_disabled_cancel
    assert dead.operation.HasField("locked_until")
    assert not dead.HasField("remaining")
    assert logged.HasField("remaining")
    assert logged.fencing_token == dead.fencing_token == peer.fencing_token


async def test_a_lock_that_runs_out_is_told_without_anybody_asking(peer: Peer) -> None:
    watch = await peer.watching()
    await peer.propose(lock_for_seconds=2, is_disabled_cancel=True)
    assert told(await read(watch, 2)) == ["LOCKED virtual_machines/web-1", "OPERATOR_DEAD virtual_machines/web-1"]


async def test_filters_by_project_and_prefix(peer: Peer) -> None:
    watches = [
        await peer.watching(project="other"),
        await peer.watching(name_prefix="vm/"),
        await peer.watching(project=PROJECT, name_prefix="n"),
    ]
    await peer.propose("vm/a")
    await peer.propose("vm/b", project="other")
    await peer.propose("net/c")
    assert told(await read(watches[0], 1)) == ["LOCKED vm/b"]
    assert told(await read(watches[1], 2)) == ["LOCKED vm/a", "LOCKED vm/b"]
    assert told(await read(watches[2], 1)) == ["LOCKED net/c"]


async def test_no_gap_and_no_duplicate_between_what_is_there_and_what_follows(peer: Peer) -> None:
    """Watches begin while changes are under way; each sees every later change of what it was told, once."""
    await peer.propose("vm")
    sent = [f"step {number}" for number in range(60)]

    async def work() -> None:
        for message in sent:
            await peer.append(message, "vm")

    working = asyncio.create_task(work())
    watches = []
    for _ in range(10):
        watches.append(peer.watch())
        await asyncio.sleep(0.005)
    await working
    for watch in watches:
        (first,) = await read(watch, 1)
        seen = list(messages(first.operation.operation))
        while len(seen) < len(sent):
            (following,) = await read(watch, 1)
            seen.append(messages(following.operation.operation)[-1])
        assert seen == sent
        watch.cancel()


async def test_a_watch_that_broke_is_resumed_at_the_last_revision_plus_1(peer: Peer) -> None:
    watch = await peer.watching()
    names = [f"vm/{number}" for number in range(20)]
    for name in names:
        await peer.propose(name)
    seen = await read(watch, 7)
    watch.cancel()
    seen += await read(peer.watch(start_revision=seen[-1].revision + 1), 13)
    assert told(seen) == [f"LOCKED {name}" for name in names]


async def test_a_watch_that_broke_while_told_what_is_there_misses_nothing(peer: Peer, hands: EtcdHands) -> None:
    names = [f"vm/{number}" for number in range(9)]
    for name in reversed(names):
        await peer.propose(name)
    for stop_after in range(1, 10):
        watch = await peer.watching()
        seen = await read(watch, stop_after)
        watch.cancel()
        rest = peer.watch(start_revision=seen[-1].revision + 1)
        seen += await read(rest, 9 - stop_after)
        assert sorted(told(seen)) == [f"LOCKED {name}" for name in names]
        rest.cancel()
    assert seen[-1].revision <= await hands.revision()


async def test_a_resumed_watch_reads_what_the_service_has_not_seen_itself(
    peer: Peer, etcd: str, settings: Settings, hands: EtcdHands
) -> None:
    """A replica that started after the changes tells them from etcd's history, then goes on with what happens."""
    start = await hands.revision() + 1
    await peer.create("vm", log_message="requested")
    await peer.propose("vm", is_disabled_cancel=True)
    await hands.let_lock_run_out("vm")
    async with running(settings, [etcd]) as replica, connected(replica.address) as late_peer:
        watch = await late_peer.watching(start_revision=start)
        assert told(await read(watch, 3)) == ["CREATED vm", "LOCKED vm", "OPERATOR_DEAD vm"]
        await peer.propose("vm")
        await late_peer.append("a step", "vm")
        assert told(await read(watch, 2)) == ["LOCKED vm", "LOGGED vm"]
        watch.cancel()


async def test_things_that_happen_in_one_revision_are_all_told_after_a_break(peer: Peer, hands: EtcdHands) -> None:
    for name in ("vm/a", "vm/b", "vm/c"):
        await peer.propose(name)
    watch = await peer.watching(start_revision=await hands.revision() + 1)
    await hands.delete_below("locks/")
    first = await read(watch, 2)
    watch.cancel()
    rest = await read(peer.watch(start_revision=first[-1].revision + 1), 3)
    assert told(first + rest)[-1] == "EXPIRED vm/c"
    assert {"EXPIRED vm/a", "EXPIRED vm/b", "EXPIRED vm/c"} == set(told(first + rest))
    assert rest[-1].revision == await hands.revision()


async def test_a_compacted_revision_is_out_of_range_and_says_so(
    peer: Peer, etcd: str, settings: Settings, hands: EtcdHands
) -> None:
    await peer.propose()
    await peer.append()
    compacted = await hands.compact()
    async with running(settings, [etcd]) as replica, connected(replica.address) as late_peer:
        refusal = await refused(late_peer.watch(start_revision=1).read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_COMPACTED")
    assert int(refusal.metadata["compact_revision"]) >= compacted
    assert "start_revision 0" in refusal.message


async def test_a_watch_from_the_future_is_out_of_range(peer: Peer, hands: EtcdHands) -> None:
    current = await hands.revision()
    refusal = await refused(peer.watch(start_revision=current + 1000).read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_IN_FUTURE")
    refusal = await refused(peer.watch(start_revision=2**63 - 1).read())
    assert refusal.code == grpc.StatusCode.OUT_OF_RANGE


async def test_a_change_through_one_replica_is_told_by_another(peer: Peer, etcd: str, settings: Settings) -> None:
    async with running(settings, [etcd]) as replica, connected(replica.address) as there:
        watch = await there.watching()
        await peer.propose("vm")
        assert told(await read(watch, 1)) == ["LOCKED vm"]
        watch.cancel()


async def test_watches_end_with_where_to_resume_when_the_service_stops(etcd: str, settings: Settings) -> None:
    async with running(settings, [etcd]) as service, connected(service.address) as peer:
        watch = await peer.watching()
        await peer.propose("vm")
        (seen,) = await read(watch, 1)
        service.watching.stop()
        refusal = await refused(watch.read())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "WATCH_INTERRUPTED")
        assert refusal.metadata["resume_revision"] == str(seen.revision + 1)


async def test_a_record_spoilt_by_hand_silences_no_watch(peer: Peer, hands: EtcdHands) -> None:
    watch = await peer.watching()
    await peer.propose("vm/spoilt")
    await hands.put(f"records/{PROJECT}/vm/spoilt", b"not json")
    await peer.propose("vm/sound")
    assert told(await read(watch, 2)) == ["LOCKED vm/spoilt", "LOCKED vm/sound"]
    refusal = await refused(peer.get("vm/spoilt"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.DATA_LOSS, "CORRUPT_RECORD")
    assert refusal.metadata["key"].endswith("vm/spoilt")


async def test_many_watchers_are_told_the_same(peer: Peer) -> None:
    watches = [await peer.watching() for _ in range(50)]
    for number in range(10):
        await peer.propose(f"vm/{number}")
    for watch in watches:
        assert told(await read(watch, 10)) == [f"LOCKED vm/{number}" for number in range(10)]
        watch.cancel()


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
    store = EtcdStore(client, keys, Leases(client, clock, 60), times, clock)
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


async def test_watchers_that_do_not_read_keep_nobody_else_from_watching(peer: Peer, address: str) -> None:
    request = shutdown_request()
    request.value = b"x" * 200_000
    for number in range(30):
        await peer.create(f"vm/{number:02}", operation_request=request)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(6):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
            await Peer(channel).watch().read()
        assert told(await read(peer.watch(name_prefix="vm/01"), 1)) == ["CREATED vm/01"]


async def test_a_caller_that_goes_away_from_etcds_history_leaves_nothing_behind(
    peer: Peer, etcd: str, settings: Settings, hands: EtcdHands, caplog: pytest.LogCaptureFixture
) -> None:
    start = await hands.revision() + 1
    await peer.create("vm")
    await hands.put("elsewhere", b"so that a replica that starts now does not cover the creation")
    async with running(settings, [etcd]) as replica, connected(replica.address) as late_peer:
        watch = await late_peer.watching(start_revision=start)
        assert told(await read(watch, 1)) == ["CREATED vm"]
        watch.cancel()

        async def is_over() -> bool:
            return not any("EtcdWatch.batches" in repr(task) and "_for_ever" not in repr(task) for task in histories())

        assert await soon(is_over)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def histories() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if "anext" in repr(task) or "asend" in repr(task)]


async def test_a_log_spoilt_by_hand_ends_no_watch(peer: Peer, hands: EtcdHands) -> None:
    await peer.propose("vm", log_message="one")
    watch = await peer.watching(start_revision=await hands.revision() + 1)
    (log,) = await hands.keys("details/")
    await hands.put(log, b"not json")
    assert messages(await peer.propose("vm", log_message="two"))[-1] == "two"
    (renewed,) = await read(watch, 1)
    assert messages(renewed.operation.operation)[-1] == "two"


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
    change = Occurrence(RESOURCE, Event.LOGGED, then.record_revision, then.record_revision, then.record, then.lock)
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
    listing = Listing(parts.client, parts.keys, parts.store)
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


def watchers_of(etcd: str) -> float:
    """How many watches an etcd serves, by its own word."""
    connection = http.client.HTTPConnection(etcd.removeprefix("http://"), timeout=10)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    (value,) = (line.split()[1] for line in lines if line.startswith("etcd_debugging_mvcc_watcher_total "))
    return float(value)


async def test_watches_that_come_back_after_a_restart_share_the_one_watch_of_etcd(
    etcd: str, settings: Settings, hands: EtcdHands
) -> None:
    async with running(settings, [etcd]) as service, connected(service.address) as peer:
        watch = await peer.watching()
        await peer.propose()
        last = (await watch.read()).revision
        watch.cancel()
    # What happens meanwhile to other keys of the same etcd is no news for anybody here.
    for _ in range(3):
        await hands.put("foreign", b"x")
    others = await asyncio.to_thread(watchers_of, etcd)
    async with running(settings, [etcd]) as service, connected(service.address) as peer:

        async def hub_stands() -> bool:
            return await asyncio.to_thread(watchers_of, etcd) == others + 1

        assert await soon(hub_stands)
        watches = [await peer.watching(start_revision=last + 1) for _ in range(20)]
        # Time for those to begin that must not.
        await asyncio.sleep(0.5)
        assert await hub_stands()
        await peer.append("since then")
        for watch in watches:
            assert (await watch.read()).event == pb.OPERATION_EVENT_LOGGED


async def test_what_a_replica_hears_of_the_past_is_no_news_of_locks(
    peer: Peer, etcd: str, settings: Settings, hands: EtcdHands
) -> None:
    """It would take a lock of long ago for one that was taken just now."""
    before = await hands.revision()
    await peer.propose(lock_for_seconds=600)
    clock = TestClock()
    clock.push(seconds=300)
    async with running(settings, [etcd], clock) as service, connected(service.address) as late:
        watch = await late.watching(start_revision=before + 1)
        assert (await watch.read()).operation.name == NAME
        (record,) = (await late.list()).operations
        # By the wall clocks, which is all that there is to go by in a list: the lease was not asked.
        assert record.remaining.ToTimedelta().total_seconds() < 310
