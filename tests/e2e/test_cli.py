"""`operation-service` as people start and end it: flags, variables, files, signals."""

import asyncio
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from e2e.support_e2e import (
    DESCRIPTOR_SET,
    PROGRAM,
    Serve,
    etcdctl,
    is_alive,
    run,
    start_server,
    until,
    until_health,
    until_true,
    watch_health,
)
from e2e.support_etcd import StartEtcd
from grpc_health.v1.health_pb2 import HealthCheckResponse
from support import connected, refused, state_name

from operation_service.embedded_binary import EtcdBinary

NO_ETCD = "http://127.0.0.1:1"
SERVICE = "n0stack.operation.v1alpha.OperationService"


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


# --- what is wrong is told in one line, with exit code 2


WRONG_VALUES = [
    ("--listen", "nonsense"),
    ("--listen", "127.0.0.1"),
    ("--listen", ":50051"),
    ("--listen", "127.0.0.1:65536"),
    ("--listen", "127.0.0.1:-1"),
    ("--listen", "127.0.0.1:http"),
    ("--listen", "::1:50051"),
    ("--data-dir", ""),
    ("--etcd-endpoints", ""),
    ("--etcd-endpoints", "127.0.0.1:2379"),
    ("--etcd-endpoints", "http://127.0.0.1"),
    ("--etcd-endpoints", "http://127.0.0.1:0"),
    ("--etcd-endpoints", "http://127.0.0.1:65536"),
    ("--etcd-endpoints", "http://127.0.0.1:2379/v3"),
    ("--etcd-endpoints", "http://me:secret@127.0.0.1:2379"),
    ("--etcd-endpoints", "ftp://127.0.0.1:2379"),
    ("--etcd-endpoints", "http://[::1:2379"),
    ("--etcd-endpoints", "http://:2379"),
    ("--etcd-endpoints", "http://127.0.0.1:2379,"),
    ("--etcd-endpoints", "http://127.0.0.1:2379,,http://127.0.0.1:2380"),
    ("--key-prefix", ""),
    ("--key-prefix", "/no/slash"),
    ("--key-prefix", "/with space/"),
    ("--key-prefix", "/\u00fc/"),
    ("--key-prefix", f"/{'x' * 200}/"),
    ("--max-lock-seconds", "0"),
    ("--max-lock-seconds", "-1"),
    ("--max-lock-seconds", "1.5"),
    ("--max-lock-seconds", "a day"),
    ("--max-lock-seconds", "99999999999"),
    ("--retention-seconds", "0"),
    ("--retention-seconds", "a week"),
    ("--max-calls-in-flight", "0"),
    ("--max-calls-in-flight", "many"),
    ("--max-watches", "0"),
    ("--max-watches", "100001"),
    ("--workers", "0"),
    ("--workers", "65"),
    ("--workers", "all"),
]


@pytest.mark.parametrize(("flag", "value"), WRONG_VALUES)
async def test_a_wrong_flag_ends_it_with_one_line_that_names_the_flag(flag: str, value: str) -> None:
    finished = await run(PROGRAM, "serve", f"{flag}={value}")
    (line,) = finished.err_lines
    assert finished.code == 2
    assert line.startswith("operation-service: ")
    assert flag in line


@pytest.mark.parametrize(
    ("flag", "value"), {flag: (flag, value) for flag, value in WRONG_VALUES if value}.values(), ids=str
)
async def test_a_wrong_variable_ends_it_like_a_wrong_flag(flag: str, value: str) -> None:
    variable = f"OPERATION_SERVICE_{flag.removeprefix('--').replace('-', '_').upper()}"
    finished = await run(PROGRAM, "serve", **{variable: value})
    (line,) = finished.err_lines
    assert finished.code == 2
    assert flag in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("serve", "--no-such-flag"), "--no-such-flag"),
        (("serve", "--listen"), "--listen"),
        (("serve", "more"), "more"),
        (("no-such-command",), "no-such-command"),
        (("--no-such-flag",), "--no-such-flag"),
        (("serve", "--etcd-endpoints", NO_ETCD, "--data-dir", "data"), "--data-dir"),
        (("serve", "--etcd-endpoints", NO_ETCD, "--etcd-binary", "etcd"), "--etcd-binary"),
        (("health", "--timeout", "soon"), "--timeout"),
    ],
    ids=str,
)
async def test_a_wrong_command_line_is_told_in_one_line(arguments: tuple[str, ...], named: str) -> None:
    finished = await run(PROGRAM, *arguments)
    (line,) = finished.err_lines
    assert finished.code == 2
    assert named in line


