"""Reads files that flags name: whole ones, of a size that such files have."""

import stat
from collections.abc import Mapping
from pathlib import Path

from operation_service.settings_error import SettingsError

_MAX_BYTES = 1024 * 1024
"""The bundle of all public CAs has a quarter of it."""


def content(flag: str, file: Path) -> bytes:
    """Return what is in a file, through whatever links lead to it at this moment.

    Raises:
        SettingsError: It cannot be read, is none, or has more than 1 MiB.
    """
    try:
        # Not what never ends, or waits for a writer.
        if not stat.S_ISREG(file.stat().st_mode):
            raise SettingsError(f"{flag} {file}: it is not a file")
        with file.open("rb") as opened:
            found = opened.read(_MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{flag} {file}: it cannot be read: {error.strerror or error}") from error
    if len(found) > _MAX_BYTES:
        raise SettingsError(f"{flag} {file}: it has more than {_MAX_BYTES} bytes")
    return found


def contents(files: Mapping[str, Path]) -> dict[str, bytes]:
    """Return what is in some files, by the flags that name them. Raises like `content`."""
    return {flag: content(flag, file) for flag, file in files.items()}
