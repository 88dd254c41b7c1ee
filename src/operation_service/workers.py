"""So many pieces of work at once; the rest waits in line, for as long as its deadline allows.

Work that waits costs nothing. Work that is under way costs a turn of the event loop with each of its steps: more of it
at once is no faster, and holds up whoever knocks only to be refused.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from operation_service.clock import Deadline
from operation_service.errors import StoreUnavailableError


class Workers:
    """A number of workers.

    Args:
        count: That number.
    """

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)

    @contextlib.asynccontextmanager
    async def one(self, deadline: Deadline) -> AsyncIterator[None]:
        """Wait for a worker, and have it for as long as the block runs.

        Raises:
            StoreUnavailableError: None was free in time: etcd is too slow for as many calls as there are.
        """
        try:
            async with asyncio.timeout(deadline.remaining() if self._free.locked() else None):
                await self._free.acquire()
        except TimeoutError as error:
            raise StoreUnavailableError("earlier calls still wait for it") from error
        try:
            yield
        finally:
            self._free.release()
