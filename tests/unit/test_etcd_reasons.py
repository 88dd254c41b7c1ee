"""What is wrong with certificates and users is told by what to set right; the texts are etcd's and OpenSSL's."""

import pytest

from operation_service.etcd_reasons import reason_of, wants_a_token


@pytest.mark.parametrize(
    ("details", "told"),
    [
        ("etcdserver: authentication failed, invalid user ID or password", "--etcd-password-file"),
        ("etcdserver: user name is empty", "--etcd-user"),
        ("etcdserver: permission denied", "--key-prefix"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired", "has expired"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: Hostname mismatch, ...", "the host name"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: IP address mismatch, ...", "the address"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] ...: unable to get local issuer certificate", "--etcd-ca"),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", "--etcd-cert"),
        ("[SSL: SSLV3_ALERT_BAD_CERTIFICATE] sslv3 alert bad certificate", "--etcd-cert"),
        ("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca", "--etcd-cert"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "http://"),
    ],
)
def test_what_can_be_set_right_is_told_by_its_flag(details: str, told: str) -> None:
    assert told in reason_of(details)


@pytest.mark.parametrize("details", ["", "failed to connect to a:1: no answer in time", "etcdserver: no leader"])
def test_an_outage_is_no_fault_of_the_flags(details: str) -> None:
    assert reason_of(details) == ""
    assert not wants_a_token(details)


@pytest.mark.parametrize(
    "details",
    [
        "etcdserver: invalid auth token",
        "etcdserver: user name is empty",
        "etcdserver: revision of auth store is old",
        "auth: revision in header is old",
    ],
)
def test_a_new_token_helps_against_an_old_one(details: str) -> None:
    assert wants_a_token(details)
