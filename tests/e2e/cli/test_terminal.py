"""An operator's commands at a terminal: colours, the live table, and completion by the shell."""

import asyncio
import contextlib
import os
import pty
import signal
from collections.abc import AsyncIterator

import pytest
from e2e.cli.support_cli import Begin, Cli
from support import Peer


class Terminal:
    """A terminal with one command on it, and what that has drawn so far."""

    def __init__(self, leader: int, process: asyncio.subprocess.Process) -> None:
        self._leader = leader
        self._process = process
        self._bytes = b""

    @property
    def drawn(self) -> str:
        # What was read last may end within a character.
        return self._bytes.decode(errors="replace")

    async def until_drawn(self, word: str) -> None:
        async with asyncio.timeout(20):
            while word not in self.drawn:
                await self._read()

    async def exit_code(self) -> int:
        """Wait for the command's end; then all that it drew is there."""
        # Linux says "input/output error" when nobody has the terminal open any more.
        with contextlib.suppress(OSError):
            while await self._read():
                pass
        return await self._process.wait()

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    async def _read(self) -> bool:
        part = await asyncio.to_thread(os.read, self._leader, 65_536)
        self._bytes += part
        return bool(part)


@contextlib.asynccontextmanager
async def at_a_terminal(begin: Begin, *words: str, **variables: str) -> AsyncIterator[Terminal]:
    """Begin a command at a terminal of its own."""
    leader, follower = pty.openpty()
    try:
        kind = {"TERM": "xterm", "COLUMNS": "150", "LINES": "24"}
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), follower)
        try:
            process = await begin(*words, variables=kind | variables, **streams)
        finally:
            os.close(follower)
        yield Terminal(leader, process)
    finally:
        os.close(leader)


async def test_colours_are_for_terminals_that_want_them(begin: Begin, peer: Peer) -> None:
    await peer.propose(lock_for_seconds=600)
    async with at_a_terminal(begin, "list") as coloured, at_a_terminal(begin, "list", NO_COLOR="1") as plain:
        assert (await coloured.exit_code(), await plain.exit_code()) == (0, 0)
    assert "\x1b[32mLOCKED" in coloured.drawn
    assert "LOCKED" in plain.drawn
    assert "\x1b[3" not in plain.drawn


async def test_watch_is_a_live_table_at_a_terminal(begin: Begin, peer: Peer) -> None:
    await peer.propose(log_message="first")
    async with at_a_terminal(begin, "watch") as terminal:
        await terminal.until_drawn("first")
        await peer.append("second")
        await terminal.until_drawn("second")
        terminal.interrupt()
        assert await terminal.exit_code() == 130
    assert "Traceback" not in terminal.drawn


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_prints_a_script(cli: Cli, shell: str) -> None:
    assert "_OPERATION_SERVICE_COMPLETE" in (await cli("completion", shell)).out


async def test_the_shell_completes_commands_states_projects_and_names(cli: Cli, peer: Peer) -> None:
    await peer.propose()
    await peer.propose("networks/lan")

    async def completed(line: str) -> list[str]:
        words = line.split(" ")
        out = (
            await cli(_OPERATION_SERVICE_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
        ).out
        return [each.partition(",")[2] for each in out.splitlines() if each]

    assert await completed("operation-service pro") == ["propose"]
    assert await completed("operation-service list --state OP") == ["OPERATOR_DEAD"]
    assert await completed("operation-service get pro") == ["project"]
    assert await completed("operation-service get project net") == ["networks/lan"]
    assert await completed("operation-service get --address 127.0.0.1:1 pro") == []
