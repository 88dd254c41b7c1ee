"""What the tests of an operator's commands have in common: how a command is run, begun and read."""

import asyncio
from pathlib import Path
from typing import Any, Protocol

from e2e.support_e2e import Finished

NAME = "virtual_machines/web-1"
SHUTDOWN = {
    "@type": "type.googleapis.com/n0stack.infra.v1alpha.ShutdownVirtualMachineRequest",
    "name": "web-1",
    "project": "project",
    "hard": True,
}


class Cli(Protocol):
    """Runs a command to its end, and expects an exit code."""

    async def __call__(self, *words: str | Path, code: int = 0, **variables: str) -> Finished: ...


class Begin(Protocol):
    """Begins a command, with its output to be read unless told otherwise; it is ended with the test.

    What it takes besides the command's words is what `asyncio.create_subprocess_exec` takes; `variables` are added to
    the command's environment.
    """

    async def __call__(
        self, *words: str, variables: dict[str, str] | None = None, **how: Any
    ) -> asyncio.subprocess.Process: ...


async def a_line(process: asyncio.subprocess.Process) -> str:
    """The next line of a command's output."""
    assert process.stdout
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode()
