"""So much of something for all: who asks for more than is left waits in line."""

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import AsyncIterator


class Budget:
    """An amount, shared out first come, first served.

    Args:
        total: That amount.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._left = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def share(self, amount: int) -> AsyncIterator[None]:
        """Wait for a share, and have it for as long as the block runs. Who wants more than there is gets it all."""
        amount = min(amount, self._total)
        await self._take(amount)
        try:
            yield
        finally:
            self._left += amount
            self._hand_out()

    def open_up(self) -> None:
        """Let everybody have what they want from now on."""
        self._left = sys.maxsize
        self._hand_out()

    async def _take(self, amount: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # It was handed out in the very moment in which it was given up.
                self._left += amount
            self._hand_out()
            raise

    def _hand_out(self) -> None:
        while self._waiting:
            amount, turn = self._waiting[0]
            if turn.done():
                self._waiting.popleft()
            elif amount <= self._left:
                self._waiting.popleft()
                self._left -= amount
                turn.set_result(None)
            else:
                return
