"""What shows from outside how the process is: its answers to good calls, its memory, its open files, its log."""

import asyncio
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc
from fuzz.targets import KEPT_PROJECT, LOCKED
from support import Peer

ALIVE_SECONDS = 5.0
"""Within which good calls have to be answered all along."""
_BAD_LINE = re.compile(r"traceback|exception|error|critical|fatal|assert|core dumped", re.IGNORECASE)


@dataclass(frozen=True)
class Vitals:
    """Memory and open files of a process."""

    rss_mib: float
    open_files: int

    @classmethod
    def of(cls, pid: int) -> Self:
        status = Path(f"/proc/{pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found, "the process has ended"
        return cls(int(found[1]) / 1024, len(list(Path(f"/proc/{pid}/fd").iterdir())))

    def __str__(self) -> str:
        return f"{self.rss_mib:.0f} MiB of memory, {self.open_files} open files"


def bad_lines(log: str) -> list[str]:
    """The lines of a log that should not be there."""
    return [line for line in log.splitlines() if _BAD_LINE.search(line)]


@dataclass
class Liveness:
    """Makes good calls all along, and remembers how they went."""

    address: str
    calls: int = 0
    slowest_seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Call until cancelled."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            peer = Peer(channel, "good-peer")
            peer.timeout = ALIVE_SECONDS
            while True:
                began = time.monotonic()
                try:
                    await self._round(peer)
                except grpc.aio.AioRpcError as error:
                    self.failures.append(f"a good call met {error.code().name}: {error.details()}")
                self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
                await asyncio.sleep(0.2)

    async def _round(self, peer: Peer) -> None:
        await peer.get(LOCKED, KEPT_PROJECT)
        await peer.propose("good/resource", project="good")
        await peer.complete("good/resource", project="good")
        self.calls += 3
