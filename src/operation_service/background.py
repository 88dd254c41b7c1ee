"""Background work, which goes on until the service ends."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0

Work = Callable[[], Awaitable[None]]


def begun(work: Work) -> Callable[[], Awaitable[None]]:
    """Begin some work; return what ends it.

    Args:
        work: Begun again whenever it returns or fails.
    """
    task = asyncio.create_task(_for_ever(work))

    async def end() -> None:
        task.cancel()
        await asyncio.wait({task})

    return end


async def _for_ever(work: Work) -> None:
    """Keep it going: a mistake in it must not leave the service deaf without a word."""
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001, whatever it was is logged, and the work goes on
            _log.exception("background work failed, and is begun again")
        await asyncio.sleep(_PAUSE_SECONDS)
