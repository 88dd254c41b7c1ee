"""The live table of `operation-service watch`: what is going on, and what has just ended."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

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
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._lock = threading.Lock()

    def take(self, record: pb.OperationRecord) -> None:
        """Show an operation as it is now."""
        with self._lock:
            self._seen.pop((record.project, record.name), None)
            self._seen[record.project, record.name] = _Seen(record, time.monotonic())
            over = [key for key, seen in self._seen.items() if seen.record.state in OVER]
            for key in over[:-_MAX_OVER]:
                del self._seen[key]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Show as many as there is room for."""
        with self._lock:
            newest_first = list(reversed(self._seen.values()))
        now = time.monotonic()
        newest_first.sort(key=lambda seen: seen.record.state in OVER)
        room = max(1, options.size.height - _BESIDE_ROWS)
        rows = [
            row(seen.record, seen.record.remaining.ToTimedelta().total_seconds() - (now - seen.at))
            for seen in newest_first[:room]
        ]
        yield operations_table(rows, options.max_width)


def show(changes: Iterable[pb.WatchOperationsResponse]) -> None:
    """Show changes on the terminal, as a table that follows them, until they end."""
    table = LiveTable()
    with Live(table, console=Console(highlight=False), refresh_per_second=_REDRAWS_A_SECOND, vertical_overflow="crop"):
        for change in changes:
            table.take(change.operation)
