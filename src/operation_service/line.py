"""Places for some at once; the rest waits in line, first come, first served.

asyncio's semaphore does the same, but tells whether there is room only by looking at all who wait, and has to be asked
with a coroutine also where there is (docs/adr/0016-the-way-of-a-call.md).
"""

import asyncio
from collections import deque


class Line:
    """The places, and the line before them.

    Args:
        free: How many places are free to begin with.
    """

    __slots__ = ("_free", "_waiting")

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: deque[asyncio.Future[None]] = deque()

    def step_in(self) -> bool:
        """Take a place, if one is free: then nobody waits."""
        if self._free:
            self._free -= 1
            return True
        return False

    async def wait(self) -> None:
        """Wait for a place that somebody leaves."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # It was given the place in the very moment in which it gave up.
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place to whoever has waited for longest, or nobody."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
