"""Watches that end, break and come back: from where they go on, and what they are told of the past."""

import asyncio
import http.client
import logging

import grpc
import pytest
from etcd_hands import EtcdHands
from support import (
    NAME,
    Peer,
    TestClock,
    connected,
    refused,
)
from waiting import soon
from watches import read, told

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.server import running
from operation_service.settings import Settings


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


@pytest.fixture
def begins_with_the_present(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas that start from now on know nothing of the past: a watch of it has to read etcd's history itself."""
    monkeypatch.setattr("operation_service.watch_hub._BACK_REVISIONS", 0)


@pytest.fixture(params=[0, 5_000], ids=["with the present", "in the past"])
def where_a_replica_begins(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Whether a watch of the past reads etcd's history itself, or its replica has heard of that already."""
    monkeypatch.setattr("operation_service.watch_hub._BACK_REVISIONS", request.param)


@pytest.mark.usefixtures("where_a_replica_begins")
async def test_a_resumed_watch_reads_what_the_service_has_not_seen_itself(
    peer: Peer, etcd: str, settings: Settings, hands: EtcdHands
) -> None:
    """A replica that started after the changes tells them all the same, then goes on with what happens."""
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
    # The last of them completes the revision. etcd's own may be later by now: locks of other tests run out.
    assert [rest[-1].revision - each.revision for each in rest] == [1, 1, 0]
    assert rest[-1].revision <= await hands.revision()


async def test_a_compacted_revision_is_out_of_range_and_says_so(
    peer: Peer, etcd: str, settings: Settings, hands: EtcdHands
) -> None:
    await peer.propose()
    await peer.append()
    compacted = await hands.compact()
    async with running(settings, [etcd]) as replica, connected(replica.address) as late_peer:
        # What was deleted at the very last of these is not told by etcd any more.
        for start in (1, 2, compacted - 1, compacted):
            refusal = await refused(late_peer.watch(start_revision=start).read())
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_COMPACTED")
            assert refusal.metadata["compact_revision"] == str(compacted)
            assert f"must be greater than {compacted}," in refusal.message
            assert "start_revision 0" in refusal.message
        await late_peer.append()
        assert (await late_peer.watch(start_revision=compacted + 1).read()).revision > compacted


async def test_a_watch_from_the_future_is_out_of_range(peer: Peer, hands: EtcdHands) -> None:
    current = await hands.revision()
    refusal = await refused(peer.watch(start_revision=current + 1000).read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_IN_FUTURE")
    refusal = await refused(peer.watch(start_revision=2**63 - 1).read())
    assert refusal.code == grpc.StatusCode.OUT_OF_RANGE


async def test_watches_end_with_where_to_resume_when_the_service_stops(etcd: str, settings: Settings) -> None:
    async with running(settings, [etcd]) as service, connected(service.address) as peer:
        watch = await peer.watching()
        await peer.propose("vm")
        (seen,) = await read(watch, 1)
        service.watching.stop()
        refusal = await refused(watch.read())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "WATCH_INTERRUPTED")
        assert refusal.metadata["resume_revision"] == str(seen.revision + 1)


@pytest.mark.usefixtures("begins_with_the_present")
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
