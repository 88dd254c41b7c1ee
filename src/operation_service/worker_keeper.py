"""Keeps one worker running: starts its process, hears what it reports, and starts it again when it ends."""

import asyncio
import contextlib
import logging
import os
import sys
from pathlib import Path

from operation_service import handover
from operation_service.backoff import LONGEST_SECONDS, Backoff, how_it_ended
from operation_service.settings import SettingsError

_log = logging.getLogger(__name__)

_STOP_SECONDS = 20.0
"""How long a worker may take to end in good order; it takes up to 12 s, for calls that are in flight."""


class Worker:
    """A worker, whichever process it is at the moment.

    Start it on the main thread: Linux ends the worker with the thread that started it (see embedded_exec).

    Args:
        number: By it the log lines tell which one it is.
        order: What it is told to do (see handover).
        metrics_socket: Where it is to tell its metrics. None: nowhere.

    Attributes:
        is_ready: Set once it has served for the first time.
    """

    def __init__(self, number: int, order: bytes, metrics_socket: Path | None = None) -> None:
        self._metrics = () if metrics_socket is None else (str(metrics_socket),)
        self._number = number
        self._order = order
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self.is_ready = asyncio.Event()

    def start(self) -> "asyncio.Task[None]":
        """Start it; the task ends, with a SettingsError, only if it cannot run with what it was told."""
        self._keeping = asyncio.create_task(self._keep(), name=f"worker-{self._number}")
        return self._keeping

    async def stop(self) -> None:
        """End it in good order (SIGTERM; SIGKILL after 20 s)."""
        await self._keep_no_more()
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
                return
        _log.warning("worker %d did not end within %.0f s of SIGTERM, killing it", self._number, _STOP_SECONDS)
        await self.kill()

    async def kill(self) -> None:
        """End it at once (SIGKILL); does nothing if it has ended."""
        await self._keep_no_more()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _keep_no_more(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
            # Whoever wants to know why it ended has seen it; of several that failed alike, one is told of.
            _ = self._keeping.cancelled() or self._keeping.exception()

    async def _keep(self) -> None:
        clock = asyncio.get_running_loop().time
        pauses = Backoff()
        while True:
            since = clock()
            try:
                process = self._process = await self._spawn()
            except OSError as error:  # no memory, no descriptors: they may come back
                _log.warning(
                    "worker %d cannot be started, trying again in %.1f s: %s", self._number, LONGEST_SECONDS, error
                )
                await asyncio.sleep(LONGEST_SECONDS)
                continue
            why = await self._hear(process)
            code = await process.wait()
            if code == handover.WRONG_SETTINGS and not self.is_ready.is_set():
                raise SettingsError(why or f"worker {self._number} cannot start, and does not say why")
            pause = pauses.pause_after(clock() - since)
            _log.warning(
                "worker %d (process %d) ended %s, starting it again in %.1f s%s",
                *(self._number, process.pid, how_it_ended(code), pause, f": {why}" if why else ""),
            )
            await asyncio.sleep(pause)

    async def _spawn(self) -> asyncio.subprocess.Process:
        """Start a fresh interpreter: a fork without exec would hand on what threads of this one were about.

        It stays in this process's group, so that what a terminal says to the group (Ctrl-C, Ctrl-Z, hanging up) is said
        to all. -P: a file of the current directory must not pass for a module.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "operation_service.worker_process", str(self._number), str(os.getpid())),
            *self._metrics,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None  # noqa: S101 - for mypy: a pipe was asked for
        # Some hundred bytes, which the pipe takes at once. It stays open: its end tells the worker of ours.
        process.stdin.write(self._order)
        return process

    async def _hear(self, process: asyncio.subprocess.Process) -> str | None:
        """Hear what a worker reports until it ends; return why it cannot start, if it said that."""
        assert process.stdout is not None  # noqa: S101 - for mypy: a pipe was asked for
        why = None
        async for line in process.stdout:
            if line.rstrip() == handover.READY:
                _log.info("worker %d is ready (process %d)", self._number, process.pid)
                self.is_ready.set()
            why = handover.wrong_in(line.rstrip()) or why
        return why
