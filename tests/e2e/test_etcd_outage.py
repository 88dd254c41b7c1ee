"""What becomes of calls, health and watches when etcd, or the service, goes away in each of the ways it can."""

import asyncio
import base64
import contextlib
import http.client
import json
import os
import signal
import time
import uuid
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
from e2e.support_e2e import PROGRAM, Serve, etcdctl, health, is_alive, run, until, until_health, until_true
from e2e.support_etcd import Etcd, StartEtcd
from support import Peer, Refusal, connected, event_name, messages, refusal_of, refused, shutdown_request

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.embedded_binary import EtcdBinary, durability_warning

SERVICE = "n0stack.operation.v1alpha.OperationService"


async def within(seconds: float, call: Awaitable[object]) -> Refusal:
    """A call that has to be refused in so many seconds, whatever its deadline."""
    async with asyncio.timeout(seconds):
        return await refused(call)


def assert_unavailable(refusal: Refusal) -> None:
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "ETCD_UNAVAILABLE")
    assert refusal.metadata["outcome"] in {"unchanged", "unknown"}
    assert refusal.retry_seconds


async def assert_all_calls_are_unavailable_within_the_deadline(peer: Peer) -> None:
    """2 s are given, of which the service keeps 0.25 to answer in: on a busy machine that may be too little.

    Then gRPC itself says DEADLINE_EXCEEDED, without details, and the calls are made again; but not for ever.
    """
    peer.timeout = 2.0
    for _ in range(5):
        answers = await asyncio.gather(
            refused(peer.create("a")),
            refused(peer.propose("b")),
            refused(peer.append("text", "c")),
            refused(peer.complete("d")),
            refused(peer.cancel("e")),
            refused(peer.get("f")),
            refused(peer.list()),
            refused(peer.logs("g")),
            refused(peer.watch().read()),
            return_exceptions=True,
        )
        if not any(isinstance(answer, KeyError) for answer in answers):
            break
    for answer in answers:
        assert isinstance(answer, Refusal), answer
        assert_unavailable(answer)
    peer.timeout = 20.0


