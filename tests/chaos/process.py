"""A process that the run has started: it may be frozen, killed and started again, and ends with the run."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]

_SETPRIV = shutil.which("setpriv")
_KB = 1024


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without what would change the settings of the service or of etcd."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OPERATION_SERVICE_", "ETCD"))}
    return clean | {"PYTHONPATH": str(ROOT / "tests")} | variables


class Process:
    """One process at a time, under one name, with one log file for all of its lives.

    Args:
        name: For people.
        log_path: Where its standard output and error go.
    """

    def __init__(self, name: str, log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        self.starts = 0
        self.peak_rss = 0
        self._process: asyncio.subprocess.Process | None = None
        self._log_begins_at = 0

    @property
    def is_running(self) -> bool:
        """Whether it has been started and has not ended, as far as this process knows."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """Its number, while it runs and after; 0 if it was never started."""
        return self._process.pid if self._process else 0

    @property
    def exit_code(self) -> int | None:
        """How it ended; a signal's number is negative. None: it runs, or was never started."""
        return self._process.returncode if self._process else None

    @property
    def log(self) -> str:
        """What it has written in its present life."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_begins_at)
            return log.read().decode(errors="replace")

    async def start(self, command: Sequence[str | Path], prefix: Sequence[str] = (), **variables: str) -> None:
        """Start it.

        Args:
            command: What to run.
            prefix: A command that becomes it, such as `ip netns exec NAME`.
            **variables: More environment.
        """
        # Whatever becomes of this process, even SIGKILL: what it has started ends with it.
        ends_with_us = (_SETPRIV, "--pdeathsig", "KILL") if _SETPRIV else ()
        with self.log_path.open("ab") as log:
            self._log_begins_at = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *prefix,
                *ends_with_us,
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(**variables),
                # Ctrl-C is for the run, which ends the others in its own order.
                start_new_session=True,
            )
        self.starts += 1

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def freeze(self) -> None:
        """Stop it as a hung disk or a paused virtual machine would."""
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.send(signal.SIGCONT)

    async def kill(self) -> None:
        """End it as a loss of power would, as far as a process can; does nothing if it has ended."""
        self.note_memory()
        self.send(signal.SIGKILL)
        await self.ended()

    async def stop(self, seconds: float = 20.0) -> int | None:
        """Ask it to end, and kill it if it does not; return its exit code."""
        self.note_memory()
        self.send(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.ended()
        await self.kill()
        return self.exit_code

    async def ended(self) -> None:
        """Wait for its end."""
        if self._process is not None:
            await self._process.wait()

    def note_memory(self) -> None:
        """Read the most memory that it has used so far, in bytes, into `peak_rss`."""
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(OSError, ValueError):
            status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
            for line in status.splitlines():
                if line.startswith("VmHWM:"):
                    self.peak_rss = max(self.peak_rss, int(line.split()[1]) * _KB)
