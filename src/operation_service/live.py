"""The live table of `operation-service watch`: what is going on, and what has just ended."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.rows import OVER, row
from operation_service.tables import operations_table

_MAX_OVER = 1_000
"""No watch tells that the retention time of an operation is over."""
_BESIDE_ROWS = 2
"""The header, and the line that the cursor is in."""
_REDRAWS_A_SECOND = 2.0
"""What remains is shown in seconds."""


@dataclass(frozen=True, slots=True)
class _Seen:
    record: pb.OperationRecord
    at: float


class LiveTable:
    """The operations as a watch has told of them, the last change first; what is over comes behind the rest."""

    def __init__(self) -> None:
        self._going_on: dict[tuple[str, str], _Seen] = {}
        self._over: dict[tuple[str, str], _Seen] = {}
        self._lock = threading.Lock()

    def take(self, record: pb.OperationRecord) -> None:
        """Show an operation as it is now."""
        key = (record.project, record.name)
        now_in = self._over if record.state in OVER else self._going_on
        with self._lock:
            for seen in (self._going_on, self._over):
                seen.pop(key, None)
            now_in[key] = _Seen(record, time.monotonic())
            if len(self._over) > _MAX_OVER:
                del self._over[next(iter(self._over))]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Show as many as there is room for."""
        room = max(1, options.size.height - _BESIDE_ROWS)
        with self._lock:
            newest_first = chain(reversed(self._going_on.values()), reversed(self._over.values()))
            shown = list(islice(newest_first, room))
        now = time.monotonic()
        rows = [
            row(seen.record, seen.record.remaining.ToTimedelta().total_seconds() - (now - seen.at)) for seen in shown
        ]
        yield operations_table(rows, options.max_width)


def show(changes: Iterable[pb.WatchOperationsResponse]) -> None:
    """Show changes on the terminal, as a table that follows them, until they end."""
    table = LiveTable()
    with Live(table, console=Console(highlight=False), refresh_per_second=_REDRAWS_A_SECOND, vertical_overflow="crop"):
        for change in changes:
            table.take(change.operation)
