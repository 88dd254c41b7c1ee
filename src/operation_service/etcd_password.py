"""The password of the user of etcd that the service is, in the first line of a file."""

from pathlib import Path

from operation_service.regular_file import content
from operation_service.settings_error import SettingsError


def read_password(file: Path) -> str:
    """Return the first line of a file, without its end.

    Raises:
        SettingsError: The file cannot be read, or its first line is empty.
    """
    try:
        password = content("--etcd-password-file", file).decode().partition("\n")[0].removesuffix("\r")
    except UnicodeDecodeError:
        # Without its cause: that holds what the file has.
        raise SettingsError(f"--etcd-password-file: {file} is no text in UTF-8") from None
    if not password:
        raise SettingsError(f"--etcd-password-file: the first line of {file} is empty")
    return password
