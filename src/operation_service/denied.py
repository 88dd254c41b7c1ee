"""What is told of calls that were not let in: enough to find out why, and never a token.

What somebody who is known may not do is a line of the audit, each time. Strangers are told of in the log: there may be
any number of them, and they are no flood of lines.
"""

import logging
import time

from google.protobuf.message import Message

from operation_service.audit import Audit
from operation_service.errors import OperationError, RoleRequiredError
from operation_service.status import TABLE
from operation_service.terminal_text import shown

_log = logging.getLogger(__name__)

_AT_ONCE = 20
_EVERY_SECONDS = 10.0


class Denied:
    """Tells of refused calls; in the log of 20 in 10 seconds each for itself, of the others how many there were.

    Attributes:
        audit: Where the lines of the audit go. None: nowhere, the log has it all.
    """

    def __init__(self) -> None:
        self.audit: Audit | None = None
        self._until = 0.0
        self._told = 0
        self._untold = 0

    def tell(self, rpc: str, caller: str, error: OperationError, request: Message | None = None) -> None:
        """Tell of a call.

        Args:
            rpc: Its name.
            caller: Who called, as far as that is known: a subject or an address.
            error: What it was refused with.
            request: What for. None: that was not looked at, or is not told again.
        """
        if self.audit is not None and isinstance(error, RoleRequiredError):
            self.audit.denied(
                rpc,
                TABLE[type(error)][1],
                project=error.project,
                name=getattr(request, "name", ""),
                by=caller,
                token=getattr(request, "proposing_peer_token", ""),
            )
            return
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
