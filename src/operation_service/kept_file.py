"""A file that is read again when what is in it changes, and whose last good content stays in use meanwhile.

It is read as a whole once a second, which costs little: a time of change is coarser than two writes can be, and says
nothing of where a link leads (Kubernetes replaces files by pointing a link elsewhere).
"""

import asyncio
import logging
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from operation_service.settings_error import SettingsError

_log = logging.getLogger(__name__)

_MAX_BYTES = 1024 * 1024

Meaning = TypeVar("Meaning")


class KeptFile(Generic[Meaning]):
    """What a file means, always by its newest good content.

    Args:
        flag: The flag that names it.
        file: Its name.
        understand: Returns what some content means, or raises SettingsError.

    Attributes:
        meaning: What it means.

    Raises:
        SettingsError: It cannot be read, or is not good.
    """

    def __init__(self, flag: str, file: Path, understand: Callable[[bytes, Path], Meaning]) -> None:
        self._flag = flag
        self._file = file
        self._understand = understand
        self._content = _read(flag, file)
        self._trouble = ""
        self._told = ""
        self.meaning = understand(self._content, file)

    async def look(self) -> bool:
        """Look once, and return whether it means something else now.

        A file system that does not answer holds up nothing but this: what is in use stays in use.
        """
        try:
            found = await asyncio.to_thread(self._news)
        except SettingsError as error:
            self._tell_of(str(error))
            return False
        self._trouble = self._told = ""
        if found is None:
            return False
        self._content, self.meaning = found
        _log.info("%s %s: what is in it now is in use", self._flag, self._file)
        return True

    def _news(self) -> tuple[bytes, Meaning] | None:
        content = _read(self._flag, self._file)
        return None if content == self._content else (content, self._understand(content, self._file))

    def _tell_of(self, trouble: str) -> None:
        """Tell of trouble once, and not of what is over a second later: a file may be half written."""
        if trouble == self._trouble and trouble != self._told:
            self._told = trouble
            _log.error("what was read before stays in use: %s", trouble)
        self._trouble = trouble


def _read(flag: str, file: Path) -> bytes:
    try:
        # Not what never ends, or waits for a writer.
        if not stat.S_ISREG(file.stat().st_mode):
            raise SettingsError(f"{flag} {file}: it is not a file")
        with file.open("rb") as opened:
            content = opened.read(_MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{flag} {file}: it cannot be read: {error.strerror or error}") from error
    if len(content) > _MAX_BYTES:
        raise SettingsError(f"{flag} {file}: it has more than {_MAX_BYTES} bytes")
    return content
