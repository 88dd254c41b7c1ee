"""Runs what may never come back, such as a read of a dead network mount, beside the event loop.

The threads of `asyncio.to_thread` are waited for when a process ends; a daemon thread is not.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")


class NoThreadError(Exception):
    """The system lets this process have no more threads."""


async def in_daemon_thread(work: Callable[[], Result]) -> Result:
    """Return what some work in a thread of its own returns, or raise what it raises.

    If that never comes back, neither does this. When this is cancelled the work goes on, for nobody.

    Raises:
        NoThreadError: There is no thread for it.
    """
    answer: Future[Result] = Future()
    # From here on it cannot be cancelled.
    answer.set_running_or_notify_cancel()

    def run() -> None:
        try:
            answer.set_result(work())
        except BaseException as error:  # noqa: BLE001, whatever it was is for who waits
            answer.set_exception(error)

    try:
        Thread(target=run, daemon=True, name=__name__).start()
    except RuntimeError as error:
        raise NoThreadError(str(error)) from error
    return await asyncio.wrap_future(answer)
