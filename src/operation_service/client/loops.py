"""From any thread into an event loop."""

import asyncio
import contextlib
from collections.abc import Callable


def in_loop(action: Callable[[], object]) -> Callable[[], None]:
    """Return what has something done in this event loop, from whichever thread, after what is being done now."""
    loop = asyncio.get_running_loop()

    def soon() -> None:
        # A loop that was closed meanwhile has nobody in it who would want to know.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(action)

    return soon