class Watch:
    """Reads a watch to its end, and resumes it as a caller does; keeps the logs that it was told of, in order."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._task = asyncio.ensure_future(self._run())
        self.events: list[str] = []
        self.told: list[str] = []
        self.revision = 0
        self.endings: list[Refusal] = []

    async def _run(self) -> None:
        start_revision = 0
        while True:
            call = self._peer.stub.WatchOperations(pb.WatchOperationsRequest(start_revision=start_revision))
            try:
                async for response in call:
                    self.events.append(event_name(response.event))
                    if self.events[-1] == "LOGGED":
                        self.told.append(messages(response.operation.operation)[-1])
                    self.revision = response.revision
            except grpc.aio.AioRpcError as error:
                self.endings.append(refusal_of(error))
                if self.endings[-1].reason == "WATCH_INTERRUPTED":
                    start_revision = int(self.endings[-1].metadata["resume_revision"])
                else:
                    assert_unavailable(self.endings[-1])
                    start_revision = self.revision + 1 if self.revision else 0
                await asyncio.sleep(0.2)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled() and (error := self._task.exception()):
            raise error


async def append_until_done(peer: Peer, message: str) -> None:
    """Append as a caller does that sends again what was not done; an unclear outcome is looked up first."""
    while True:
        try:
            await peer.append(message)
        except grpc.aio.AioRpcError as error:
            assert_unavailable(refusal_of(error))
            if refusal_of(error).metadata["outcome"] == "unknown":
                with contextlib.suppress(grpc.aio.AioRpcError):
                    if message in [log.message for log in (await peer.logs(page_size=1000)).logs]:
                        return
            await asyncio.sleep(0.1)
        else:
            return


async def test_a_service_that_is_there_before_its_etcd_serves_as_soon_as_that_comes(
    start_etcd: StartEtcd, serve: Serve
) -> None:
    etcd = await start_etcd(start=False)
    server = await serve("--etcd-endpoints", etcd.url)
    assert await health(server.address) == "NOT_SERVING"
    assert await health(server.address, SERVICE) == "NOT_SERVING"
    asked = await run(PROGRAM, "health", "--listen", server.address)
    assert (asked.code, asked.out) == (1, f"{server.address} is NOT_SERVING\n")
    async with connected(server.address) as peer:
        await assert_all_calls_are_unavailable_within_the_deadline(peer)
        await etcd.start()
        await until_health(server.address, "SERVING", 10)
        assert await health(server.address, SERVICE) == "SERVING"
        await peer.propose()
        assert await peer.state() == "LOCKED"
    await etcd.kill()
    assert await server.stop() == 0
    assert "Traceback" not in server.log


async def test_a_frozen_etcd_is_unavailable_until_it_thaws_and_a_watch_goes_on_without_a_gap(
    start_etcd: StartEtcd, serve: Serve
) -> None:
    etcd = await start_etcd()
    server = await serve("--etcd-endpoints", etcd.url)
    async with connected(server.address) as peer, connected(server.address) as watcher:
        await peer.propose(lock_for_seconds=600)
        watch = Watch(watcher)
        await until_true(lambda: watch.events == ["LOCKED"])
        await peer.append("before")
        await etcd.freeze()
        await assert_all_calls_are_unavailable_within_the_deadline(peer)
        await until_health(server.address, "NOT_SERVING", 10)
        etcd.thaw()
        await until_health(server.address, "SERVING", 10)
        await append_until_done(peer, "after")
        await until_true(lambda: "after" in watch.told, 15)
        await watch.stop()
        assert watch.told == ["before", "after"]
        assert not watch.endings


async def test_a_watch_survives_a_killed_etcd_and_tells_of_every_change_once(
    start_etcd: StartEtcd, serve: Serve
) -> None:
    etcd = await start_etcd()
    server = await serve("--etcd-endpoints", etcd.url)
    async with connected(server.address) as peer, connected(server.address) as watcher:
        await peer.propose(lock_for_seconds=600)
        fencing_token = peer.fencing_token
        watch = Watch(watcher)
        await until_true(lambda: bool(watch.events))

        async def work() -> None:
            for number in range(60):
                await append_until_done(peer, f"{number}")
                await asyncio.sleep(0.02)

        working = asyncio.ensure_future(work())
        await until_true(lambda: len(watch.told) >= 5)
        await etcd.kill()
        assert not working.done()
        await etcd.start()
        await until_health(server.address, "SERVING", 10)
        await working
        kept = [log.message for log in (await peer.logs(page_size=1000)).logs]
        await until_true(lambda: watch.told[-1:] == ["59"], 15)
        await watch.stop()
        assert watch.told == kept
        if durability_warning(etcd.binary) is None:
            assert kept == [f"{number}" for number in range(60)]
            await peer.propose(fence=fencing_token)


@pytest.mark.timeout(90)
async def test_in_a_long_outage_nothing_hangs_and_a_watch_ends_with_where_to_resume(
    start_etcd: StartEtcd, serve: Serve
) -> None:
    etcd = await start_etcd()
    server = await serve("--etcd-endpoints", etcd.url)
    async with connected(server.address) as peer, connected(server.address) as watcher:
        await peer.propose(lock_for_seconds=600)
        watch = watcher.stub.WatchOperations(pb.WatchOperationsRequest())
        assert event_name((await watch.read()).event) == "LOCKED"
        await peer.append("before")
        revision = (await watch.read()).revision
        await etcd.kill()

        async def without_a_deadline() -> None:
            calls: list[Awaitable[Any]] = [
                peer.stub.GetOperation(pb.GetOperationRequest(project="project", name="a")),
                peer.stub.AppendOperationLog(
                    pb.AppendOperationLogRequest(project="project", name="b", log_message="x", proposing_peer_token="t")
                ),
                peer.stub.CreateOperation(
                    pb.CreateOperationRequest(
                        project="project", name="c", operation_request=shutdown_request(), proposing_peer_token="t"
                    )
                ),
                peer.stub.ListOperations(pb.ListOperationsRequest()),
            ]
            for refusal in await asyncio.gather(*(within(14, call) for call in calls)):
                assert_unavailable(refusal)

        await asyncio.gather(without_a_deadline(), assert_all_calls_are_unavailable_within_the_deadline(peer))
        ending = await within(20, watch.read())
        assert (ending.code, ending.reason) == (grpc.StatusCode.UNAVAILABLE, "WATCH_INTERRUPTED")
        assert int(ending.metadata["resume_revision"]) == revision + 1
        # Once etcd has been away for some seconds, calls do not pile up waiting for it.
        since = time.monotonic()
        assert_unavailable(await refused(peer.get()))
        assert time.monotonic() - since < 5

        await etcd.start()
        await until_health(server.address, "SERVING", 10)
        resumed = watcher.watch(start_revision=revision + 1)
        await append_until_done(peer, "after")
        assert messages((await resumed.read()).operation.operation) == ["before", "after"]
        resumed.cancel()


async def test_an_embedded_etcd_that_is_killed_comes_back_with_everything_that_was_acknowledged(
    serve: Serve, tmp_path: Path, binary: EtcdBinary
) -> None:
    server = await serve()
    async with connected(server.address) as peer, connected(server.address) as watcher:
        await peer.propose(lock_for_seconds=600)
        fencing_token = peer.fencing_token
        watch = Watch(watcher)
        await until_true(lambda: watch.events == ["LOCKED"])
        acknowledged = []
        for round_ in range(2):
            for number in range(20):
                await append_until_done(peer, f"{round_}-{number}")
                acknowledged.append(f"{round_}-{number}")
            _, etcd_pid = map(int, (tmp_path / "data" / "lock").read_text().split())
            os.kill(etcd_pid, signal.SIGKILL)
        await append_until_done(peer, "at the end")
        await until_health(server.address, "SERVING", 15)
        await until_true(lambda: watch.told[-1:] == ["at the end"], 20)
        await watch.stop()
        kept = [log.message for log in (await peer.logs(page_size=1000)).logs]
        assert watch.told == kept or durability_warning(binary) is not None
        if durability_warning(binary) is None:
            assert kept == [*acknowledged, "at the end"]
            await peer.propose(fence=fencing_token)
    assert "serves again" in server.log


async def test_a_killed_service_leaves_no_etcd_behind_and_the_next_one_serves_everything(
    serve: Serve, tmp_path: Path
) -> None:
    server = await serve()
    async with connected(server.address) as peer:
        await peer.create("over")
        await peer.propose("over")
        await peer.complete("over", log_message="done")
        await peer.create("pending")
        await peer.propose("held", lock_for_seconds=600, is_disabled_cancel=True, log_message="working")
        held = await peer.get("held")
    pids = [*map(int, (tmp_path / "data" / "lock").read_text().split())]
    assert pids[0] == server.process.pid
    await server.stop(signal.SIGKILL)
    await until_true(lambda: not any(map(is_alive, pids)), 15)

    again = await serve()
    async with connected(again.address) as peer, connected(again.address, "another") as other:
        assert [await peer.state(name) for name in ("over", "pending", "held")] == ["SUCCEEDED", "PENDING", "LOCKED"]
        record = await peer.get("held")
        assert record.operation == held.operation
        assert record.fencing_token == held.fencing_token
        assert (await refused(other.propose("held"))).reason == "LOCKED"
        await peer.complete("held", fence=held.fencing_token)


async def test_when_etcd_is_out_of_space_changes_are_refused_and_reads_go_on(
    start_etcd: StartEtcd, serve: Serve
) -> None:
    etcd = await start_etcd("--quota-backend-bytes", str(2 * 1024 * 1024))
    server = await serve("--etcd-endpoints", etcd.url)
    async with connected(server.address) as peer:
        await peer.create("pending")
        await peer.propose("held", lock_for_seconds=600)
        await _fill(etcd)
        changes = {
            "create": peer.create("new"),
            "propose": peer.propose("new"),
            "take up": peer.propose("pending"),
            "renew": peer.propose("held"),
            "append": peer.append("text", "held"),
            "complete": peer.complete("held"),
            "cancel": peer.cancel("pending"),
        }
        for what, change in changes.items():
            refusal = await refused(change)
            assert (refusal.code, refusal.reason) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "ETCD_OUT_OF_SPACE",
            ), what
        assert await peer.state("pending") == "PENDING"
        assert await peer.state("held") == "LOCKED"
        assert [record.name for record in (await peer.list()).operations] == ["held", "pending"]
        watch = peer.watch()
        assert event_name((await watch.read()).event) == "CREATED"
        watch.cancel()
        assert await health(server.address) == "SERVING"

        await _make_room(etcd)

        async def works_again() -> bool:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await peer.append("there is room again", "held")
                return True
            return False

        await until(works_again)


async def _fill(etcd: Etcd) -> None:
    """Write what is none of the service's until etcd raises its alarm, and is larger than its quota by far."""
    refused_puts = 0
    while not refused_puts:
        # At once, as a busy cluster would: etcd sees what it has taken only when it has written it to its disk.
        answers = await asyncio.gather(*(asyncio.to_thread(_put_filler, etcd) for _ in range(40)))
        refused_puts = sum("database space exceeded" in answer for answer in answers)
    assert "NOSPACE" in await etcdctl(etcd.url, "alarm", "list")


def _put_filler(etcd: Etcd) -> str:
    connection = http.client.HTTPConnection(etcd.url.removeprefix("http://"), timeout=20)
    with contextlib.closing(connection):
        key = base64.b64encode(f"/filler/{uuid.uuid4()}".encode()).decode()
        value = base64.b64encode(b"x" * 100_000).decode()
        connection.request("POST", "/v3/kv/put", json.dumps({"key": key, "value": value}))
        return connection.getresponse().read().decode()


async def _make_room(etcd: Etcd) -> None:
    """What etcd's operator does: delete, compact, defragment, disarm."""
    await etcdctl(etcd.url, "del", "--prefix", "/filler/")
    revision = (await etcdctl(etcd.url, "get", "/filler/", "--write-out=json")).partition('"revision":')[2]
    await etcdctl(etcd.url, "compact", revision.partition(",")[0])
    await etcdctl(etcd.url, "defrag")
    await etcdctl(etcd.url, "alarm", "disarm")
