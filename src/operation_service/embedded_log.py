"""What the embedded etcd writes, and what of that is worth telling people."""

import contextlib
import json
import os
from pathlib import Path
from typing import BinaryIO

_MAX_BYTES = 8 * 1024 * 1024
"""From this size on, the next start of etcd begins a new log; one old log is kept."""

_TAIL_BYTES = 64 * 1024
_WORDS_MAX_CHARS = 500


class EtcdLog:
    """etcd's output, of all its starts, in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = 0

    def open(self) -> BinaryIO:
        """Open the log for another start of etcd, a new one if it has become too large.

        Raises:
            OSError: It cannot be written.
        """
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size >= _MAX_BYTES:
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        log = self._path.open("ab")
        self._start = log.tell()
        return log

    def last_words(self) -> str:
        """Quote what etcd wrote last since the last `open`: why it ended, if it said so; on one line."""
        try:
            with self._path.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._start, end - _TAIL_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError as error:
            return f"{self._path} cannot be read: {error.strerror}"
        spoken = [line for line in lines if line.strip()]
        # The last line is often not the one: a panic has its stack behind it, gRPC complains of the closed port.
        telling = [line for line in spoken if _is_fatal(line)]
        words = (telling or spoken or ["it said nothing"])[-1]
        return _readable(words)[:_WORDS_MAX_CHARS]


def _parsed(line: str) -> dict[str, object]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _is_fatal(line: str) -> bool:
    return line.startswith(("panic:", "fatal error:")) or _parsed(line).get("level") in {"fatal", "panic"}


def _readable(line: str) -> str:
    """Turn a line of etcd's JSON log into one for people: the message, and its facts."""
    entry = _parsed(line)
    noise = {"level", "ts", "caller", "msg", "stacktrace"}
    facts = ", ".join(f"{name}: {value}" for name, value in entry.items() if name not in noise)
    message = entry.get("msg", line.strip())
    return f"{message} ({facts})" if facts else f"{message}"
