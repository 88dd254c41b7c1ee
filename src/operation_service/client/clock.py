"""The clock by which a client measures locks: it never goes back, and goes on while the machine is suspended."""

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns seconds from any fixed moment on."""

_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def boottime() -> float:
    """Return the seconds since the machine started, suspended ones included where the system counts them (Linux).

    `time.monotonic` stands still while a laptop or a virtual machine is suspended: a holder would believe for too long
    that it holds a lock.
    """
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)
