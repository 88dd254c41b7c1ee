"""Measures what a running service's memory is spent on: `PYTHONPATH=tests python tools/memory.py ADDRESS PID [SHARE]`.

With a SHARE of 0.01, a hundredth of the locks, connections and watches.
"""

import asyncio
import resource
import sys
import time
from pathlib import Path

from idle_connections import idle_connections
from support import Peer, connected

_CONNECTIONS, _WATCHES, _LOCKS = 10_000, 1_000, 10_000


class Memory:
    """The memory of a process, step by step."""

    def __init__(self, pid: str) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._before = self._kib()
        print(f"at first: {self._before / 1024:.0f} MiB")

    def tell(self, what: str, count: int) -> None:
        """Print what a step has added."""
        now = self._kib()
        print(f"{count} {what}: {now / 1024:.0f} MiB, {(now - self._before) / count:.1f} KiB each")
        self._before = now

    def _kib(self) -> int:
        return int(self._status.read_text().partition("VmRSS:")[2].split()[0])


async def _lock(peer: Peer, begin: float, locks: int) -> None:
    at_once = asyncio.Semaphore(64)

    async def propose(number: int) -> None:
        async with at_once:
            await peer.propose(f"measured/{begin:.0f}/{number}", lock_for_seconds=3600)

    await asyncio.gather(*(propose(number) for number in range(locks)))


async def _measure(address: str, pid: str, share: float = 1.0) -> None:
    connections, watched, locks = (int(number * share) for number in (_CONNECTIONS, _WATCHES, _LOCKS))
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    memory = Memory(pid)
    async with connected(address) as peer:
        peer.timeout = 600
        await _lock(peer, time.time(), locks)
        memory.tell("held locks", locks)
        async with idle_connections(address, connections):
            memory.tell("idle connections", connections)
            watches = [await peer.watching(project="nobody") for _ in range(watched)]
            memory.tell("watches", watched)
            for watch in watches:
                watch.cancel()


if __name__ == "__main__":
    asyncio.run(_measure(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])))
