"""The peers' servers, as their packages run them: on free ports of loopback, with data in the run's folder."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.servers import Server, StartError, free_port, server_process

_ZOOKEEPER_JAR = Path("/usr/share/java/zookeeper.jar")
_POSTGRES = Path("/usr/lib/postgresql")
_POSTGRES_USER = "postgres"


class NotInstalledError(Exception):
    """A server is not on this machine; the message says which."""


@contextlib.asynccontextmanager
async def running_redis(folder: Path) -> AsyncIterator[Server]:
    """Run Redis without a configuration file: snapshots now and then, no append-only file.

    Raises:
        NotInstalledError: It is not there.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise NotInstalledError("redis-server is not installed")
    port = free_port()
    command = (program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder))
    version = (await _output(program, "--version")).partition("v=")[2].partition(" ")[0]
    async with server_process("redis", command, folder, port=port) as (_, pid):
        yield Server("redis", f"127.0.0.1:{port}", pid, version)


@contextlib.asynccontextmanager
async def running_zookeeper(folder: Path) -> AsyncIterator[Server]:
    """Run one member of ZooKeeper.

    Raises:
        NotInstalledError: It is not there.
    """
    java, zookeeper = shutil.which("java"), _zookeeper_version()
    if java is None or zookeeper is None:
        raise NotInstalledError("ZooKeeper (Debian's zookeeper, with Java) is not installed")
    port = free_port()
    configuration = folder / "zoo.cfg"
    configuration.write_text(
        f"tickTime=2000\ndataDir={folder / 'zookeeper'}\nclientPort={port}\nclientPortAddress=127.0.0.1\n"
        "admin.enableServer=false\n",
        encoding="ascii",
    )
    command = (java, "-cp", _ZOOKEEPER_JAR, "org.apache.zookeeper.server.quorum.QuorumPeerMain", configuration)
    async with server_process("zookeeper", command, folder, port=port) as (_, pid):
        yield Server("zookeeper", f"127.0.0.1:{port}", pid, zookeeper)


@contextlib.asynccontextmanager
async def running_postgres(_folder: Path) -> AsyncIterator[Server]:
    """Run PostgreSQL as the user it needs, with a folder that this user may enter.

    Raises:
        NotInstalledError: It is not there.
        StartError: Its data cannot be made.
    """
    programs = _postgres_programs()
    setpriv = shutil.which("setpriv")
    if programs is None or setpriv is None:
        raise NotInstalledError("PostgreSQL (Debian's) is not installed")
    with tempfile.TemporaryDirectory(prefix="bench-postgres-") as made:
        home = Path(made)
        prefix: tuple[str, ...] = ()
        if os.geteuid() == 0:
            shutil.chown(home, _POSTGRES_USER, _POSTGRES_USER)
            prefix = (setpriv, f"--reuid={_POSTGRES_USER}", f"--regid={_POSTGRES_USER}", "--clear-groups")
        data = home / "data"
        await _output(*prefix, str(programs / "initdb"), "--no-sync", "--auth=trust", "--username=bench", str(data))
        command = (programs / "postgres", "-D", data, "-k", home, "-c", "listen_addresses=")
        says = "ready to accept connections"
        async with server_process("postgres", command, home, says=says, prefix=prefix) as (_, pid):
            yield Server("postgres", f"host={home} user=bench dbname=postgres", pid, programs.parent.name)


def _zookeeper_version() -> str | None:
    """Return ZooKeeper's version, which stands in the name of its archive; None without one."""
    if not _ZOOKEEPER_JAR.exists():
        return None
    found = sorted(_ZOOKEEPER_JAR.parent.glob("zookeeper-[0-9]*.jar"))
    return found[-1].stem.removeprefix("zookeeper-") if found else "?"


def _postgres_programs() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs."""
    return max(_POSTGRES.glob("*/bin"), key=lambda path: int(path.parent.name), default=None)


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise StartError(f"{command[0]}: {out.decode(errors='replace')[-500:]}")
    return out.decode(errors="replace")
