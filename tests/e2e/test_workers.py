"""`--workers N`: several processes serve on one port as one service, and live and end together."""

import asyncio
import contextlib
import os
import re
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from e2e.support_e2e import DESCRIPTOR_SET, PROGRAM, Serve, Server, health, is_alive, run, until_true, watch_health
from e2e.support_etcd import StartEtcd
from grpc_health.v1.health_pb2 import HealthCheckResponse
from support import Peer, Refusal, connected, messages, refusal_of, refused
from waiting import soon

from operation_service.embedded_binary import EtcdBinary

ESTABLISHED = "01"
MANY = 200
"""Connections: that the kernel gives all of them to one of two workers happens once in 10^60."""

READY = re.compile(r"worker (\d+) is ready \(process (\d+)\)")


def workers_of(server: Server) -> dict[int, int]:
    """The latest process of each worker, by its number."""
    return {int(number): int(pid) for number, pid in READY.findall(server.log)}


def children_of(pid: int) -> list[int]:
    """The processes that the main thread of a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def sockets_of(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found |= set(re.findall(r"socket:\[(\d+)\]", str(descriptor.readlink())))
    return found


def connections(port: int) -> dict[int, str]:
    """The inode of the service's end of each connection to a port, by the caller's port."""
    found = {}
    # gRPC has sockets for both families, also for IPv4 alone.
    lines = [line for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()]
    for line in lines:
        fields = line.split()
        _, local, remote, state = fields[:4]
        if state == ESTABLISHED and int(local.split(":")[1], 16) == port:
            found[int(remote.split(":")[1], 16)] = fields[9]
    return found


@dataclass
class Reached:
    """A connection, and the worker that it has reached."""

    peer: Peer
    pid: int


@contextlib.asynccontextmanager
async def reaching_both(server: Server, prefix: str = "peer") -> AsyncIterator[list[Reached]]:
    """Connect until each of two workers has two connections at least."""
    port = int(server.address.rpartition(":")[2])
    pids = set(workers_of(server).values())
    reached: list[Reached] = []
    async with contextlib.AsyncExitStack() as stack:
        while min(sum(each.pid == pid for each in reached) for pid in pids) < 2:
            assert len(reached) < MANY, reached
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.address, options=options))
            peer = Peer(channel, f"{prefix}-{len(reached)}")
            # Its address is the holder of what it proposes.
            name = f"connections/{uuid.uuid4().hex}"
            await peer.propose(name)
            caller = int((await peer.get(name)).holder.rpartition(":")[2])
            inode = connections(port)[caller]
            (pid,) = [pid for pid in pids if inode in sockets_of(pid)]
            reached.append(Reached(peer, pid))
        yield reached


@pytest.fixture
async def server(etcd: str, serve: Serve) -> Server:
    return await serve("--workers", "2", "--etcd-endpoints", etcd, "--key-prefix", f"/workers/{uuid.uuid4().hex}/")


async def until_gone(*pids: int) -> None:
    await until_true(lambda: not any(map(is_alive, pids)))


# --- one service


async def test_connections_reach_both_workers_and_a_lock_of_one_is_seen_by_the_other(server: Server) -> None:
    assert len(set(workers_of(server).values()) - {server.process.pid}) == 2
    async with reaching_both(server) as reached:
        one = reached[0]
        other = next(each for each in reached if each.pid != one.pid)
        await one.peer.propose("vm", lock_for_seconds=60)
        refusal = await refused(other.peer.propose("vm"))
        assert refusal.reason == "LOCKED"
        assert (await other.peer.get("vm")).operation.proposing_peer_token == one.peer.token
        await other.peer.named(one.peer.token).complete("vm")
        assert await one.peer.state("vm") == "SUCCEEDED"


async def test_of_all_who_propose_at_once_exactly_one_wins(server: Server) -> None:
    async with reaching_both(server) as reached:
        for number in range(5):
            name = f"raced/{number}"
            racers = [each.peer.named(f"{each.peer.token}-{turn}") for turn in range(8) for each in reached]
            outcomes = await asyncio.gather(
                *(racer.propose(name, lock_for_seconds=60) for racer in racers), return_exceptions=True
            )
            reasons = [refusal_of(each).reason for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
            assert reasons == ["LOCKED"] * (len(racers) - 1)
            (winner,) = [
                racer.token for racer, each in zip(racers, outcomes, strict=True) if not isinstance(each, BaseException)
            ]
            assert {(await each.peer.get(name)).operation.proposing_peer_token for each in reached} == {winner}


async def test_a_watch_at_one_worker_sees_what_is_done_at_the_other(server: Server) -> None:
    async with reaching_both(server) as reached:
        one = reached[0]
        other = next(each for each in reached if each.pid != one.pid)
        watch = one.peer.watch(name_prefix="watched/")
        await other.peer.propose("watched/vm")
        assert (await watch.read()).operation.operation.proposing_peer_token == other.peer.token
        watch.cancel()


async def test_it_says_once_that_it_serves_and_its_workers_lines_say_which_one_it_is(server: Server) -> None:
    assert sorted(workers_of(server)) == [1, 2]
    assert await server.stop() == 0
    lines = server.log.splitlines()
    assert len([line for line in lines if "serving" in line]) == 1
    assert "2 workers" in server.log
    for number in (1, 2):
        assert len([line for line in lines if f" worker {number} operation_service.server: stopping" in line]) == 1
    assert "Traceback" not in server.log


async def test_workers_may_be_told_by_a_variable(etcd: str, serve: Serve) -> None:
    server = await serve("--etcd-endpoints", etcd, OPERATION_SERVICE_WORKERS="3")
    assert sorted(workers_of(server)) == [1, 2, 3]


async def test_one_worker_is_the_process_itself(etcd: str, serve: Serve) -> None:
    server = await serve("--etcd-endpoints", etcd, "--workers", "1")
    assert workers_of(server) == {}
    assert not children_of(server.process.pid)


async def test_an_embedded_etcd_is_started_once_for_all(serve: Serve, tmp_path: Path) -> None:
    server = await serve("--workers", "2")
    service_pid, etcd_pid = map(int, (tmp_path / "data" / "lock").read_text().split())
    assert service_pid == server.process.pid
    async with reaching_both(server) as reached:
        await reached[0].peer.propose("vm", lock_for_seconds=60)
        for each in reached[1:]:
            assert (await refused(each.peer.propose("vm"))).reason == "LOCKED"
    pids = workers_of(server).values()
    assert await server.stop() == 0
    assert not any(map(is_alive, (*pids, etcd_pid)))
    assert "Traceback" not in server.log


async def test_an_embedded_etcd_that_is_killed_is_started_again_under_its_workers(serve: Serve, tmp_path: Path) -> None:
    server = await serve("--workers", "2")
    os.kill(int((tmp_path / "data" / "lock").read_text().split()[1]), signal.SIGKILL)
    await until_true(lambda: "the embedded etcd serves again" in server.log)
    async with connected(server.address) as peer:

        async def has_proposed() -> bool:
            await peer.propose()
            return True

        assert await soon(has_proposed)


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost", "[::]", "[::1]"])  # noqa: S104
async def test_all_hosts_serve_that_serve_without_workers(host: str, etcd: str, serve: Serve) -> None:
    server = await serve("--workers", "2", "--etcd-endpoints", etcd, "--listen", f"{host}:0", "--insecure")
    assert not server.address.endswith(":0")
    reachable = server.address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")  # noqa: S104
    assert await health(reachable) == "SERVING"


# --- what is wrong


@pytest.mark.parametrize("more", [(), ("--workers", "2")], ids=str)
async def test_a_port_in_use_by_workers_is_refused(server: Server, etcd: str, more: tuple[str, ...]) -> None:
    finished = await run(PROGRAM, "serve", "--listen", server.address, "--etcd-endpoints", etcd, *more)
    (line,) = finished.err_lines
    assert finished.code == 2
    assert "--listen" in line
    assert server.address in line
    assert await health(server.address) == "SERVING"


async def test_workers_are_refused_a_port_in_use_by_a_service_alone(etcd: str, serve: Serve) -> None:
    alone = await serve("--etcd-endpoints", etcd)
    finished = await run(PROGRAM, "serve", "--listen", alone.address, "--etcd-endpoints", etcd, "--workers", "2")
    (line,) = finished.err_lines
    assert finished.code == 2
    assert alone.address in line


async def test_a_port_stays_the_supervisor_s_while_no_worker_has_it(server: Server, etcd: str) -> None:
    for pid in workers_of(server).values():
        os.kill(pid, signal.SIGKILL)
    finished = await run(PROGRAM, "serve", "--listen", server.address, "--etcd-endpoints", etcd)
    assert finished.code == 2


@pytest.mark.parametrize(
    "wrong",
    [("--listen", "nonsense"), ("--listen", "192.0.2.1:0"), ("--max-watches", "0"), ("--descriptor-set", "/missing")],
    ids=str,
)
async def test_what_is_wrong_is_told_once_and_before_an_etcd_is_started(
    wrong: tuple[str, str], tmp_path: Path, binary: EtcdBinary
) -> None:
    flags = ("--listen", "127.0.0.1:0", "--etcd-binary", binary.path, "--data-dir", tmp_path / "data")
    finished = await run(PROGRAM, "serve", "--workers", "3", *flags, *wrong)
    (line,) = finished.err_lines
    assert finished.code == 2
    assert wrong[1] in line or wrong[0] in line
    assert not (tmp_path / "data").exists()


async def test_what_only_a_worker_finds_wrong_is_told_once_and_ends_all(etcd: str, tmp_path: Path) -> None:
    # The file goes between the supervisor's look at it and the workers'.
    descriptors = tmp_path / "types.binpb"
    descriptors.write_bytes(DESCRIPTOR_SET.read_bytes())
    program = f"""
