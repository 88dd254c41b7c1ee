"""The certificates of compose.yaml: of two authorities, one for etcd and one for the service.

`certificates.py FOLDER UID [NAME...]` writes

    FOLDER/etcd      ca.crt, tls.crt, tls.key                      etcd's, towards whom it serves
    FOLDER/service   ca.crt, tls.crt, tls.key                      the service's, towards its callers; for the NAMEs
                     etcd-ca.crt, etcd.crt, etcd.key               the service's, towards etcd

Keys can be read by UID alone. The authorities' own keys are written nowhere: nobody can issue more. What is there is
kept until a month before its end; then all of it is made anew. To try things out: where certificates count they come
from an authority that outlives a `docker compose down --volumes`.
"""

import ipaddress
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAYS = 365
RENEW_DAYS = 30
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Authority:
    """A CA, for as long as this runs."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        builder = _builder(self._name, self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self._cert = builder.sign(self._key, hashes.SHA256())

    def issue(self, folder: Path, names: tuple[str, ...], *, ca: str = "ca", pair: str = "tls", uid: int) -> None:
        """Write a certificate for both sides of a connection, its key, and the CA's certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = _builder(_named(names[0]), self._name, key.public_key())
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_general, names))), critical=False)
        cert = builder.add_extension(usages, critical=False).sign(self._key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(folder / f"{ca}.crt", self._cert.public_bytes(serialization.Encoding.PEM), 0o444)
        _write(folder / f"{pair}.key", private, 0o400, uid)
        _write(folder / f"{pair}.crt", cert.public_bytes(serialization.Encoding.PEM), 0o444)


def make(folder: Path, uid: int, names: tuple[str, ...]) -> bool:
    """Write all files, unless they are good for another month and for these names.

    Args:
        folder: Where `etcd` and `service` are, or are to be.
        uid: Who may read the keys.
        names: What callers call the service, besides loopback's names.

    Returns:
        Whether they were written.
    """
    etcd, service = folder / "etcd", folder / "service"
    names = (*names, *LOOPBACK)
    good = _is_good(etcd / "tls.crt", ("etcd", *LOOPBACK)) and _is_good(service / "etcd.crt", ("operation-service",))
    if good and _is_good(service / "tls.crt", names):
        return False
    for each in (etcd, service):
        each.mkdir(parents=True, exist_ok=True)
    of_etcd, of_service = Authority("etcd of compose.yaml"), Authority("operation service of compose.yaml")
    of_etcd.issue(etcd, ("etcd", *LOOPBACK), uid=uid)
    of_etcd.issue(service, ("operation-service",), ca="etcd-ca", pair="etcd", uid=uid)
    # Last: as long as it is missing, a run that broke off is done again.
    of_service.issue(service, names, uid=uid)
    return True


def _is_good(path: Path, names: tuple[str, ...]) -> bool:
    if not path.exists():
        return False
    cert = x509.load_pem_x509_certificate(path.read_bytes())
    alternatives = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    lasts = cert.not_valid_after_utc - datetime.now(UTC) > timedelta(days=RENEW_DAYS)
    return lasts and all(_general(name) in alternatives for name in names)


def _write(path: Path, content: bytes, mode: int, uid: int | None = None) -> None:
    """Replace a file at once: nobody ever sees half of it, or may read it for a moment who may not."""
    new = path.with_name(f".{path.name}")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
        if uid is not None:
            os.fchown(file.fileno(), uid, -1)
    new.replace(path)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    # An hour ago: the clocks of containers and callers need not agree to the second.
    return builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=DAYS))


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [folder, uid, *names] if uid.isdecimal():
            print("written" if make(Path(folder), int(uid), tuple(names)) else "good for another month")
        case _:
            sys.exit(f"usage: {sys.argv[0]} FOLDER UID [NAME...]")
