"""Bounds on how long something may take, for a tenth of what asyncio.timeout takes: each call has several.

They are coarse: late by up to `_EVERY_SECONDS`, never early. That is good enough for what has to end some time, and not
for what a caller's deadline is about.
"""

import asyncio
from types import TracebackType
from typing import Protocol, Self

_EVERY_SECONDS = 0.2


class Bounded(Protocol):
    """What may last until its time has come.

    Attributes:
        due_at: When that is, by the event loop's clock.
    """

    due_at: float

    def end(self) -> None:
        """End it."""


class Bound:
    """Ends the block that it stands around with TimeoutError, when its time has come."""

    __slots__ = ("_bounds", "_cancelling", "_task", "due_at", "is_ended")

    def __init__(self, bounds: "Bounds", due_at: float) -> None:
        self._bounds = bounds
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self.due_at = due_at
        self.is_ended = False

    def __enter__(self) -> Self:
        # With the loop: to find out which one is running is a system call before Python 3.12.
        task = asyncio.current_task(self._bounds.loop)
        if task is None:
            raise RuntimeError("a bound needs a task to end")
        self._task = task
        self._cancelling = task.cancelling()
        self._bounds.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bounds.discard(self)
        task, self._task = self._task, None
        if (
            self.is_ended
            and task is not None
            and task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            # As asyncio.timeout does it: who was cancelled by somebody else as well stays cancelled.
            raise TimeoutError from error

    def end(self) -> None:
        """End the block now."""
        if self._task is not None and not self.is_ended:
            self.is_ended = True
            self._task.cancel()


class Bounds:
    """All bounds of one kind."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._bounds: set[Bounded] = set()
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> Bound:
        """Return a bound of so many seconds from now on, for a `with` block."""
        if self.loop is None:
            self.loop = asyncio.get_running_loop()
        return Bound(self, self.loop.time() + seconds)

    def add(self, bound: Bounded) -> None:
        """Watch over a bound."""
        self._bounds.add(bound)
        if self.loop is None:
            self.loop = asyncio.get_running_loop()
        if self._timer is None:
            self._timer = self.loop.call_later(_EVERY_SECONDS, self._look)

    def discard(self, bound: Bounded) -> None:
        """Watch over it no more."""
        self._bounds.discard(bound)

    def _look(self) -> None:
        self._timer = None
        if self.loop is None or not self._bounds:
            return
        now = self.loop.time()
        for bound in [bound for bound in self._bounds if bound.due_at <= now]:
            bound.end()
        self._timer = self.loop.call_later(_EVERY_SECONDS, self._look)
