"""Certificates that only seem to be good are refused by the name of their file, before OpenSSL or gRPC gets them."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import Authority, KeyPair

from operation_service.etcd_tls import kept_context
from operation_service.server_tls import ServerCertificates
from operation_service.settings_error import SettingsError
from operation_service.settings_tls import EtcdAccess, ServerTls

FLAGS = ("--tls-cert", "--tls-client-ca", "--etcd-ca", "--etcd-cert")
UNREADABLE = "there is no certificate in it that can be read as PEM"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def own(authority: Authority) -> KeyPair:
    return authority.server()


def changed(cert: bytes, old: bytes, new: bytes) -> bytes:
    """Change bytes in a certificate: nobody looks at its signature."""
    der = base64.b64decode(b"".join(cert.splitlines()[1:-1]))
    assert old in der
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der.replace(old, new)) + b"-----END CERTIFICATE-----\n"


def of_a_version_that_there_is_not(cert: bytes) -> bytes:
    return changed(cert, b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x31")


def with_a_name_that_is_no_text(cert: bytes) -> bytes:
    return changed(cert, b"authority", b"authorit\xd5")


def with_half_of_another(cert: bytes) -> bytes:
    return cert + cert[: len(cert) // 2]


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        (of_a_version_that_there_is_not, UNREADABLE),
        (with_a_name_that_is_no_text, UNREADABLE),
        (with_half_of_another, "the last certificate in it is cut off"),
    ],
)
def test_what_only_seems_to_be_a_certificate_is_refused(
    spoilt: Callable[[bytes], bytes], words: str, flag: str, authority: Authority, own: KeyPair
) -> None:
    file = authority.ca_file if flag.endswith("ca") else own.cert_file
    file.write_bytes(spoilt(file.read_bytes()))
    with pytest.raises(SettingsError, match=f"^{flag} {file}: {words}$"):
        if flag.startswith("--tls"):
            ServerCertificates(ServerTls(cert=own.cert_file, key=own.key_file, client_ca=authority.ca_file))
        else:
            kept_context(EtcdAccess(ca=authority.ca_file, cert=own.cert_file, key=own.key_file))


def test_of_no_ca_no_caller_can_have_a_certificate(authority: Authority, own: KeyPair, tmp_path: Path) -> None:
    both = tmp_path / "both"
    both.write_bytes(own.cert + authority.ca)
    ServerCertificates(ServerTls(cert=own.cert_file, key=own.key_file, client_ca=both))
    with pytest.raises(SettingsError, match=f"^--tls-client-ca {own.cert_file}: what is in it is .* of no CA$"):
        ServerCertificates(ServerTls(cert=own.cert_file, key=own.key_file, client_ca=own.cert_file))


def test_what_is_written_between_certificates_does_not_matter(authority: Authority) -> None:
    authority.ca_file.write_bytes("Autorité:\n".encode() + authority.ca + b"\n# another\n" + authority.ca)
    context = kept_context(EtcdAccess(ca=authority.ca_file)).meaning
    assert context.cert_store_stats()["x509_ca"] == 1
