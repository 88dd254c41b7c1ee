"""Calls that are over for the service, but not for gRPC: what ended them has yet to be read by their callers.

They have no place at any gate any more, and gRPC holds them until they are read or their connection ends: so they have
a bound of their own. Beyond it those that have waited for longest are cut off, which their callers see as CANCELLED.
"""

from typing import Protocol

_MAX_CALLS = 4_000
"""About 13 KiB each. Those whose callers read are here for a turn or two of the event loop."""
_MAX_BYTES = 64 * 1024 * 1024


class Call(Protocol):
    """One call."""

    def cut_off(self) -> None:
        """End it without a word."""
        ...


class Lingering:
    """All of them.

    Args:
        max_calls: How many there may be.
        max_bytes: How much may be on its way to their callers.
    """

    def __init__(self, max_calls: int = _MAX_CALLS, max_bytes: int = _MAX_BYTES) -> None:
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._bytes = 0
        self._sizes: dict[Call, int] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._sizes)

    def add(self, call: Call, size: int) -> None:
        """Count a call, and so many bytes that its caller has yet to read."""
        self._sizes[call] = self._sizes.get(call, 0) + size
        self._bytes += size
        while len(self._sizes) > self._max_calls or self._bytes > self._max_bytes:
            oldest = next(iter(self._sizes))
            self.discard(oldest)
            oldest.cut_off()

    def discard(self, call: Call) -> None:
        """Count a call no more: it is over for gRPC, too."""
        self._bytes -= self._sizes.pop(call, 0)