WRONG_FILES = ["missing", "text", "empty", "directory", "missing\nfile"]


@pytest.mark.parametrize("kind", WRONG_FILES)
async def test_a_wrong_descriptor_set_ends_it_with_one_line_that_names_the_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    if kind == "directory":
        path.mkdir()
    elif not kind.startswith("missing"):
        path.write_text("not a descriptor set\n" if kind == "text" else "")
    finished = await run(
        *(PROGRAM, "serve", "--listen", "127.0.0.1:0", "--etcd-endpoints", NO_ETCD, "--descriptor-set", path)
    )
    (line,) = finished.err_lines
    assert finished.code == 2
    assert kind.partition("\n")[0] in line


async def test_a_wrong_descriptor_set_is_found_before_an_etcd_is_started(tmp_path: Path, binary: EtcdBinary) -> None:
    data_dir = tmp_path / "data"
    finished = await run(
        *(PROGRAM, "serve", "--listen", "127.0.0.1:0", "--descriptor-set", tmp_path / "missing"),
        *("--data-dir", data_dir, "--etcd-binary", binary.path),
    )
    (line,) = finished.err_lines
    assert finished.code == 2
    assert "missing" in line
    assert not (data_dir / "etcd").exists()


@pytest.mark.parametrize("folder", ["file", "file/below"])
async def test_a_data_dir_that_is_a_file_is_told_in_one_line(folder: str, tmp_path: Path, binary: EtcdBinary) -> None:
    (tmp_path / "file").touch()
    finished = await run(
        *(PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path / folder, "--etcd-binary", binary.path)
    )
    line = finished.err_lines[-1]
    assert finished.code == 2
    assert str(tmp_path / folder) in line
    assert [each for each in finished.err_lines if "WARNING" not in each] == [line]


@pytest.mark.parametrize("kind", ["missing", "not-executable", "directory", "another-program"])
async def test_an_etcd_binary_that_is_none_is_told_in_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    if kind == "not-executable":
        path.touch()
    elif kind == "directory":
        path.mkdir()
    elif kind == "another-program":
        shutil.copy(shutil.which("true") or "true", path)
    finished = await run(
        *(PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path / "data", "--etcd-binary", path)
    )
    (line,) = finished.err_lines
    assert finished.code == 2
    assert kind in line


async def test_a_port_in_use_is_told_in_one_line(taken_port: int) -> None:
    finished = await run(PROGRAM, "serve", "--listen", f"127.0.0.1:{taken_port}", "--etcd-endpoints", NO_ETCD)
    assert finished.code == 2
    (line,) = finished.err_lines
    assert "--listen" in line
    assert str(taken_port) in line


async def test_a_port_in_use_by_another_service_is_not_shared_with_it(etcd: str, serve: Serve) -> None:
    server = await serve("--etcd-endpoints", etcd)
    finished = await run(PROGRAM, "serve", "--listen", server.address, "--etcd-endpoints", etcd)
    assert finished.code == 2
    assert "--listen" in finished.err_lines[-1]
    assert server.address in finished.err_lines[-1]


# --- what is right


@pytest.mark.parametrize("word", ["--help", "-h"])
async def test_help_tells_of_every_flag_and_its_variable(word: str) -> None:
    finished = await run(PROGRAM, "serve", word, COLUMNS="200")
    assert finished.code == 0
    for flag in (
        *("listen", "etcd-endpoints", "etcd-binary", "data-dir", "key-prefix"),
        *("descriptor-set", "max-lock-seconds", "retention-seconds"),
        *("max-calls-in-flight", "max-watches", "workers"),
    ):
        assert f"--{flag} " in finished.out
        assert f"OPERATION_SERVICE_{flag.replace('-', '_').upper()}" in finished.out


async def test_the_program_itself_tells_its_commands_and_its_version() -> None:
    for arguments in (("--help",), ()):
        finished = await run(PROGRAM, *arguments)
        assert "serve" in finished.out
        assert "health" in finished.out
    assert (await run(PROGRAM, "--version")).code == 0


