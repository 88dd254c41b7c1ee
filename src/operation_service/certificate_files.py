"""The files of a service's certificate: read, and judged as a whole, before anything is served with them.

What gRPC is given is written anew from what was understood here: it says of a certificate only that it is bad, to its
own log, and takes no more than one of the forms in which a key may be written.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from operation_service.regular_file import contents
from operation_service.settings_error import SettingsError
from operation_service.settings_tls import ServerTls

_CURVES = ("secp256r1", "secp384r1")
"""Those that gRPC serves with, and gRPC's clients take (tried with 1.85): P-521 and Ed25519 fail in each handshake."""

_BEGIN = re.compile(rb"-----BEGIN (X509 )?CERTIFICATE-----")


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the service shows to its callers, and what it wants to see of them, as PEM.

    Attributes:
        chain: The certificate, and those between it and its CA.
        key: Its private key.
        client_ca: The CAs of which callers need a certificate. None: they need none.
        begins_at: From when on the certificate is valid.
        ends_at: Until when.
    """

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    begins_at: datetime
    ends_at: datetime


def judged(found: Mapping[str, bytes], tls: ServerTls, now: datetime) -> Certificates:
    """Return what is in the files, if a service can serve with it.

    An expired certificate is refused too. No caller would take it: who starts a service with it is told at once, and
    in a rollout the one before it goes on. So is one that does not hold yet.

    Args:
        found: What is in the files, by their flags.
        tls: Their names, for what is said of them.
        now: By this machine's clock.

    Raises:
        SettingsError: No service can.
    """
    chain = certificates("--tls-cert", tls.cert, found["--tls-cert"])
    key = _private_key(tls.key, found["--tls-key"])
    own = chain[0]
    try:
        is_its_key = own.public_key() == key.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"--tls-cert {tls.cert}: its key is of a kind that cannot be read") from error
    if not is_its_key:
        raise SettingsError(f"--tls-key {tls.key}: it is not the key of the (first) certificate in {tls.cert}")
    check_is_valid("--tls-cert", tls.cert, own, now)
    client_ca = None
    if tls.client_ca is not None:
        authorities = certificates("--tls-client-ca", tls.client_ca, found["--tls-client-ca"])
        if all(authority.not_valid_after_utc < now for authority in authorities):
            raise SettingsError(f"--tls-client-ca {tls.client_ca}: all CAs in it have expired")
        if not any(map(_may_vouch, authorities)):
            raise SettingsError(f"--tls-client-ca {tls.client_ca}: what is in it is the certificate of no CA")
        client_ca = pem(authorities)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificates(
        chain=pem(chain),
        key=private,
        client_ca=client_ca,
        begins_at=own.not_valid_before_utc,
        ends_at=own.not_valid_after_utc,
    )


def certificates_of(tls: ServerTls) -> Certificates:
    """Return what is in the files now.

    Raises:
        SettingsError: No service can serve with it.
    """
    return judged(contents(tls.files), tls, datetime.now(UTC))


def check_is_valid(flag: str, file: Path, certificate: x509.Certificate, now: datetime) -> None:
    """Check that a certificate has neither expired nor is one for later.

    Raises:
        SettingsError: It has, or is.
    """
    if certificate.not_valid_after_utc < now:
        raise SettingsError(f"{flag} {file}: it has expired, on {moment(certificate.not_valid_after_utc)}")
    if certificate.not_valid_before_utc > now:
        raise SettingsError(f"{flag} {file}: it is not valid before {moment(certificate.not_valid_before_utc)}")


def certificates(flag: str, file: Path, found: bytes) -> list[x509.Certificate]:
    """Return what certificates are in a file, at least one, and all that begin in it.

    Raises:
        SettingsError: There is none, or one that cannot be read.
    """
    try:
        read = x509.load_pem_x509_certificates(found)
        for each in read:
            # Their names are looked into only when somebody asks, and gRPC does so too late.
            _ = each.subject, each.issuer
    except (ValueError, x509.InvalidVersion) as error:
        raise SettingsError(f"{flag} {file}: there is no certificate in it that can be read as PEM") from error
    if len(read) != len(_BEGIN.findall(found)):
        raise SettingsError(f"{flag} {file}: the last certificate in it is cut off")
    return read


def _may_vouch(certificate: x509.Certificate) -> bool:
    """Whether a caller can be known by a certificate: that of a CA, or of the very caller, if it is self-signed."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        # The first CAs had none.
        return certificate.version is x509.Version.v1 or certificate.subject == certificate.issuer
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        # What cannot be read here is for gRPC to judge.
        return True
    return constraints.ca or certificate.subject == certificate.issuer


def _private_key(file: Path, found: bytes) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(found, None)
    except TypeError as error:
        raise SettingsError(f"--tls-key {file}: it is encrypted: write it there without a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"--tls-key {file}: there is no private key in it that can be read as PEM") from error
    if isinstance(key, rsa.RSAPrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES
    ):
        return key
    raise SettingsError(f"--tls-key {file}: it must be an RSA key, or one of the curves P-256 and P-384")


def pem(certificates: list[x509.Certificate]) -> bytes:
    """Return certificates as they are written, and nothing else that was between them."""
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def moment(at: datetime) -> str:
    """Return a time as people read it."""
    return f"{at:%Y-%m-%d %H:%M} UTC"
