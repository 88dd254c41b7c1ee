"""Files that do not answer, as on a dead network mount: whoever opens one hangs."""

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

_LONG_SECONDS = 30
_BREAK_TIME = Path("/proc/sys/fs/lease-break-time")


@contextlib.asynccontextmanager
async def held(*files: Path) -> AsyncIterator[None]:
    """Let the kernel hold whoever opens one of some files, by a lease on it, which it ends by itself after 45 s."""
    if not _holds_for_long():
        pytest.skip("the kernel holds nobody by a lease for long enough")
    with contextlib.ExitStack() as stack:
        for file in files:
            descriptor = os.open(file, os.O_RDWR)
            stack.callback(os.close, descriptor)
            # Told that somebody waits, a process ends, unless it is told so by a signal that means nothing.
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
            await _leased(descriptor)
        yield


def _holds_for_long() -> bool:
    return _BREAK_TIME.exists() and int(_BREAK_TIME.read_text()) >= _LONG_SECONDS


async def _leased(descriptor: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            except BlockingIOError:
                # Somebody has it open at this moment.
                await asyncio.sleep(0.01)
            except OSError as error:
                pytest.skip(f"the test's folder knows no leases: {error}")
            else:
                return
