"""Into an event loop from any thread, and to the end of something whoever is cancelled."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

_log = logging.getLogger(__name__)

_under_way: set[asyncio.Task[None]] = set()
"""An event loop alone does not keep its tasks alive."""


def in_loop(action: Callable[[], object]) -> Callable[[], None]:
    """Return what has something done in this event loop, from whichever thread, after what is being done now."""
    loop = asyncio.get_running_loop()

    def soon() -> None:
        # A loop that was closed meanwhile has nobody in it who would want to know.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(action)

    return soon


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await something that goes on in any case, also when the task that waits for it is cancelled meanwhile.

    Args:
        work: What is to be done.
    """
    task = asyncio.create_task(work)
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            task.add_done_callback(_tell)
        raise


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.warning("after the task that waited for it was cancelled: %s", error)
