"""What a review found in how certificates are read; each test fails until it is mended."""

import base64
from pathlib import Path

import pytest
from certificates import Authority, KeyPair

from operation_service.etcd_tls import EtcdTls
from operation_service.server_tls import ServerCertificates
from operation_service.settings_error import SettingsError
from operation_service.settings_tls import EtcdAccess, ServerTls


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def own(authority: Authority) -> KeyPair:
    return authority.server()


def of_a_version_that_there_is_not(cert: bytes) -> bytes:
    der = base64.b64decode(b"".join(cert.splitlines()[1:-1]))
    version = b"\xa0\x03\x02\x01"
    assert version + b"\x02" in der
    der = der.replace(version + b"\x02", version + b"\x31", 1)
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("file", ["own", "client CA"])
def test_a_certificate_of_an_unknown_version_is_told_in_a_line(file: str, authority: Authority, own: KeyPair) -> None:
    spoilt = own.cert_file if file == "own" else authority.ca_file
    spoilt.write_bytes(of_a_version_that_there_is_not(spoilt.read_bytes()))
    with pytest.raises(SettingsError):
        ServerCertificates(ServerTls(cert=own.cert_file, key=own.key_file, client_ca=authority.ca_file))


def test_a_certificate_of_an_unknown_version_leaves_the_one_before_in_use(own: KeyPair) -> None:
    certificates = ServerCertificates(ServerTls(cert=own.cert_file, key=own.key_file))
    own.cert_file.write_bytes(of_a_version_that_there_is_not(own.cert))
    certificates.look()


def test_a_certificate_of_an_unknown_version_towards_etcd_leaves_the_one_before_in_use(
    authority: Authority, own: KeyPair
) -> None:
    tls = EtcdTls(EtcdAccess(ca=authority.ca_file, cert=own.cert_file, key=own.key_file))
    before = tls.context()
    own.cert_file.write_bytes(of_a_version_that_there_is_not(own.cert))
    assert tls.context() is before


def test_client_cas_that_are_half_written_are_not_taken(
    authority: Authority, own: KeyPair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The callers of the second CA would be refused until the next look."""
    second = Authority(tmp_path, "second")
    both = tmp_path / "both.crt"
    both.write_bytes(authority.ca + second.ca)
    certificates = ServerCertificates(ServerTls(cert=own.cert_file, key=own.key_file, client_ca=both))
    caplog.set_level("INFO")
    both.write_bytes(authority.ca + second.ca[: len(second.ca) // 2])
    certificates.look()
    assert not any("for connections to come" in line for line in caplog.messages)


def test_a_client_ca_that_grpc_cannot_read_is_not_said_to_be_taken(own: KeyPair, tmp_path: Path) -> None:
    """At the start it is told as a port in use; later the log says that it is in use, and the CA before stays so."""
    spoilt = Authority(tmp_path, "spoilt")
    der = base64.b64decode(b"".join(spoilt.ca.splitlines()[1:-1])).replace(b"spoilt", b"spoi\xd5t")
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"
    spoilt.ca_file.write_bytes(pem)
    with pytest.raises(SettingsError):
        ServerCertificates(ServerTls(cert=own.cert_file, key=own.key_file, client_ca=spoilt.ca_file))
