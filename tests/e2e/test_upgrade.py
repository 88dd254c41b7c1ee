"""An upgrade while clients hold locks loses nothing: two versions side by side on one etcd, and back again."""

import asyncio
import contextlib
import os
import signal
import sys
import tarfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import grpc
import pytest
from e2e.support_e2e import ROOT, Serve, Server, environment, etcdctl, health, until, until_health
from support import Peer, connected, event_name, refusal_of, refused

_EARLIER = "4bd5319"
"""The last commit that knew nothing of a layout's number."""
_SECONDS = 6
_NAMES = [f"vm/{number}" for number in range(6)]


async def _git(*words: str) -> bytes | None:
    try:
        process = await asyncio.create_subprocess_exec(
            "git", "-C", ROOT, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except FileNotFoundError:
        return None
    out, _ = await process.communicate()
    return out if process.returncode == 0 else None


@pytest.fixture(scope="module")
async def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the earlier version."""
    archive = await _git("archive", _EARLIER, "src")
    if archive is None:
        if os.environ.get("UPGRADE_HISTORY_IS_NEEDED") == "1":
            pytest.fail(f"the commit {_EARLIER} is not in this clone's history, and UPGRADE_HISTORY_IS_NEEDED=1")
        pytest.skip(f"the commit {_EARLIER}, to upgrade from, is not in this clone's history")
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder / "src"


@dataclass
class Earlier:
    """Starts replicas of the earlier version."""

    source: Path
    folder: Path
    etcd: str
    prefix: str
    servers: list[Server] = field(default_factory=list)

    async def serve(self) -> Server:
        log_path = self.folder / f"earlier-{len(self.servers)}.log"
        code = "from operation_service.cli import main; main()"
        flags = ("--listen", "127.0.0.1:0", "--etcd-endpoints", self.etcd, "--key-prefix", self.prefix)
        with log_path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", code, "serve", *flags),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(PYTHONPATH=str(self.source)),
            )
        self.servers.append(Server(process, log_path))
        return await self.servers[-1].serving()


@pytest.fixture
async def old(earlier: Path, tmp_path: Path, etcd: str, settings: object) -> AsyncIterator[Earlier]:
    starter = Earlier(earlier, tmp_path, etcd, getattr(settings, "key_prefix", ""))
    yield starter
    for server in starter.servers:
        await server.stop(signal.SIGKILL)


@dataclass
class Hold:
    """A lock that is renewed all the time, with its fencing token, by way of the replicas that are there."""

    name: str
    ways: list[Peer]
    fence: int = 0
    renewed_by: set[int] = field(default_factory=set)

    async def take(self) -> None:
        peer = self.ways[0].named(self.name)
        await peer.propose(self.name, lock_for_seconds=_SECONDS, log_message="taken")
        assert peer.fencing_token
        self.fence = peer.fencing_token

    async def keep(self, is_over: asyncio.Event) -> None:
        turn = 0
        while not is_over.is_set():
            turn += 1
            at = turn % len(self.ways)
            peer = self.ways[at].named(self.name)
            try:
                await peer.propose(self.name, lock_for_seconds=_SECONDS, fence=self.fence)
            except grpc.aio.AioRpcError as error:
                # A replica that has stopped; the lock itself is never lost.
                if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
                    raise AssertionError(refusal_of(error)) from error
            else:
                assert peer.fencing_token == self.fence
                self.renewed_by.add(at)
            await asyncio.sleep(0.1)


async def _hand_over(first: Server, second: Server, seen: str) -> None:
    """Hold locks at both, watch at both, stop the first, and see that nothing was lost."""
    async with contextlib.AsyncExitStack() as stack:
        ways = [await stack.enter_async_context(connected(each.address)) for each in (first, second)]
        watches = [await way.watching(project="project", name_prefix=f"{seen}/", start_revision=0) for way in ways]
        holds = [Hold(name, ways) for name in _NAMES]
        for hold in holds:
            await hold.take()
        is_over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for hold in holds:
                group.create_task(hold.keep(is_over))
            await until(lambda: _all(hold.renewed_by == {0, 1} for hold in holds))
            # Each hears what is done by way of the other.
            await ways[0].propose(f"{seen}/by-first", lock_for_seconds=600)
            await ways[1].named("b").propose(f"{seen}/by-second", lock_for_seconds=600)
            for watch in watches:
                told = [await watch.read() for _ in range(2)]
                assert [event_name(each.event) for each in told] == ["LOCKED", "LOCKED"]
                assert [each.operation.name for each in told] == [f"{seen}/by-first", f"{seen}/by-second"]
            stranger = ways[1].named("stranger")
            assert {(await refused(stranger.propose(name))).reason for name in _NAMES} == {"LOCKED"}
            assert await first.stop() == 0
            for hold in holds:
                hold.renewed_by.clear()
            await until(lambda: _all(1 in hold.renewed_by for hold in holds))
            is_over.set()
        for hold in holds:
            record = await ways[1].get(hold.name)
            assert record.fencing_token == hold.fence
            assert [log.message for log in record.operation.logs] == ["taken"]
            # Its holder ends it at the one that is left.
            await ways[1].named(hold.name).complete(hold.name, fence=hold.fence)
        await ways[1].named("b").complete(f"{seen}/by-second")
        await ways[1].complete(f"{seen}/by-first")


async def _all(conditions: Iterable[bool]) -> bool:
    return all(conditions)


async def test_an_upgrade_while_clients_hold_locks_loses_nothing_and_neither_does_the_way_back(
    old: Earlier, serve: Serve
) -> None:
    first = await old.serve()
    async with connected(first.address) as peer:
        await peer.named("long").propose("vm/from-before", lock_for_seconds=3_600, log_message="from before")
    assert await etcdctl(old.etcd, "get", f"{old.prefix}layout") == ""
    second = await serve("--etcd-endpoints", old.etcd, "--key-prefix", old.prefix)
    assert await etcdctl(old.etcd, "get", f"{old.prefix}layout", "--print-value-only") == "1\n"
    await _hand_over(first, second, "seen")
    back = await old.serve()
    await _hand_over(second, back, "seen-again")
    async with connected(back.address) as peer:
        record = await peer.get("vm/from-before")
        assert record.remaining.seconds > 3_000
        assert [log.message for log in record.operation.logs] == ["from before"]


async def test_a_newer_layout_is_refused_with_one_line_and_exit_code_2(
    etcd: str, serve: Serve, settings: object
) -> None:
    prefix = getattr(settings, "key_prefix", "")
    await etcdctl(etcd, "put", f"{prefix}layout", "2")
    for workers in ("1", "2"):
        server = await serve("--etcd-endpoints", etcd, "--key-prefix", prefix, "--workers", workers, wait=False)
        assert await server.exit_code() == 2
        line = next(each for each in server.log.splitlines() if "newer version" in each)
        assert "layout 2" in line
        assert "this version knows 1" in line
        assert "run that newer version" in line
        assert "Traceback" not in server.log


async def test_an_etcd_that_comes_late_is_looked_at_before_anything_is_changed(
    serve: Serve, start_etcd: object
) -> None:
    late = await start_etcd(start=False)  # type: ignore[operator]
    server = await serve("--etcd-endpoints", late.url)
    assert await health(server.address) == "NOT_SERVING"
    await late.start()
    await etcdctl(late.url, "put", "/n0stack/operation/layout", "7")
    async with connected(server.address) as peer:

        async def is_told() -> bool:
            return "newer version" in (await refused(peer.propose())).message

        await until(is_told)
        await until_health(server.address, "NOT_SERVING")
        assert await etcdctl(late.url, "get", "--prefix", "/n0stack/operation/records/") == ""
