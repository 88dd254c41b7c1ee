"""TLS towards etcd: whose certificates it believes, and which one the service shows.

The files are looked at again for every new connection, so whoever renews a certificate need not start the service
again. A file that is broken then, as for a moment while it is being replaced, takes nothing away: the last good ones
stay in use, and the log says so once.
"""

import logging
import ssl
from pathlib import Path

from cryptography import x509

from operation_service.regular_file import content
from operation_service.settings_error import SettingsError
from operation_service.settings_tls import EtcdAccess

_log = logging.getLogger(__name__)


class EtcdTls:
    """Makes contexts for connections to etcd.

    Args:
        access: The files.

    Raises:
        SettingsError: One of them cannot be used.
    """

    def __init__(self, access: EtcdAccess) -> None:
        self._access = access
        self._contents = _read(access)
        self._context = _made(access, self._contents)
        self._complaint = ""

    def context(self) -> ssl.SSLContext:
        """Return what a new connection is made with: of the files as they are now, or as they last were of use."""
        try:
            contents = _read(self._access)
            if contents != self._contents:
                self._context = _made(self._access, contents)
                # What was read before: should a file have changed since, it is loaded again next time.
                self._contents = contents
                _log.info("new certificates are used towards etcd")
            self._complaint = ""
        except SettingsError as error:
            if str(error) != self._complaint:
                _log.error("%s: the certificates that were read before stay in use towards etcd", error)
            self._complaint = str(error)
        return self._context


def _read(access: EtcdAccess) -> tuple[bytes, ...]:
    flags = (("--etcd-ca", access.ca), ("--etcd-cert", access.cert), ("--etcd-key", access.key))
    return tuple(b"" if file is None else content(flag, file) for flag, file in flags)


def _made(access: EtcdAccess, contents: tuple[bytes, ...]) -> ssl.SSLContext:
    context = _believing(access, contents[0])
    context.set_alpn_protocols(["h2"])
    if access.cert is not None and access.key is not None:
        _show(context, access.cert, access.key, contents[1])
    return context


def _believing(access: EtcdAccess, ca: bytes) -> ssl.SSLContext:
    if access.ca is None:
        return ssl.create_default_context()
    if b"-----BEGIN" not in ca:
        # To OpenSSL nothing at all would do.
        raise SettingsError(f"--etcd-ca: {access.ca} holds no certificates as PEM")
    try:
        return ssl.create_default_context(cadata=ca.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(f"--etcd-ca: {access.ca} holds no certificates as PEM") from error


def _show(context: ssl.SSLContext, cert: Path, key: Path, certs: bytes) -> None:
    try:
        x509.load_pem_x509_certificates(certs)
    except ValueError as error:
        raise SettingsError(f"--etcd-cert: {cert} holds no certificate as PEM") from error
    is_encrypted = False

    def password() -> str:
        # Without this, OpenSSL would ask for it on the terminal.
        nonlocal is_encrypted
        is_encrypted = True
        return ""

    try:
        context.load_cert_chain(cert, key, password)
    except OSError as error:  # ssl.SSLError is one.
        if is_encrypted:
            raise SettingsError(f"--etcd-key: {key} is encrypted: give a key without a password") from error
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            raise SettingsError(
                f"--etcd-key: {key} is not the private key of the certificate in {cert} (--etcd-cert)"
            ) from error
        raise SettingsError(f"--etcd-key: {key} holds no private key as PEM") from error
