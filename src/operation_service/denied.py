"""What the log tells of calls that were not let in: enough to find out why, never a token, and no flood of lines."""

import logging
import time

from operation_service.errors import OperationError
from operation_service.terminal_text import shown

_log = logging.getLogger(__name__)

_AT_ONCE = 20
_EVERY_SECONDS = 10.0


class Denied:
    """Tells of refused calls: 20 in 10 seconds each for itself, of the others how many there were."""

    def __init__(self) -> None:
        self._until = 0.0
        self._told = 0
        self._untold = 0

    def tell(self, rpc: str, caller: str, error: OperationError) -> None:
        """Tell of a call.

        Args:
            rpc: Its name.
            caller: Who called, as far as that is known: a subject or an address.
            error: What it was refused with.
        """
        now = time.monotonic()
        if now >= self._until:
            if self._untold:
                _log.warning("%d more calls were refused that were not told of", self._untold)
            self._until, self._told, self._untold = now + _EVERY_SECONDS, 0, 0
        if self._told < _AT_ONCE:
            self._told += 1
            _log.warning("%s by %s refused: %s", rpc, shown(caller), shown(error.message))
        else:
            self._untold += 1
