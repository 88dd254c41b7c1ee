"""One bash, in which the commands of a page are run one after the other."""

import asyncio
import uuid
from pathlib import Path

from e2e.support_e2e import environment

COMMAND_SECONDS = 30.0


class Shell:
    """A bash that remembers functions, variables and `$?` from one command to the next."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, command: str) -> list[str]:
        """Run a command; return the lines that it wrote, on standard error too."""
        assert self._process.stdin
        assert self._process.stdout
        mark = f"end-{uuid.uuid4().hex}"
        self._process.stdin.write(f"{command}\n_status=$?; echo {mark}; (exit $_status)\n".encode())
        lines: list[str] = []
        async with asyncio.timeout(COMMAND_SECONDS):
            while True:
                line = (await self._process.stdout.readline()).decode()
                assert line, f"bash ended at: {command}\n{lines}"
                head, is_end, _ = line.partition(mark)
                if head:
                    lines.append(head.rstrip("\n"))
                if is_end:
                    return lines

    async def close(self) -> None:
        """End it; what it has left in the background has to have ended."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        await self._process.stdout.read()
        await self._process.wait()


async def shell(folder: Path) -> Shell:
    """Start one in a folder."""
    return Shell(
        await asyncio.create_subprocess_exec(
            *("bash", "--noprofile", "--norc"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=folder,
            env=environment(TMPDIR=str(folder)),
        )
    )
