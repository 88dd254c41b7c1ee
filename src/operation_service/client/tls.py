"""TLS of a client: whom it takes for the service, and who it says it is itself."""

import logging
import os
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

import grpc

_log = logging.getLogger(__name__)

_EVERY_SECONDS = 1.0
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where Debian, Fedora, SUSE and Alpine have the CAs of a machine."""

File = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How a client and the service know each other. All files are PEM.

    Attributes:
        ca: The file with the CAs of the service's certificate. None: this machine's, or those that come with gRPC where
            it has none.
        cert: The file with the client's own certificate, and those between it and its CA. None: it has none.
        key: The file with that certificate's private key, not encrypted.
        server_name: The name that the service's certificate has to be for. None: that of the target.

    Raises:
        ValueError: A certificate without its key, or the other way round.
    """

    ca: File | None = None
    cert: File | None = None
    key: File | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("a certificate and its key go together: give both cert and key, or neither")


class TlsFiles:
    """The files of a Tls, read again when they change.

    Args:
        tls: Which files.

    Attributes:
        credentials: What gRPC connects with: made of the newest files that were good.

    Raises:
        ValueError: One of them cannot be used.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._looked_at = time.monotonic()
        self._seen = _marks(tls)
        self._told = ""
        self.credentials = _credentials(tls)

    def have_changed(self) -> bool:
        """Whether there are other credentials now. Looks once a second at most; bad files never count."""
        now = time.monotonic()
        if now - self._looked_at < _EVERY_SECONDS:
            return False
        self._looked_at = now
        try:
            # Before they are read: what changes meanwhile is noticed by the next look.
            marks = _marks(self._tls)
            if marks == self._seen:
                return False
            self.credentials = _credentials(self._tls)
        except ValueError as error:
            # One file after the other is replaced: the next look may find them whole.
            if str(error) != self._told:
                self._told = str(error)
                _log.warning("the files from before stay in use: %s", error)
            return False
        self._seen, self._told = marks, ""
        return True


def _marks(tls: Tls) -> tuple[tuple[int, ...], ...]:
    """Return what is another when a file is, or when a link on the way to it leads elsewhere."""
    marks = []
    for file in (tls.ca, tls.cert, tls.key):
        if file is not None:
            try:
                found = Path(file).stat()
            except OSError as error:
                raise _unreadable(file, error) from error
            marks.append((found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size))
    return tuple(marks)


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Read the files, and see that they can be used: gRPC would only fail to connect, again and again."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authorities = key = cert = None
    if tls.ca is not None:
        authorities = _content(tls.ca)
        try:
            context.load_verify_locations(tls.ca)
        except OSError as error:
            raise ValueError(f"{os.fspath(tls.ca)}: there is no certificate in it that can be read as PEM") from error
    else:
        authorities = _of_this_machine()
    if tls.cert is not None and tls.key is not None:
        cert, key = _content(tls.cert), _content(tls.key)
        try:
            # An encrypted key must not ask a terminal for its password.
            context.load_cert_chain(tls.cert, tls.key, password=lambda: b"")
        except OSError as error:
            raise ValueError(
                f"{os.fspath(tls.key)}: it is not the key of the certificate in {os.fspath(tls.cert)}, or one of them "
                "cannot be read as PEM, or the key is encrypted"
            ) from error
    return grpc.ssl_channel_credentials(authorities, key, cert)


def _of_this_machine() -> bytes | None:
    """Return this machine's CAs, which gRPC does not look for by itself. None: it has none."""
    named = os.environ.get("SSL_CERT_FILE")
    if named:
        return _content(named)
    for bundle in (ssl.get_default_verify_paths().cafile, *_BUNDLES):
        if bundle and Path(bundle).is_file():
            return _content(bundle)
    return None


def _content(file: File) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: File, error: OSError) -> ValueError:
    return ValueError(f"{os.fspath(file)}: it cannot be read: {error.strerror or error}")