async def test_every_flag_works_as_a_variable(etcd: str, serve: Serve) -> None:
    server = await serve(
        OPERATION_SERVICE_LISTEN="127.0.0.1:0",
        OPERATION_SERVICE_ETCD_ENDPOINTS=etcd,
        OPERATION_SERVICE_KEY_PREFIX="/variables/",
        OPERATION_SERVICE_DESCRIPTOR_SET=str(DESCRIPTOR_SET),
        OPERATION_SERVICE_MAX_LOCK_SECONDS="100",
        OPERATION_SERVICE_RETENTION_SECONDS="1",
    )
    assert server.etcd_url == etcd
    async with connected(server.address) as peer:
        await peer.propose(lock_for_seconds=100)
        refusal = await refused(peer.propose(lock_for_seconds=101))
        assert "100" in refusal.violations["lock_for_seconds"]
        assert "/variables/locks/project/virtual_machines/web-1" in await etcdctl(
            etcd, "get", "--prefix", "/variables/"
        )
        await peer.complete()

        async def is_gone() -> bool:
            keys = await etcdctl(etcd, "get", "--prefix", "--keys-only", "/variables/")
            return keys.split() == ["/variables/layout"]

        await until(is_gone)
    described = await run(
        *(PROGRAM.with_name("grpcurl"), "-plaintext", server.address),
        *("describe", "n0stack.infra.v1alpha.ShutdownVirtualMachineRequest"),
    )
    assert described.code == 0


async def test_the_embedded_etcd_s_flags_work_as_variables(tmp_path: Path, serve: Serve, binary: EtcdBinary) -> None:
    await serve(
        OPERATION_SERVICE_DATA_DIR=str(tmp_path / "here"),
        OPERATION_SERVICE_ETCD_BINARY=str(binary.path),
        # An empty variable is as good as none.
        OPERATION_SERVICE_MAX_LOCK_SECONDS="",
    )
    assert (tmp_path / "here" / "etcd" / "member").exists()


async def test_the_data_dir_is_by_default_under_the_user_s_state_directory(
    tmp_path: Path, serve: Serve, binary: EtcdBinary
) -> None:
    await serve(
        XDG_STATE_HOME=str(tmp_path / "state"),
        OPERATION_SERVICE_DATA_DIR="",
        OPERATION_SERVICE_ETCD_BINARY=str(binary.path),
    )
    assert (tmp_path / "state" / "operation-service" / "etcd" / "member").exists()


async def test_a_flag_wins_over_its_variable(etcd: str, serve: Serve) -> None:
    server = await serve(
        *("--listen", "127.0.0.1:0", "--etcd-endpoints", etcd, "--key-prefix", "/flags/"),
        *("--descriptor-set", DESCRIPTOR_SET, "--max-lock-seconds", "100", "--retention-seconds", "1"),
        OPERATION_SERVICE_LISTEN="nonsense",
        OPERATION_SERVICE_ETCD_ENDPOINTS="nonsense",
        OPERATION_SERVICE_KEY_PREFIX="nonsense",
        OPERATION_SERVICE_DESCRIPTOR_SET="/nonsense",
        OPERATION_SERVICE_MAX_LOCK_SECONDS="nonsense",
        OPERATION_SERVICE_RETENTION_SECONDS="nonsense",
    )
    async with connected(server.address) as peer:
        await peer.propose()
        assert await peer.state() == "LOCKED"


async def test_a_flag_of_the_embedded_etcd_wins_over_its_variable(
    tmp_path: Path, serve: Serve, binary: EtcdBinary
) -> None:
    await serve(
        *("--data-dir", tmp_path / "flag", "--etcd-binary", binary.path),
        OPERATION_SERVICE_DATA_DIR=str(tmp_path / "variable"),
        OPERATION_SERVICE_ETCD_BINARY="/nonsense",
    )
    assert (tmp_path / "flag").exists()
    assert not (tmp_path / "variable").exists()


async def test_health_exits_with_0_when_it_serves_and_with_1_when_not(etcd: str, serve: Serve, taken_port: int) -> None:
    server = await serve("--etcd-endpoints", etcd)
    healthy = await run(PROGRAM, "health", "--listen", server.address)
    assert (healthy.code, healthy.out) == (0, f"{server.address} is SERVING\n")
    assert (await run(PROGRAM, "health", OPERATION_SERVICE_LISTEN=server.address)).code == 0
    nowhere = "127.0.0.1:1"
    for flags, variables in (
        (("--address", server.address), {}),
        ((), {"OPERATION_SERVICE_ADDRESS": server.address}),
        ((), {"OPERATION_SERVICE_ADDRESS": server.address, "OPERATION_SERVICE_LISTEN": nowhere}),
        (("--listen", server.address), {"OPERATION_SERVICE_ADDRESS": nowhere}),
        (("--address", server.address, "--listen", nowhere), {}),
    ):
        assert (await run(PROGRAM, "health", *flags, **variables)).code == 0, (flags, variables)
    await server.stop()
    gone = await run(PROGRAM, "health", "--listen", server.address)
    assert gone.code == 1
    assert "does not answer" in gone.out
    silent = await run(PROGRAM, "health", "--listen", f"127.0.0.1:{taken_port}", "--timeout", "0.5")
    assert silent.code == 1


