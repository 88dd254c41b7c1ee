"""WatchOperations: what is there, then every change, with no gap and no duplicate."""

import asyncio
import contextlib

import grpc
from etcd_hands import EtcdHands
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status
from support import (
    PROJECT,
    Peer,
    connected,
    messages,
    refused,
    shutdown_request,
    state_name,
)
from watches import read, told

from operation_service.server import running
from operation_service.settings import Settings


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


async def test_a_change_through_one_replica_is_told_by_another(peer: Peer, etcd: str, settings: Settings) -> None:
    async with running(settings, [etcd]) as replica, connected(replica.address) as there:
        watch = await there.watching()
        await peer.propose("vm")
        assert told(await read(watch, 1)) == ["LOCKED vm"]
        watch.cancel()


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


async def test_a_log_spoilt_by_hand_ends_no_watch(peer: Peer, hands: EtcdHands) -> None:
    await peer.propose("vm", log_message="one")
    watch = await peer.watching(start_revision=await hands.revision() + 1)
    (log,) = await hands.keys("details/")
    await hands.put(log, b"not json")
    assert messages(await peer.propose("vm", log_message="two"))[-1] == "two"
    (renewed,) = await read(watch, 1)
    assert messages(renewed.operation.operation)[-1] == "two"
