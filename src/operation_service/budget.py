"""So much of something for all: who asks for more than is left waits in line, but not for ever."""

import asyncio
import contextlib
import random
import sys
from collections import deque
from collections.abc import AsyncIterator
from datetime import timedelta

from operation_service.errors import OverloadedError

_PATIENCE_SECONDS = 30.0
"""A share may be held for as long as its holder likes: who waits for it has to be told."""
_NEXT_TO_NOTHING = 10_000
"""Who wants no more than one of so many parts of the total needs no share, and waits behind nobody."""


class Budget:
    """An amount, shared out first come, first served.

    Args:
        total: That amount.
        what: Of what, in words: "the service is busy with 500000 ...".
    """

    def __init__(self, total: int, what: str) -> None:
        self._total = total
        self._what = what
        self._left = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def share(self, amount: int) -> AsyncIterator[None]:
        """Wait for a share, and have it for as long as the block runs. Who wants more than there is gets it all.

        Raises:
            OverloadedError: Those who came before have left too little, for too long.
        """
        amount = 0 if amount * _NEXT_TO_NOTHING <= self._total else min(amount, self._total)
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
        if not amount:
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        self._hand_out()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.done() and not turn.cancelled():
                # It was handed out in the very moment in which it was given up.
                self._left += amount
            self._hand_out()
            if isinstance(error, TimeoutError):
                # Not the same for all, as at the gates.
                delay = timedelta(seconds=random.uniform(5, 10))  # noqa: S311
                raise OverloadedError(self._total, delay, self._what) from error
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
