"""The token by which the service knows who calls. It is never shown: not in a repr, and not in an error."""

import ipaddress
import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from operation_service.client.errors import Facts, UnavailableError

AUTHORIZATION = "authorization"
_MAX_FILE_BYTES = 64 * 1024
_TOKEN = re.compile(r"[!-~]+")
MAX_TOKEN_BYTES = 7 * 1024
"""From 8 KiB of headers on gRPC may refuse a call, by chance, and from 16 KiB on it does. The other headers of a call,
and what gRPC counts for each of them, are below 1 KiB."""
_HOST = re.compile(r"(\[(?P<v6>[^\[\]]+)\]|(?P<name>[^\[\]:]+))(:[0-9]+)?")

Token = str | Callable[[], str]
"""A token, or what returns the one that is valid now."""


class UnsendableTokenError(ValueError):
    """A token that cannot be sent; the message says why, and has nothing of the token."""


class TokenFile:
    """A token in a file, which whoever renews it replaces: Kubernetes does so with that of a service account.

    Args:
        path: The file.

    Raises:
        UnsendableTokenError: There is no token in it that can be sent.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._read: tuple[tuple[int, ...], str] = ((), "")
        self()

    def __repr__(self) -> str:
        return f"TokenFile({os.fspath(self._path)!r})"

    def __call__(self) -> str:
        """Return the token that is in the file now.

        Raises:
            UnsendableTokenError: There is none that can be sent.
        """
        try:
            found = self._path.stat()
            mark = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
            before, token = self._read
            if mark != before:
                with self._path.open("rb") as opened:
                    token = opened.read(_MAX_FILE_BYTES).decode("ascii", "replace").strip()
                self._read = mark, _checked(token, "the token in it")
        except OSError as error:
            raise UnsendableTokenError(f"{self._path}: it cannot be read: {error.strerror or error}") from error
        except UnsendableTokenError as error:
            raise UnsendableTokenError(f"{self._path}: {error}") from None
        return token


class Bearer:
    """What a client sends of its token.

    Args:
        token: The token, or what returns it, which is asked for each attempt at a call.

    Raises:
        TypeError: It is neither.
        UnsendableTokenError: It cannot be sent.
    """

    def __init__(self, token: Token) -> None:
        if not callable(token) and not isinstance(token, str):
            raise TypeError("bearer_token must be a string, or a function that returns one")
        self._ask = token if callable(token) else None
        self._fixed = "" if callable(token) else f"Bearer {_checked(token)}"

    def metadata(self) -> tuple[str, str]:
        """Return what is sent with a call.

        Raises:
            UnavailableError: There is no token to send at this moment; nothing was sent.
        """
        if self._ask is None:
            return AUTHORIZATION, self._fixed
        try:
            return AUTHORIZATION, f"Bearer {_checked(self._ask())}"
        except Exception as error:
            # What others raise may have anything in it. It stays the cause, for whoever looks into that.
            why = error if isinstance(error, UnsendableTokenError) else type(error).__name__
            raise UnavailableError(f"there is no bearer token to send: {why}", Facts("UNAVAILABLE")) from error


def _checked(token: str, name: str = "bearer_token") -> str:
    """Return the token, if it can stand in a header: gRPC would show what it cannot send."""
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise UnsendableTokenError(f"{name} must be printable ASCII without spaces, and not empty")
    if len(token) > MAX_TOKEN_BYTES:
        raise UnsendableTokenError(
            f"{name} has more than {MAX_TOKEN_BYTES:,} bytes, which is more than the service takes for sure: ask for "
            "one with fewer claims"
        )
    return token


def stays_here(target: str) -> bool:
    """Whether what is sent to a target without TLS can be read on this machine alone.

    Args:
        target: As gRPC takes it.
    """
    scheme, colon, rest = target.partition(":")
    if colon and scheme in {"unix", "unix-abstract"}:
        return True
    if colon and scheme in {"ipv4", "ipv6"}:
        return all(map(_is_loopback, unquote(rest).split(",")))
    if colon and scheme == "dns":
        return _is_loopback(rest.rpartition("/")[2])
    return _is_loopback(target)


def _is_loopback(address: str) -> bool:
    found = _HOST.fullmatch(address)
    if found is None:
        return False
    host = found["v6"] or found["name"]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