# --- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_ends_it_in_good_order(number: signal.Signals, start_etcd: StartEtcd, serve: Serve) -> None:
    etcd = await start_etcd()
    server = await serve("--etcd-endpoints", etcd.url)
    async with connected(server.address) as peer, connected(server.address) as watcher:
        operation = await peer.propose(lock_for_seconds=60)
        fencing_token = peer.fencing_token
        health = watch_health(peer.channel, SERVICE)
        assert (await health.read()).status == HealthCheckResponse.SERVING
        watch = watcher.watch()
        first = await watch.read()
        assert state_name(first.operation.state) == "LOCKED"

        # A call that is in flight for as long as etcd says nothing.
        await etcd.freeze()
        in_flight = asyncio.ensure_future(peer.append("in flight"))
        await asyncio.sleep(0.3)
        server.send(number)
        assert (await health.read()).status == HealthCheckResponse.NOT_SERVING
        refusal = await refused(watch.read())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "WATCH_INTERRUPTED")
        assert int(refusal.metadata["resume_revision"]) == first.revision + 1
        etcd.thaw()
        assert [log.message for log in (await in_flight).logs] == ["in flight"]
    assert await server.exit_code() == 0
    assert "Traceback" not in server.log

    # The lock is still its holder's, and the watch goes on where it ended, without a gap.
    again = await serve("--etcd-endpoints", etcd.url)
    async with connected(again.address) as peer, connected(again.address, "another") as other:
        watch = other.watch(start_revision=int(refusal.metadata["resume_revision"]))
        assert [log.message for log in (await watch.read()).operation.operation.logs] == ["in flight"]
        assert (await refused(other.propose())).reason == "LOCKED"
        record = await peer.get()
        assert record.operation.locked_until == operation.locked_until
        await peer.propose(fence=fencing_token)
        assert peer.fencing_token == fencing_token
        watch.cancel()


async def test_a_restart_on_the_same_data_dir_keeps_the_locks(serve: Serve) -> None:
    first = await serve()
    async with connected(first.address) as peer:
        await peer.create()
        await peer.propose(lock_for_seconds=60)
        fencing_token = peer.fencing_token
    assert await first.stop() == 0
    second = await serve()
    async with connected(second.address) as peer, connected(second.address, "another") as other:
        assert (await refused(other.propose())).reason == "LOCKED"
        renewed = await peer.propose(fence=fencing_token)
        assert renewed.operation_request.type_url.endswith("ShutdownVirtualMachineRequest")
        await peer.complete(fence=fencing_token)


async def test_nobody_who_asks_for_health_is_cut_off_before_it_says_not_serving(etcd: str, serve: Serve) -> None:
    server = await serve("--etcd-endpoints", etcd)
    await until_health(server.address, "SERVING")
    server.send(signal.SIGTERM)
    await until_health(server.address, "NOT_SERVING", 5)
    assert await server.exit_code() == 0


async def test_a_signal_while_it_starts_ends_it_and_its_etcd(serve: Serve, tmp_path: Path) -> None:
    server = await serve(wait=False)
    lock = tmp_path / "data" / "lock"
    # The embedded etcd is running, and does not serve yet.
    await until_true(lambda: lock.exists() and len(lock.read_text().split()) == 2)
    _, etcd_pid = map(int, lock.read_text().split())
    server.send(signal.SIGTERM)
    assert await server.exit_code() == 0
    assert not is_alive(etcd_pid)
    assert "Traceback" not in server.log


async def test_a_signal_ends_it_also_while_its_etcd_does_not_come_up(tmp_path: Path) -> None:
    fake = tmp_path / "etcd"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "etcd Version: 3.4.99" && exit\nexec sleep 60\n')
    fake.chmod(0o755)
    data = tmp_path / "data"
    server = await start_server(
        tmp_path / "log", "--listen", "127.0.0.1:0", "--etcd-binary", str(fake), "--data-dir", str(data)
    )
    try:
        await until_true(lambda: (data / "lock").exists() and len((data / "lock").read_text().split()) == 2)
        server.send(signal.SIGTERM)
        assert await server.exit_code(seconds=8) == 0
        assert "Traceback" not in server.log
    finally:
        await server.stop()


async def test_it_runs_as_a_module_of_python_where_there_is_no_script() -> None:
    finished = await run(sys.executable, "-c", "from operation_service.cli import main; main()", "--help")
    assert finished.code == 0
