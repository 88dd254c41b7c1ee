"""Whom a certificate stands for."""

import pytest

from operation_service.identities import BadNameError, certificate_subject

PEM = {"x509_pem_cert": [b"-----BEGIN CERTIFICATE-----"]}
URI, DNS, CN = "peer_uri", "peer_dns", "x509_common_name"


@pytest.mark.parametrize(
    ("names", "subject"),
    [
        ({URI: [b"spiffe://n0stack/a", b"spiffe://n0stack/b"], DNS: [b"a.example"], CN: [b"a"]}, "spiffe://n0stack/a"),
        ({DNS: [b"a.example", b"b.example"], CN: [b"a"]}, "a.example"),
        ({CN: [b"a"]}, "a"),
        ({CN: ["é".encode()]}, "é"),
        ({URI: [], DNS: [], CN: [b"a"]}, "a"),
    ],
    ids=["URI", "DNS", "CN", "UTF-8", "none"],
)
def test_the_first_uri_counts_then_the_first_dns_name_then_the_common_name(
    names: dict[str, list[bytes]], subject: str
) -> None:
    assert certificate_subject(PEM | names) == f"certificate:{subject}"


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ({}, "the certificate has neither a URI, nor a DNS name, nor a common name (CN)"),
        ({CN: [b""]}, "the certificate has neither a URI, nor a DNS name, nor a common name (CN)"),
        ({DNS: [b""], CN: [b"a"]}, "the first DNS name of the certificate is empty"),
        ({CN: [b"\xff"]}, "the common name (CN) of the certificate is not UTF-8"),
        ({CN: [b"a\0"]}, "the common name (CN) of the certificate has characters that are not printable"),
        # Not the next one then: a certificate has one name.
        ({URI: [b"a" * 256], DNS: [b"a.example"]}, "the first URI of the certificate has more than 255 bytes"),
    ],
)
def test_a_name_that_no_policy_could_name_is_nobodys(names: dict[str, list[bytes]], why: str) -> None:
    with pytest.raises(BadNameError) as refused:
        certificate_subject(PEM | names)
    assert str(refused.value) == why


@pytest.mark.parametrize("context", [{}, {"transport_security_type": [b"ssl"]}, {CN: [b"a"]}])
def test_without_a_certificate_there_is_no_subject(context: dict[str, list[bytes]]) -> None:
    assert certificate_subject(context) is None
