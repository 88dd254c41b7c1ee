"""A file that is read again when what is in it changes, and whose last good content stays in use meanwhile.

It is read as a whole once a second, which costs little: a time of change is coarser than two writes can be, and says
nothing of where a link leads (Kubernetes replaces files by pointing a link elsewhere).
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from operation_service.regular_file import content
from operation_service.settings_error import SettingsError

_log = logging.getLogger(__name__)

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
        self._content = self._seen = content(flag, file)
        self._trouble = ""
        self._told = ""
        self.meaning = understand(self._content, file)

    async def look(self) -> bool:
        """Look once, and return whether it means something else now.

        What is new is taken when it is the same at the next look: a policy that is half written may be a good one.
        A file system that does not answer keeps what is in use in use.
        """
        try:
            found = await asyncio.to_thread(content, self._flag, self._file)
            is_settled, self._seen = found == self._seen, found
            if found == self._content or not is_settled:
                self._is_well(found)
                return False
            self.meaning = await asyncio.to_thread(self._understand, found, self._file)
        except SettingsError as error:
            self._tell_of(str(error))
            return False
        self._content = found
        self._trouble = self._told = ""
        _log.info("%s %s: what is in it now is in use", self._flag, self._file)
        return True

    def _is_well(self, found: bytes) -> None:
        if found != self._content:
            return
        if self._told:
            _log.info("%s %s: what is in use is in it again", self._flag, self._file)
        self._trouble = self._told = ""

    def _tell_of(self, trouble: str) -> None:
        """Tell of trouble once, and not of what is over a second later: a file may be half written."""
        if trouble == self._trouble and trouble != self._told:
            self._told = trouble
            _log.error("what was read before stays in use: %s", trouble)
        self._trouble = trouble