from pathlib import Path
from operation_service import cli, supervisor
load = supervisor.load
def load_once(paths):
    load(paths)
    Path({str(descriptors)!r}).unlink()
supervisor.load = load_once
cli.main()
"""
    finished = await run(
        *(sys.executable, "-c", program, "serve", "--workers", "3", "--listen", "127.0.0.1:0"),
        *("--etcd-endpoints", etcd, "--descriptor-set", descriptors),
    )
    (line,) = finished.err_lines
    assert finished.code == 2
    assert str(descriptors) in line


# --- a worker's end


async def test_a_worker_that_is_killed_comes_back_while_the_other_goes_on(server: Server) -> None:
    async with reaching_both(server) as reached:
        before = workers_of(server)
        killed = reached[0].pid
        number = next(number for number, pid in before.items() if pid == killed)
        os.kill(killed, signal.SIGKILL)
        for turn in range(20):
            for each in reached:
                if each.pid != killed:
                    await each.peer.propose(f"on/{each.peer.token}/{turn}")
        await until_true(lambda: workers_of(server)[number] != killed)
        assert f"worker {number} (process {killed}) ended by signal 9, starting it again" in server.log

        async def goes_on() -> bool:
            await reached[0].peer.propose("vm")
            return True

        assert await soon(goes_on)
    async with reaching_both(server, "again") as again:
        assert {each.pid for each in again} == set(workers_of(server).values())
    assert len([line for line in server.log.splitlines() if "serving on" in line]) == 1
    assert await server.stop() == 0


async def test_a_worker_that_is_asked_to_stop_ends_in_good_order_and_is_started_again(server: Server) -> None:
    pid = workers_of(server)[1]
    os.kill(pid, signal.SIGTERM)
    await until_true(lambda: workers_of(server)[1] != pid)
    assert f"worker 1 (process {pid}) ended with exit code 0, starting it again" in server.log


# --- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_ends_all_in_good_order(number: signal.Signals, server: Server) -> None:
    pids = workers_of(server).values()
    async with reaching_both(server) as reached:
        watches = {each.pid: each.peer.watch() for each in reached}
        healths = {each.pid: watch_health(each.peer.channel) for each in reached}
        for watch in watches.values():
            await watch.read()
        for health_watch in healths.values():
            assert (await health_watch.read()).status == HealthCheckResponse.SERVING
        server.send(number)
        for health_watch in healths.values():
            assert (await health_watch.read()).status == HealthCheckResponse.NOT_SERVING
        for watch in watches.values():
            assert (await _last_of(watch)).reason == "WATCH_INTERRUPTED"
    assert await server.exit_code() == 0
    assert not any(map(is_alive, pids))
    assert "Traceback" not in server.log


async def _last_of(watch: Any) -> Refusal:
    async def read_on() -> None:
        while await watch.read() is not grpc.aio.EOF:
            pass

    return await refused(read_on())


@dataclass
class InFlight:
    """A service of two workers over an etcd that says nothing, and a call at each of them."""

    server: Server
    pids: tuple[int, ...]
    calls: list["asyncio.Task[Any]"]
    thaw: Callable[[], None]


@pytest.fixture
async def in_flight(start_etcd: StartEtcd, serve: Serve) -> AsyncIterator[InFlight]:
    etcd = await start_etcd()
    server = await serve("--workers", "2", "--etcd-endpoints", etcd.url)
    async with reaching_both(server) as reached:
        for each in reached:
            await each.peer.propose(f"own/{each.peer.token}", lock_for_seconds=60)
        await etcd.freeze()
        calls = [asyncio.create_task(each.peer.append("in flight", f"own/{each.peer.token}")) for each in reached]
        await asyncio.sleep(0.3)
        yield InFlight(server, tuple(workers_of(server).values()), calls, etcd.thaw)
        await asyncio.gather(*calls, return_exceptions=True)


async def test_a_signal_to_the_whole_group_lets_calls_in_flight_finish(in_flight: InFlight) -> None:
    for pid in in_flight.pids:
        os.kill(pid, signal.SIGINT)
    # As late as a supervisor on a busy machine may be, and its own signal comes to the workers as well.
    await asyncio.sleep(1.5)
    in_flight.server.send(signal.SIGINT)
    await until_true(lambda: "supervisor: stopping" in in_flight.server.log)
    in_flight.thaw()
    for operation in await asyncio.gather(*in_flight.calls):
        assert messages(operation) == ["in flight"]
    assert await in_flight.server.exit_code() == 0
    assert "ending at once" not in in_flight.server.log
    await until_gone(*in_flight.pids)


async def test_a_second_signal_ends_all_at_once(in_flight: InFlight) -> None:
    in_flight.server.send(signal.SIGTERM)
    await asyncio.sleep(1.5)
    assert in_flight.server.process.returncode is None
    in_flight.server.send(signal.SIGTERM)
    # The calls in flight would have gone on for as long as etcd says nothing.
    assert await in_flight.server.exit_code(5) == 0
    assert not any(map(is_alive, in_flight.pids))
    assert "ending at once" in in_flight.server.log


async def test_no_worker_outlives_a_supervisor_that_is_killed_and_the_port_is_free(
    in_flight: InFlight, etcd: str, serve: Serve
) -> None:
    in_flight.server.send(signal.SIGKILL)
    await in_flight.server.process.wait()
    await until_gone(*in_flight.pids)
    await serve("--workers", "2", "--etcd-endpoints", etcd, "--listen", in_flight.server.address)


async def test_nothing_outlives_a_supervisor_with_an_etcd_of_its_own_that_is_killed(
    serve: Serve, tmp_path: Path
) -> None:
    server = await serve("--workers", "2")
    _, etcd_pid = map(int, (tmp_path / "data" / "lock").read_text().split())
    server.send(signal.SIGKILL)
    await until_gone(*workers_of(server).values(), etcd_pid)


async def test_a_signal_while_workers_start_ends_all(etcd: str, serve: Serve) -> None:
    server = await serve("--workers", "2", "--etcd-endpoints", etcd, wait=False)
    await until_true(lambda: len(children_of(server.process.pid)) == 2)
    pids = children_of(server.process.pid)
    server.send(signal.SIGTERM)
    assert await server.exit_code() == 0
    assert not any(map(is_alive, pids))
    assert "serving" not in server.log
    assert "Traceback" not in server.log
