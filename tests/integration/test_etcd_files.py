"""The files that etcd knows the service by, read again when they change."""

import shutil
import ssl
from pathlib import Path

import pytest
from certificates import Authority, KeyPair

from operation_service.etcd_password import kept_password
from operation_service.etcd_tls import kept_context
from operation_service.kept_files import KeptFiles
from operation_service.settings_error import SettingsError
from operation_service.settings_tls import EtcdAccess


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def own(authority: Authority) -> KeyPair:
    return authority.issue("own")


def kept(authority: Authority, own: KeyPair) -> KeptFiles[ssl.SSLContext]:
    return kept_context(EtcdAccess(ca=authority.ca_file, cert=own.cert_file, key=own.key_file))


def put(pair: KeyPair, *, in_place_of: KeyPair) -> None:
    shutil.copy(pair.cert_file, in_place_of.cert_file)
    shutil.copy(pair.key_file, in_place_of.key_file)


@pytest.mark.parametrize(("days", "words"), [((-2, -1), "has expired, on"), ((1, 2), "is not valid before")])
async def test_a_certificate_that_etcd_would_refuse_is_refused_at_the_start_and_not_taken_later(
    days: tuple[float, float],
    words: str,
    authority: Authority,
    own: KeyPair,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = authority.issue("bad", days=days)
    with pytest.raises(SettingsError, match=f"^--etcd-cert {bad.cert_file}: it {words} "):
        kept(authority, bad)
    files = kept(authority, own)
    before = files.meaning
    put(bad, in_place_of=own)
    for _ in range(4):
        await files.look()
    assert files.meaning is before
    (told,) = caplog.messages
    assert told.startswith(f"what was read before stays in use: --etcd-cert {own.cert_file}: it {words} ")
    put(authority.issue("good"), in_place_of=own)
    await files.look()
    assert files.meaning is not before


async def test_half_a_pair_is_not_taken_and_a_whole_one_is(
    authority: Authority, own: KeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    files = kept(authority, own)
    before = files.meaning
    new = authority.issue("new")
    shutil.copy(new.cert_file, own.cert_file)
    await files.look()
    assert files.meaning is before
    shutil.copy(new.key_file, own.key_file)
    await files.look()
    assert files.meaning is not before
    assert caplog.messages == []


async def test_a_password_that_is_bad_leaves_the_last_good_one_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "password"
    file.write_text("first\r\nsecond line\n")
    password = kept_password(file)
    assert password.meaning == "first"
    for bad, words in ((b"\n", "its first line is empty"), (b"\xff\n", "it is no text in UTF-8")):
        caplog.clear()
        file.write_bytes(bad)
        for _ in range(3):
            await password.look()
        assert password.meaning == "first"
        assert caplog.messages == [f"what was read before stays in use: --etcd-password-file {file}: {words}"]
    file.write_text("next")
    await password.look()
    assert password.meaning == "next"
