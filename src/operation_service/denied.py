"""What is told of calls that were not let in: enough to find out why, and never a token.

What somebody who is known may not do is a line of the audit. Strangers are told of in the log. Either may call as often
as they like, with whatever they like in a request that nobody has checked yet: they are no flood of lines, none of
these is long, and those that tell of changes are not displaced.
"""

import asyncio
import logging
import time

from google.protobuf.message import Message

from operation_service.audit import Audit
from operation_service.errors import OperationError, RoleRequiredError
from operation_service.status import TABLE
from operation_service.terminal_text import shown
from operation_service.validation import is_name, is_token

_log = logging.getLogger(__name__)

_LOGGED_AT_ONCE = 20
_AUDITED_AT_ONCE = 500
_EVERY_SECONDS = 10.0
_LOOK_SECONDS = 1.0


class Denied:
    """Tells of refused calls, in 10 seconds of 20 in the log and 500 in the audit; of the others how many there were.

    Attributes:
        audit: Where the lines of the audit go. None: nowhere, the log has it all.
    """

    def __init__(self) -> None:
        self.audit: Audit | None = None
        self._until = 0.0
        self._logged = 0
        self._audited = 0
        self._untold = 0

    def tell(self, rpc: str, caller: str, error: OperationError, request: Message | None = None) -> None:
        """Tell of a call.

        Args:
            rpc: Its name.
            caller: Who called, as far as that is known: a subject or an address.
            error: What it was refused with.
            request: What for. None: that was not looked at, or is not told again.
        """
        now = time.monotonic()
        if now >= self._until:
            self._tell_how_many()
            self._until, self._logged, self._audited = now + _EVERY_SECONDS, 0, 0
        is_audited = self.audit is not None and isinstance(error, RoleRequiredError)
        if is_audited and self._audited < _AUDITED_AT_ONCE:
            self._audited += 1
            self._tell_the_audit(rpc, caller, error, request)
        elif not is_audited and self._logged < _LOGGED_AT_ONCE:
            self._logged += 1
            _log.warning("%s by %s refused: %s", rpc, shown(caller), shown(error.message))
        else:
            self._untold += 1

    async def run(self) -> None:
        """Tell how many there were as soon as their time is over, also if nobody calls after them, until cancelled.

        And then of those whose time is not over: the service ends.
        """
        try:
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                if time.monotonic() >= self._until:
                    self._tell_how_many()
        finally:
            self._tell_how_many()

    def _tell_how_many(self) -> None:
        untold, self._untold = self._untold, 0
        if untold:
            _log.warning("%d more calls were refused that were not told of", untold)

    def _tell_the_audit(self, rpc: str, caller: str, error: OperationError, request: Message | None) -> None:
        name, token = getattr(request, "name", ""), getattr(request, "proposing_peer_token", "")
        if self.audit is not None:
            self.audit.denied(
                rpc,
                TABLE[type(error)][1],
                project=getattr(error, "project", ""),
                # What can be none is not told: it may be of any length.
                name=name if is_name(name) else "",
                by=caller,
                token=token if is_token(token) else "",
            )
