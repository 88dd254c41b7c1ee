"""TLS towards etcd: whose certificates it believes, and which one the service shows.

A new connection is made with what was last seen of the files, and waits for none of them.
"""

import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from operation_service.certificate_files import certificates, check_is_valid, pem
from operation_service.kept_files import KeptFiles
from operation_service.settings_error import SettingsError
from operation_service.settings_tls import EtcdAccess


def kept_context(access: EtcdAccess) -> KeptFiles[ssl.SSLContext]:
    """Return what new connections to etcd are made with, as it is kept.

    Args:
        access: The files.

    Raises:
        SettingsError: One of them cannot be used.
    """
    return KeptFiles(access.tls_files, lambda found: _made(access, found))


def _made(access: EtcdAccess, found: Mapping[str, bytes]) -> ssl.SSLContext:
    context = ssl.create_default_context() if access.ca is None else _believing(access.ca, found["--etcd-ca"])
    context.set_alpn_protocols(["h2"])
    if access.cert is not None and access.key is not None:
        _show(context, access.cert, access.key, found["--etcd-cert"])
    return context


def _believing(file: Path, found: bytes) -> ssl.SSLContext:
    authorities = pem(certificates("--etcd-ca", file, found)).decode("ascii")
    try:
        return ssl.create_default_context(cadata=authorities)
    except ssl.SSLError as error:
        raise SettingsError(f"--etcd-ca {file}: there is a certificate in it that OpenSSL does not take") from error


def _show(context: ssl.SSLContext, cert: Path, key: Path, found: bytes) -> None:
    check_is_valid("--etcd-cert", cert, certificates("--etcd-cert", cert, found)[0], datetime.now(UTC))
    is_encrypted = False

    def password() -> str:
        # Without this, OpenSSL would ask for it on the terminal.
        nonlocal is_encrypted
        is_encrypted = True
        return ""

    try:
        # It takes no more than names. Should a file have changed since it was read, the next look finds that.
        context.load_cert_chain(cert, key, password)
    except OSError as error:  # ssl.SSLError is one.
        if is_encrypted:
            why = "it is encrypted: write it there without a password"
        elif getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            why = f"it is not the key of the (first) certificate in {cert}"
        else:
            why = "there is no private key in it that can be read as PEM"
        raise SettingsError(f"--etcd-key {key}: {why}") from error
