"""A replica of the service as a real process, with a wall clock of its own that may be an hour off."""

import random
import re
import shutil
import sys
import time
from pathlib import Path

from chaos.history import ClockSet
from chaos.process import Process
from links import Link

_PROGRAM = Path(sys.executable).with_name("operation-service")
_OFFSETS = (-3600.0, 0.0, 3600.0)


def find_libfaketime() -> Path | None:
    """Return the library that fakes a process's clock, if this machine has it."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


class Replica:
    """One replica.

    Args:
        process: Itself.
        port: Where it listens.
        links: Its ways to the members, in the order in which it tries them.
        door: The clients' way to it.
        libfaketime: None: its clock is the machine's.
        rng: Chooses its clock.
        broken: Which mistake to build into it, as `chaos.broken` names it. Empty: none.
        is_gathering: Whether it commits changes together as it would under load, unless it is broken.
    """

    def __init__(
        self,
        process: Process,
        port: int,
        *,
        links: list[Link],
        door: Link,
        libfaketime: Path | None,
        rng: random.Random,
        broken: str,
        is_gathering: bool,
    ) -> None:
        self.process = process
        self.links = links
        self.door = door
        self._port = port
        self._libfaketime = libfaketime
        self._rng = rng
        self._broken = broken
        self._is_gathering = is_gathering
        self._offset = 0.0
        self.clocks: list[ClockSet] = []
        """How its wall clock was set, in this order."""
        self._clock_path = process.log_path.with_suffix(".clock")

    @property
    def name(self) -> str:
        """For people."""
        return self.process.name

    @property
    def address(self) -> str:
        """As clients know it."""
        return f"127.0.0.1:{self.door.port}"

    async def start(self) -> None:
        """Start it, for the first time or again, with a wall clock that is right or an hour off."""
        program = [str(_PROGRAM)]
        if self._broken:
            program = [sys.executable, "-m", "chaos.broken", self._broken]
        elif self._is_gathering:
            program = [sys.executable, "-m", "chaos.gathering"]
        endpoints = ",".join(f"http://127.0.0.1:{link.port}" for link in self.links)
        self.set_clock(self._rng.choice(_OFFSETS))
        await self.process.start(
            [*program, "serve", "--listen", f"127.0.0.1:{self._port}", "--etcd-endpoints", endpoints],
            **self._fake_clock(),
        )

    def _fake_clock(self) -> dict[str, str]:
        if self._libfaketime is None:
            return {}
        return {
            "LD_PRELOAD": str(self._libfaketime),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock_path),
            # Looks at the file once a second, so that the clock steps while the process runs.
            "FAKETIME_CACHE_DURATION": "1",
            # No machine's monotonic clock steps, and the service is right to rely on that.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set_clock(self, offset: float) -> None:
        """Put its wall clock so many seconds off; whole at once, never a file that is half written."""
        self._offset = offset
        draft = self._clock_path.with_suffix(".draft")
        draft.write_text(f"{offset:+.0f}\n", encoding="ascii")
        shutil.move(draft, self._clock_path)
        ahead = offset if self._libfaketime is not None else 0.0
        self.clocks.append(ClockSet(replica=self.address, at=time.monotonic(), ahead=ahead))

    def step_clock(self, seconds: float) -> None:
        """Let its wall clock jump."""
        self.set_clock(self._offset + seconds)

    @property
    def has_said_serving(self) -> bool:
        """Whether it has come up in its present life."""
        return re.search(r"serving on \S+", self.process.log) is not None
