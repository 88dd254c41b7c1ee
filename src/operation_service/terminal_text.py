"""Text that others have written, made safe for a terminal: what would move its cursor or change its colours is escaped.

Names, holders, logs and errors come from whoever calls the service.
"""

import json
from typing import Any

_BMP = 0x10000


def shown(text: str) -> str:
    r"""Return text with everything that is not printable as an escape, `\x1b` say; that makes it one line, too."""
    return text if text.isprintable() else "".join(map(_shown, text))


def as_json(value: Any, indent: int | None = None) -> str:  # noqa: ANN401, whatever JSON takes
    """Write JSON: readable in every language, with what is not printable as JSON's own escapes.

    Args:
        value: What to write.
        indent: By how many spaces; None: all in one line.
    """
    written = json.dumps(value, ensure_ascii=False, indent=indent)
    # Line feeds stand between values only; within strings they are escaped already.
    return "".join(char if char.isprintable() or char == "\n" else _json_escaped(char) for char in written)


def _shown(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")


def _json_escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < _BMP else json.dumps(char)[1:-1]
