"""Who changed what: a line for each change that was made, and for each that somebody was not allowed to make.

The lines go where log lines go, with the logger `operation_service.audit`, and look like them. They are written without
logging's own machinery, which is several times as dear, and wait up to 50 ms for their neighbours
(docs/adr/0028-logs-audit-and-traces.md). Of a token they have a fingerprint, and of a request nothing.
"""

import asyncio
import functools
import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from operation_service.lines import Lines
from operation_service.logs import LogFormat
from operation_service.model import Append, Cancel, Command, Complete, Create, Propose, Record
from operation_service.terminal_text import shown

LOGGER = "operation_service.audit"

_SOON_SECONDS = 0.05
_RPCS: dict[type[Command], str] = {
    Create: "CreateOperation",
    Propose: "ProposeOperation",
    Append: "AppendOperationLog",
    Complete: "CompleteOperation",
    Cancel: "CancelOperation",
}

_encode = msgspec.json.Encoder().encode


class Line(Struct, omit_defaults=True, gc=False):
    """What one line says.

    Attributes:
        time: When it was written.
        level: As of other log lines.
        logger: Likewise.
        message: `changed`, `perhaps changed` (etcd's answer was lost), or `denied`.
        rpc: The short name of the method.
        project: The resource's, as its caller wrote it.
        name: Likewise.
        by: Who: the authenticated identity, else the network address.
        token: The fingerprint of the proposing_peer_token.
        event: What the change was, as watches tell it.
        fencing_token: The lock's.
        revision: Of the change.
        reason: Why it was denied.
        worker: Which one writes.
    """

    time: datetime
    level: str
    logger: str
    message: str
    rpc: str
    project: str
    name: str
    by: str
    token: str
    event: str = ""
    fencing_token: int = 0
    revision: int = 0
    reason: str = ""
    worker: str = ""


class Audit:
    """Writes the lines.

    Args:
        lines: Where they go.
        log_format: What they look like.
        who: Which of several processes writes them.
        tells_changes: Whether changes are told. What was denied always is.
    """

    def __init__(
        self, lines: Lines, log_format: LogFormat = "text", who: str = "", *, tells_changes: bool = True
    ) -> None:
        self._lines = lines
        self._who = who
        self._worker = who.removeprefix("worker ")
        self._tells_changes = tells_changes
        self._write: Callable[[Line], bytes] = _encode if log_format == "json" else self._text
        self._waiting: list[bytes] = []

    def outcome(self, command: Command, _before: Record | None, record: Record, revision: int) -> None:
        """Tell of a change that was made, or perhaps was (`commits.OnOutcome`)."""
        if not self._tells_changes:
            return
        self._put(
            Line(
                time=datetime.now(UTC),
                level="INFO",
                logger=LOGGER,
                message="changed" if revision else "perhaps changed",
                rpc=_RPCS[type(command)],
                project=command.resource.project,
                name=command.resource.name,
                by=command.caller.identity,
                token=fingerprint(command.caller.token),
                event=record.event.value,
                # A lock that this very change takes has its revision for a fencing token.
                fencing_token=revision if record.fencing_token is None else record.fencing_token,
                revision=revision,
                worker=self._worker,
            )
        )

    def denied(self, rpc: str, reason: str, *, project: str, name: str, by: str, token: str) -> None:
        """Tell that somebody was not allowed to do something.

        Args:
            rpc: The short name of the method.
            reason: Why, in capitals.
            project: What for, as the caller wrote it.
            name: Likewise.
            by: Who.
            token: The proposing_peer_token, if there was one; its fingerprint is told.
        """
        self._put(
            Line(
                time=datetime.now(UTC),
                level="WARNING",
                logger=LOGGER,
                message="denied",
                rpc=rpc,
                project=project,
                name=name,
                by=by,
                token=fingerprint(token) if token else "",
                reason=reason,
                worker=self._worker,
            )
        )

    def flush(self) -> None:
        """Hand on what waits for its neighbours."""
        some, self._waiting = self._waiting, []
        if some:
            some.append(b"")
            self._lines.put(b"\n".join(some), len(some) - 1)

    def _put(self, line: Line) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_later(_SOON_SECONDS, self.flush)
        self._waiting.append(self._write(line))

    def _text(self, line: Line) -> bytes:
        what = f"{line.event} " if line.event else ""
        facts = f"{line.rpc}, token {line.token or 'none'}"
        if line.revision:
            facts += f", fencing token {line.fencing_token}, revision {line.revision}"
        if line.reason:
            facts += f", {line.reason}"
        when = f"{_second(int(line.time.timestamp()))},{line.time.microsecond // 1000:03d}"
        who = f"{self._who} " if self._who else ""
        told = shown(f"{line.message}: {what}{line.project}/{line.name} by {line.by} ({facts})")
        return f"{when} {line.level} {who}{LOGGER}: {told}".encode(errors="backslashreplace")


@functools.lru_cache(maxsize=4_096)
def fingerprint(token: str) -> str:
    """Return what tells a token from others without giving it away."""
    return hashlib.sha256(token.encode(errors="backslashreplace")).hexdigest()[:12]


@functools.lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    """Return a time as logging writes it, without its milliseconds."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
