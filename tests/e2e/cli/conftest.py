"""One service for each test, and hands to type an operator's commands with."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from e2e.cli.support_cli import Begin, Cli
from e2e.support_e2e import PROGRAM, Finished, Serve, Server, environment, run
from support import Peer, connected

from operation_service.settings import Settings


@pytest.fixture
async def server(etcd: str, serve: Serve, settings: Settings) -> Server:
    """The service, as a process."""
    return await serve("--etcd-endpoints", etcd, "--key-prefix", settings.key_prefix)


@pytest.fixture
async def peer(server: Server) -> AsyncIterator[Peer]:
    """A caller that is no command."""
    async with connected(server.address) as peer:
        yield peer


@pytest.fixture
def cli(server: Server) -> Cli:
    """Run the program, and expect an exit code."""

    async def call(*words: str | Path, code: int = 0, **variables: str) -> Finished:
        finished = await run(PROGRAM, *words, OPERATION_SERVICE_ADDRESS=server.address, **variables)
        assert finished.code == code, finished
        assert "Traceback" not in finished.err
        return finished

    return call


@pytest.fixture
async def begin(server: Server) -> AsyncIterator[Begin]:
    """Begin commands, and leave none of them behind."""
    begun: list[asyncio.subprocess.Process] = []

    async def start(*words: str, variables: dict[str, str] | None = None, **how: Any) -> asyncio.subprocess.Process:
        streams = {"stdin": asyncio.subprocess.DEVNULL} | dict.fromkeys(("stdout", "stderr"), asyncio.subprocess.PIPE)
        process = await asyncio.create_subprocess_exec(
            str(PROGRAM),
            *words,
            **(streams | how),
            env=environment(OPERATION_SERVICE_ADDRESS=server.address, **(variables or {})),
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        if process.returncode is None:
            process.kill()
            await process.communicate()
