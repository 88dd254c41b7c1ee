"""Files that are read again when what is in them changes, and whose last good content stays in use meanwhile.

They are read as a whole once a second, which costs little: a time of change is coarser than two writes can be, and says
nothing of where a link leads (Kubernetes replaces files by pointing a link elsewhere).

A file system that does not answer, a dead network mount say, holds up neither the event loop nor the end of the
process, and no more than one thread for each of these: what is in use stays in use, and the log says why.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from operation_service.daemon_thread import NoThreadError, in_daemon_thread
from operation_service.regular_file import contents
from operation_service.settings_error import SettingsError

_log = logging.getLogger(__name__)

EVERY_SECONDS = 1.0
_PATIENCE_SECONDS = 1.0

Meaning = TypeVar("Meaning")


class KeptFiles(Generic[Meaning]):
    """What some files mean together, always by their newest good content.

    Args:
        files: Their names, by the flags that name them.
        understand: Returns what contents mean, by flag, or raises SettingsError. Called in a thread of its own.
        settles: Whether what is new is taken only when the next look finds the same, since half written it may be good,
            and once refused is refused for good: a large policy takes time. What is only good if its parts fit
            together is taken at once, and may become good as time goes by.

    Attributes:
        meaning: What they mean. It changes on the event loop only.

    Raises:
        SettingsError: One cannot be read, or they are not good.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        understand: Callable[[Mapping[str, bytes]], Meaning],
        *,
        settles: bool = False,
    ) -> None:
        self._files = files
        self._understand = understand
        self._settles = settles
        self._contents = self._seen = contents(self._files)
        self._refused: tuple[Mapping[str, bytes], str] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._trouble = ""
        self._told = ""
        self.meaning = understand(self._contents)

    async def run(self) -> None:
        """Look after them until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            await self.look()

    async def look(self, seconds: float = _PATIENCE_SECONDS) -> None:
        """Look once.

        Args:
            seconds: For how long to wait at most. A look that is not over by then goes on, and is the next one too.
        """
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        done, _ = await asyncio.wait({self._looking}, timeout=seconds)
        for looking in done:
            looking.result()
        if not done:
            self._tell_of(f"{self._named(self._files)}: it takes long to read: does its file system answer?")

    async def _look(self) -> None:
        try:
            found = await in_daemon_thread(lambda: contents(self._files))
            is_settled, self._seen = found == self._seen, found
            changed = [flag for flag in found if found[flag] != self._contents[flag]]
            if changed and (is_settled or not self._settles):
                self.meaning = await self._understood(found)
                self._contents = found
                where = "it" if len(changed) == 1 else "them"
                _log.info("%s: what is in %s now is in use", self._named(changed), where)
            elif changed:
                return
            elif self._told:
                _log.info("%s: what is in use is there again", self._named(self._files))
            self._trouble = self._told = ""
        except SettingsError as error:
            self._tell_of(str(error))
        except NoThreadError as error:
            self._tell_of(f"{self._named(self._files)}: it cannot be read: {error}")

    async def _understood(self, found: Mapping[str, bytes]) -> Meaning:
        if self._refused is not None and self._refused[0] == found:
            raise SettingsError(self._refused[1])
        self._refused = None
        try:
            return await in_daemon_thread(lambda: self._understand(found))
        except SettingsError as error:
            if self._settles:
                self._refused = found, str(error)
            raise

    def _named(self, flags: Iterable[str]) -> str:
        return ", ".join(f"{flag} {self._files[flag]}" for flag in flags)

    def _tell_of(self, trouble: str) -> None:
        """Tell of trouble once, and not of what is over a second later: files are replaced one after the other."""
        if trouble == self._trouble and trouble != self._told:
            self._told = trouble
            _log.error("what was read before stays in use: %s", trouble)
        self._trouble = trouble
