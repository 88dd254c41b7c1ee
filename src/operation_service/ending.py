"""How a service ends: asked to, in good order or at once, or by itself."""

import asyncio
import logging
import signal

_log = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0


class ServerEndedError(Exception):
    """gRPC has stopped to take calls by itself: whoever started the process has to start it again."""


class StopSignals:
    """SIGTERM and SIGINT: end in good order once the service serves; at once before that, or when sent again.

    Again means a second later: make, and a terminal, send one signal to the service both directly and by its parents.

    Args:
        again_seconds: That second. Infinity: never at once when sent again.
    """

    def __init__(self, again_seconds: float = AGAIN_SECONDS) -> None:
        self._again_seconds = again_seconds
        self._task = asyncio.current_task()
        self._is_waited_for = False
        self._received_at = 0.0
        self._received = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._receive)

    def _receive(self) -> None:
        now = asyncio.get_running_loop().time()
        if not self._received.is_set():
            self._received_at = now
            self._received.set()
            if self._task is not None and not self._is_waited_for:
                self._task.cancel()
        elif self._task is not None and now - self._received_at > self._again_seconds:
            _log.warning("asked to stop again: ending at once, calls in flight are cut off")
            self._task.cancel()

    def wait_no_more(self) -> None:
        """End at once again when one comes."""
        self._is_waited_for = False

    async def wait(self) -> None:
        """Wait for the first one."""
        self._is_waited_for = True
        await self._received.wait()
