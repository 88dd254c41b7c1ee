"""So many pieces of work at once; the rest waits in line, but not for long.

Work that waits costs nothing. Work that is under way costs a turn of the event loop with each of its steps: more of it
at once is no faster, and holds up whoever knocks only to be refused.
"""

import asyncio
import math
import random
from datetime import timedelta

from operation_service.clock import Deadline
from operation_service.errors import OverloadedError, StoreUnavailableError
from operation_service.line import Line

_PATIENCE_SECONDS = 1.0
"""How long work waits while other work is done. So what is accepted stays fast, however slow the machine is."""


class Progress:
    """Tells those who wait for others whether these get on, or all wait for etcd themselves.

    Attributes:
        done: How many pieces of work have come to an end that was not etcd's silence.
    """

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = 0

    def note(self, error: BaseException | None) -> None:
        """Count a piece of work, given what it ended with. Whose caller has gone says nothing of etcd."""
        if not isinstance(error, StoreUnavailableError | asyncio.CancelledError):
            self.done += 1


class Workers:
    """A number of workers.

    Args:
        count: That number.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._line = Line(count)
        self._progress = Progress()

    def one(self, deadline: Deadline) -> "_Worker":
        """Wait for a worker, and have it for as long as the `async with` block runs.

        Raises:
            OverloadedError: None was free in time, though all have done work meanwhile.
            StoreUnavailableError: None was free in time, and none has done any: they wait for etcd.
        """
        return _Worker(self, deadline)

    async def take(self, deadline: Deadline) -> None:
        """Wait for a worker. Raises as `one` does."""
        if not self._line.step_in():
            await self._wait(deadline)

    def give_back(self, error: BaseException | None) -> None:
        """Let somebody else have the worker.

        Args:
            error: What the work ended with.
        """
        self._progress.note(error)
        self._line.leave()

    async def _wait(self, deadline: Deadline) -> None:
        done, ticket = self._progress.done, self._line.join()
        for patience in (_PATIENCE_SECONDS, math.inf):
            if await self._line.wait(ticket, min(patience, deadline.remaining())):
                return
            if self._progress.done - done >= self._count:
                self._line.give_up(ticket)
                # Not the same for all: they have been refused together.
                delay = timedelta(seconds=random.uniform(0.5, 2.5))  # noqa: S311
                raise OverloadedError(self._count, delay)
        self._line.give_up(ticket)
        raise StoreUnavailableError("earlier calls still wait for it")


class _Worker:
    """One of them, for a piece of work."""

    __slots__ = ("_deadline", "_workers")

    def __init__(self, workers: Workers, deadline: Deadline) -> None:
        self._workers = workers
        self._deadline = deadline

    async def __aenter__(self) -> None:
        await self._workers.take(self._deadline)

    async def __aexit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self._workers.give_back(error)
