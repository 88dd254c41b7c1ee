"""Where log lines go, and what they look like.

Whatever a caller has sent, it is within one line: what is not printable is escaped.
"""

import contextlib
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from operation_service.lines import Lines
from operation_service.terminal_text import shown

LogFormat = Literal["text", "json"]

_FLUSH_SECONDS = 1.0
"""At the end of the process. If nobody reads the lines by then, nobody will."""

_encode = msgspec.json.Encoder().encode


def log_to_standard_error(who: str = "", log_format: LogFormat = "text") -> Lines:
    """Write log lines to standard error; return the way there.

    Args:
        who: Which of several processes writes them. Empty: there is only one, or the one that speaks for all.
        log_format: Lines for people, or an object of JSON each.
    """
    formatter = JsonFormatter(who) if log_format == "json" else TextFormatter(who)

    def lost(count: int) -> bytes:
        told = "%d log lines are lost: standard error was not read"
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, told, (count,), None)
        return written(formatter, record)

    lines = Lines(sys.stderr.fileno(), lost)
    handler = LinesHandler(lines)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    return lines


class LinesHandler(logging.Handler):
    """Hands log records to the lines.

    Args:
        lines: Where they go.
    """

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written before long."""
        try:
            self._lines.put(written(self.formatter or TextFormatter(), record))
        except Exception:  # noqa: BLE001, as logging's own handlers do
            self.handleError(record)

    def flush(self) -> None:
        """Wait until all is written, at the end of the process for one."""
        # Not with the handler's lock held, or others would wait for it to log.
        self._lines.flush(_FLUSH_SECONDS)


def written(formatter: logging.Formatter, record: logging.LogRecord) -> bytes:
    """Return a record as it is written."""
    return formatter.format(record).encode(errors="backslashreplace") + b"\n"


class TextFormatter(logging.Formatter):
    """A line for people; of an exception, what follows it is indented, so that no other line can be taken for one.

    Args:
        who: Stands in each line, if not empty.
    """

    def __init__(self, who: str = "") -> None:
        super().__init__(f"%(asctime)s %(levelname)s {who}{' ' if who else ''}%(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, logging's own
        """Return the line, without the exception."""
        record.message = shown(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802, ANN401, logging's own
        """Return the lines of an exception."""
        return "\n".join("  " + shown(line) for line in super().formatException(ei).splitlines())


class JsonFormatter(logging.Formatter):
    """An object in one line: time, level, logger and message; besides worker, exception, and the `fields` of a record.

    Args:
        who: Which worker writes, if not empty.
    """

    def __init__(self, who: str = "") -> None:
        super().__init__()
        self._who = {"worker": who.removeprefix("worker ")} if who else {}

    def format(self, record: logging.LogRecord) -> str:
        """Return the object."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "logger": record.name,
            **self._who,
            "message": _utf8(record.getMessage()),
        }
        with contextlib.suppress(AttributeError):
            told |= {key: _utf8(f"{value}") for key, value in record.fields.items()}  # type: ignore[attr-defined]
        if record.exc_info:
            told["exception"] = _utf8(self.formatException(record.exc_info))
        return _encode(told).decode()


def _utf8(text: str) -> str:
    """Return text that can be written: half a character, as Python makes of wrong bytes, is escaped."""
    return text.encode(errors="backslashreplace").decode()
