"""Lines for standard error, written by a thread of their own: who reads them slowly, or not at all, stops nobody.

A pipe that is full lets its writer wait, for ever if need be. The service must not: what waits to be written has a
bound, and beyond it lines are dropped, counted, and told of once there is room again.
"""

import os
import select
import threading
import time
from collections.abc import Callable

_MAX_BYTES = 8 * 1024 * 1024
"""Some seconds of a line for each change, or years of the others."""


class Lines:
    """Writes lines to a file, in their order.

    Args:
        fd: The file.
        lost: Returns the line that says how many were dropped.
        max_bytes: How much may wait.

    Attributes:
        dropped: How many lines were dropped.
    """

    def __init__(self, fd: int, lost: Callable[[int], bytes], max_bytes: int = _MAX_BYTES) -> None:
        self._fd = fd
        self._lost = lost
        self._max_bytes = max_bytes
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._untold = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def put(self, lines: bytes, count: int = 1) -> None:
        """Have lines written before long. Never waits.

        Args:
            lines: They, each with its end.
            count: How many they are.
        """
        with self._changed:
            if self._bytes + len(lines) > self._max_bytes:
                self.dropped += count
                self._untold += count
                return
            self._waiting.append(lines)
            self._bytes += len(lines)
            if self._thread is None:
                # A daemon: if nobody reads the lines, the process ends all the same.
                self._thread = threading.Thread(target=self._write_all, name="lines", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait for so long until all is written; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._bytes, seconds)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                some, self._waiting = self._waiting, []
                untold, self._untold = self._untold, 0
            data = b"".join(some)
            try:
                self._write(data + self._lost(untold) if untold else data)
            finally:
                with self._changed:
                    self._bytes -= len(data)
                    self._changed.notify_all()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                # Whoever shares the file may have made it one that does not wait.
                select.select([], [self._fd], [])
            except OSError:
                # Its reader is gone, or its disk is full: there is nobody to tell.
                time.sleep(0.1)
                return
