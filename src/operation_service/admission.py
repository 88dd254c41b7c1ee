"""So many calls at once, and not one more: what is over the limit is refused before anything is done for it."""

import asyncio
import itertools
from datetime import timedelta

import grpc

from operation_service.errors import OverloadedError, TooManyWatchesError
from operation_service.status import to_status

_SOONEST = timedelta(seconds=0.5)
_SPREAD = 16
"""How many different delays are told, 0.125 s apart, lest all who were refused together come back together."""

_MAX_BYTES = 64 * 1024 * 1024
"""240 requests of the greatest size, or as many small ones as have a place. Each is there some three times."""


class FullError(Exception):
    """There is no place left.

    Attributes:
        status: What to abort the call with. Made beforehand: under a flood, refusing is most of the work.
    """

    def __init__(self, status: grpc.Status) -> None:
        super().__init__(status.details)
        self.status = status


class Gate:
    """Counts what is inside.

    Args:
        limit: How many may be inside at once.
        error: Tells those who may not when to come again.
        max_bytes: How much the requests of those inside may have.

    Attributes:
        refused: How often somebody was not let in.
    """

    def __init__(
        self, limit: int, error: type[OverloadedError | TooManyWatchesError], max_bytes: int = _MAX_BYTES
    ) -> None:
        self._limit = limit
        self._inside = 0
        self.refused = 0
        self._max_bytes = max_bytes
        self._bytes = 0
        self._emptied = asyncio.Event()
        self._emptied.set()
        delays = (_SOONEST + timedelta(seconds=0.125) * step for step in range(_SPREAD))
        self._place = _Place(self)
        self._refusals = itertools.cycle([to_status(error(limit, delay)) for delay in delays])

    @property
    def inside(self) -> int:
        """How many are inside."""
        return self._inside

    def place(self) -> "_Place":
        """Take a place, for as long as the `with` block runs.

        Raises:
            FullError: There is none.
        """
        return self._place

    def room(self, size: int) -> "_Room":
        """Have room for a request of so many bytes, for as long as the `with` block runs.

        Raises:
            FullError: There is none.
        """
        return _Room(self, size)

    def enter(self) -> None:
        """Take a place. Raises as `place` does."""
        if self._inside >= self._limit:
            self.refused += 1
            raise FullError(next(self._refusals))
        if not self._inside:
            self._emptied.clear()
        self._inside += 1

    def leave(self) -> None:
        """Give the place back."""
        self._inside -= 1
        if not self._inside:
            self._emptied.set()

    def add(self, size: int) -> None:
        """Take room; a negative size gives it back. Raises as `room` does."""
        if size > 0 and self._bytes and self._bytes + size > self._max_bytes:
            self.refused += 1
            raise FullError(next(self._refusals))
        self._bytes += size

    async def emptied(self) -> None:
        """Wait until nobody is inside."""
        await self._emptied.wait()


class _Place:
    """A place at a gate. A class, and no generator: each call takes one, and it is most of what a refusal costs."""

    __slots__ = ("_gate",)

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __enter__(self) -> None:
        self._gate.enter()

    def __exit__(self, *_: object) -> None:
        self._gate.leave()


class _Room:
    """Room for one request."""

    __slots__ = ("_gate", "_size")

    def __init__(self, gate: Gate, size: int) -> None:
        self._gate = gate
        self._size = size

    def __enter__(self) -> None:
        self._gate.add(self._size)

    def __exit__(self, *_: object) -> None:
        self._gate.add(-self._size)


class Admission:
    """The service's two gates.

    Args:
        max_calls: Calls that change or read something, at once.
        max_watches: Watches at once, those included that have ended without their callers' reading of it.
    """

    def __init__(self, max_calls: int, max_watches: int) -> None:
        self.calls = Gate(max_calls, OverloadedError)
        self.watches = Gate(max_watches, TooManyWatchesError)

    async def emptied(self) -> None:
        """Wait until nobody is inside any more."""
        await self.watches.emptied()
        await self.calls.emptied()
