"""The password of the user of etcd that the service is, in the first line of a file."""

from pathlib import Path

from operation_service.kept_files import KeptFiles
from operation_service.settings_error import SettingsError

_FLAG = "--etcd-password-file"


def kept_password(file: Path) -> KeptFiles[str]:
    """Return the first line of a file, without its end, as it is kept.

    Raises:
        SettingsError: The file cannot be read, or its first line is empty.
    """
    return KeptFiles({_FLAG: file}, lambda found: _first_line(found[_FLAG], file))


def _first_line(found: bytes, file: Path) -> str:
    try:
        password = found.decode().partition("\n")[0].removesuffix("\r")
    except UnicodeDecodeError:
        # Without its cause: that holds what the file has.
        raise SettingsError(f"{_FLAG} {file}: it is no text in UTF-8") from None
    if not password:
        raise SettingsError(f"{_FLAG} {file}: its first line is empty")
    return password
