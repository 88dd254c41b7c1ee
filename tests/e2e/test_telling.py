"""What real processes tell of themselves: metrics of all workers at one port, log lines, and audit lines."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from e2e.support_e2e import PROGRAM, ROOT, Serve, Server, environment, is_alive, run, until, until_true
from ports import a_port
from scraping import Scraped, scrape
from support import Peer, connected, refused

from operation_service.audit import fingerprint

SECRETS = ("a-secret-token", "a-secret-message", "a-secret-request")


def objects(log: str) -> list[dict[str, Any]]:
    """The lines of a log, each an object."""
    return [json.loads(line) for line in log.splitlines()]


def audited(server: Server) -> list[dict[str, Any]]:
    return [each for each in objects(server.log) if each["logger"] == "operation_service.audit"]


async def changes(address: str, token: str = "a-secret-token") -> None:
    """Some changes, one that changes nothing, and one that is refused."""
    async with connected(address, token) as peer:
        await peer.create("web-1", log_message="a-secret-message")
        await peer.propose("web-1", lock_for_seconds=60)
        await peer.propose("web-1", lock_for_seconds=60)
        assert (await refused(peer.named("another").propose("web-1"))).reason == "LOCKED"
        await peer.append("a-secret-message", "web-1")
        await peer.complete("web-1")
        await peer.complete("web-1")


async def test_one_port_tells_the_metrics_of_all_workers(serve: Serve) -> None:
    metrics = f"127.0.0.1:{a_port()}"
    server = await serve("--workers", "2", "--metrics-listen", metrics)

    def calls(scraped: Scraped) -> float:
        return sum(
            scraped.get("calls_total", method="ProposeOperation", code="OK", worker=worker) for worker in ("1", "2")
        )

    for number in range(12):
        async with connected(server.address) as peer:
            await peer.propose(f"web-{number}")

    async def all_is_told() -> bool:
        scraped = await scrape(metrics)
        return calls(scraped) == 12 and all(scraped.get("locks_held", worker=each) == 12 for each in ("1", "2"))

    await until(all_is_told)
    scraped = await scrape(metrics)
    assert scraped.get("worker_up", worker="1") == scraped.get("worker_up", worker="2") == 1
    assert ("process_resident_memory_bytes", frozenset({("worker", "1")})) in scraped.values


async def test_a_worker_that_hangs_or_dies_keeps_nobody_from_telling(serve: Serve) -> None:
    metrics = f"127.0.0.1:{a_port()}"
    server = await serve("--workers", "2", "--metrics-listen", metrics)
    (line,) = [each for each in server.log.splitlines() if "worker 1 is ready" in each]
    pid = int(line.rpartition("process ")[2].rstrip(")"))

    async def tells(worker_up: int) -> bool:
        scraped = await scrape(metrics)
        return (
            scraped.get("worker_up", worker="1") == worker_up
            and scraped.get("worker_up", worker="2") == 1
            and (scraped.get("healthy", worker="1") == 1) is bool(worker_up)
            and scraped.get("healthy", worker="2") == 1
        )

    os.kill(pid, signal.SIGSTOP)
    try:
        await until(lambda: tells(0))
    finally:
        os.kill(pid, signal.SIGKILL)
    await until_true(lambda: not is_alive(pid))
    # Another one takes its place, under its name, and begins with nothing.
    await until(lambda: tells(1))
    assert await server.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_port_in_use_ends_it_with_one_line(tmp_path: Path, workers: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        finished = await run(
            *(PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path / "data", "--workers", workers),
            *("--metrics-listen", listen),
        )
    assert finished.code == 2
    (line,) = finished.err_lines
    assert f"--metrics-listen: cannot listen on {listen}: the port is in use" in line
    assert not (tmp_path / "data" / "etcd").exists()


async def test_a_folder_that_sockets_cannot_lie_in_ends_it_with_one_line(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    finished = await run(
        *(PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path / "data", "--workers", "2"),
        *("--metrics-listen", "127.0.0.1:0"),
        TMPDIR=str(long),
    )
    assert finished.code == 2
    (line,) = finished.err_lines
    assert "TMPDIR is too long" in line


async def test_each_change_is_audited_once_and_nothing_else_is(serve: Serve) -> None:
    server = await serve("--log-format", "json")
    await changes(server.address)
    assert await server.stop() == 0
    lines = audited(server)
    assert [(each["rpc"], each["event"]) for each in lines] == [
        ("CreateOperation", "CREATED"),
        ("ProposeOperation", "LOCKED"),
        ("ProposeOperation", "RENEWED"),
        ("AppendOperationLog", "LOGGED"),
        ("CompleteOperation", "SUCCEEDED"),
    ]
    for each in lines:
        assert each["message"] == "changed"
        assert (each["project"], each["name"]) == ("project", "web-1")
        assert each["token"] == fingerprint("a-secret-token")
        assert each["by"].startswith("127.0.0.1:")
    assert lines[0]["revision"] < lines[1]["revision"] == lines[1]["fencing_token"] == lines[4]["fencing_token"]
    assert not any(secret in server.log for secret in SECRETS)


async def test_all_lines_are_objects_and_say_which_worker_writes(serve: Serve) -> None:
    server = await serve("--log-format", "json", "--workers", "2")
    await changes(server.address)
    assert await server.stop() == 0
    assert {each["worker"] for each in audited(server)} <= {"1", "2"}
    assert len(audited(server)) == 5
    for each in objects(server.log):
        assert {"time", "level", "logger", "message"} <= each.keys()
    assert any(each["message"].startswith("serving on ") and "worker" not in each for each in objects(server.log))


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_changes_are_not_audited_if_nobody_wants_it(serve: Serve, log_format: str) -> None:
    server = await serve("--audit", "off", "--log-format", log_format)
    await changes(server.address)
    assert await server.stop() == 0
    assert "audit" not in server.log
    assert not any(secret in server.log for secret in SECRETS)


async def test_a_wrong_flag_is_one_plain_line_in_either_format() -> None:
    finished = await run(PROGRAM, "serve", "--log-format", "json", "--workers", "0")
    assert finished.code == 2
    (line,) = [each for each in finished.err_lines if "--workers must be" in each]
    assert not line.startswith("{")


async def test_who_does_not_read_standard_error_does_not_stop_the_service(etcd: str, tmp_path: Path) -> None:
    """A pipe that nobody empties is full after some hundred lines; each change writes one."""
    port = a_port()
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(PROGRAM, "serve", "--listen", f"127.0.0.1:{port}", "--etcd-endpoints", etcd),
        stderr=writing,
        env=environment(),
        cwd=tmp_path,
    )
    os.close(writing)
    try:
        async with connected(f"127.0.0.1:{port}") as peer:
            await until(lambda: is_served(peer))
            await asyncio.gather(*(fill(peer, place) for place in range(10)))
            await peer.propose("afterwards")
        process.terminate()
        async with asyncio.timeout(30):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        os.close(reading)


async def is_served(peer: Peer) -> bool:
    try:
        await peer.list()
    except grpc.aio.AioRpcError:
        return False
    return True


async def fill(peer: Peer, place: int) -> None:
    """Make 150 changes: ten times as many write three times what a pipe takes."""
    for _ in range(150):
        await peer.propose(f"place-{place}")


async def test_a_supervisor_that_serves_metrics_imports_no_grpc() -> None:
    """It asks its workers, and formats nothing itself."""
    code = (
        "import sys, operation_service.supervisor; "
        "sys.exit(any(name.split('.')[0] in {'grpc', 'prometheus_client'} for name in sys.modules))"
    )
    assert (await run(sys.executable, "-c", code)).code == 0


async def test_the_pages_audit_line_is_what_the_service_writes(serve: Serve) -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    (block,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    server = await serve("--log-format", "json")
    async with connected(server.address) as peer:
        await peer.propose("web-1")
    assert await server.stop() == 0
    (line,) = audited(server)
    shown = json.loads(block)
    assert list(line) == list(shown)
    same = ("level", "logger", "message", "rpc", "event")
    assert [line[each] for each in same] == [shown[each] for each in same]
