"""Certificates that tests make: of an authority of their own, for servers and callers, good and bad."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class KeyPair:
    """A certificate with its chain, and its private key, as PEM and as files."""

    cert: bytes
    key: bytes
    cert_file: Path
    key_file: Path


class Authority:
    """A CA. Its own certificate is `ca` and `ca_file`, as PEM."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(self._subject, self._subject, self._key.public_key(), _later(-1), _later(365))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.ca = _pem(builder.sign(self._key, hashes.SHA256()))
        self.ca_file = folder / f"{name}.crt"
        self.ca_file.write_bytes(self.ca)

    def issue(
        self,
        file: str,
        *,
        dns: tuple[str, ...] = (),
        uris: tuple[str, ...] = (),
        common_name: str = "",
        ips: tuple[str, ...] = (),
        days: tuple[float, float] = (-1, 30),
    ) -> KeyPair:
        """Issue a certificate for both sides, valid from and until so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
        builder = _builder(x509.Name(attributes), self._subject, key.public_key(), _later(days[0]), _later(days[1]))
        names: list[x509.GeneralName] = [
            *map(x509.UniformResourceIdentifier, uris),
            *map(x509.DNSName, dns),
            *(x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips),
        ]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        cert = _pem(builder.sign(self._key, hashes.SHA256()))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        cert_file, key_file = self._folder / f"{file}.crt", self._folder / f"{file}.key"
        cert_file.write_bytes(cert)
        key_file.write_bytes(private)
        return KeyPair(cert, private, cert_file, key_file)

    def server(self, file: str = "server", *, days: tuple[float, float] = (-1, 30)) -> KeyPair:
        """Issue a certificate for a server on loopback."""
        return self.issue(file, dns=("localhost",), ips=("127.0.0.1", "::1"), days=days)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)


def _later(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def _pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)
