"""The service's own port with TLS: who gets in, and how its certificate is replaced."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from certificates import Authority, KeyPair
from cryptography.hazmat.primitives import serialization
from support import Peer, connected
from waiting import soon

from operation_service.health_check import check_health
from operation_service.server import Service, running
from operation_service.server_tls import ServerCertificates
from operation_service.settings import Settings
from operation_service.settings_tls import ServerTls


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(authority: Authority) -> KeyPair:
    return authority.server()


@pytest.fixture
async def service(etcd: str, settings: Settings, server: KeyPair) -> AsyncIterator[Service]:
    tls = ServerTls(cert=server.cert_file, key=server.key_file)
    async with running(replace(settings, tls=tls), [etcd]) as service:
        yield service


@contextlib.asynccontextmanager
async def over_tls(address: str, ca: bytes, own: KeyPair | None = None) -> AsyncIterator[Peer]:
    """A caller over a connection of its own."""
    credentials = grpc.ssl_channel_credentials(ca, *((own.key, own.cert) if own else ()))
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        yield Peer(channel)


async def can_connect(address: str, ca: bytes, own: KeyPair | None = None) -> bool:
    async with over_tls(address, ca, own) as peer:
        try:
            await peer.propose()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False
        return True


async def test_a_caller_that_knows_the_authority_is_served(service: Service, authority: Authority) -> None:
    assert await can_connect(service.address, authority.ca)


async def test_a_caller_that_knows_another_authority_does_not_take_the_certificate(
    service: Service, tmp_path: Path
) -> None:
    assert not await can_connect(service.address, Authority(tmp_path, "other").ca)


async def test_a_caller_without_tls_is_not_served(service: Service) -> None:
    async with connected(service.address) as peer:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await peer.propose()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("version", "is_spoken"),
    [
        (ssl.TLSVersion.TLSv1, False),
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_tls_1_2_and_newer_are_spoken_and_http_2_is_agreed_on(
    version: ssl.TLSVersion, is_spoken: bool, service: Service, authority: Authority
) -> None:
    context = ssl.create_default_context(cadata=authority.ca.decode())
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["http/1.1", "h2"])
    host, _, port = service.address.rpartition(":")
    connecting = asyncio.open_connection(host, int(port), ssl=context)
    if not is_spoken:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connecting
        return
    _, writer = await connecting
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    writer.close()


async def test_a_key_in_any_form_of_pem_will_do(
    etcd: str, settings: Settings, authority: Authority, server: KeyPair
) -> None:
    key = serialization.load_pem_private_key(server.key, None)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    old = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    # As `openssl ecparam -genkey` writes it: the curve comes first.
    curve = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    server.key_file.write_bytes(curve + old)
    server.cert_file.write_bytes(b"subject=operation\n" + server.cert + b"issuer=ca\n" + authority.ca)
    tls = ServerTls(cert=server.cert_file, key=server.key_file)
    async with running(replace(settings, tls=tls), [etcd]) as service:
        assert await can_connect(service.address, authority.ca)


# --- certificates of callers


@pytest.fixture
async def mutual(etcd: str, settings: Settings, server: KeyPair, client_ca: Path) -> AsyncIterator[Service]:
    tls = ServerTls(cert=server.cert_file, key=server.key_file, client_ca=client_ca)
    async with running(replace(settings, tls=tls), [etcd]) as service:
        yield service


@pytest.fixture
def client_ca(authority: Authority, tmp_path: Path) -> Path:
    """In a file of its own, that a test replaces."""
    file = tmp_path / "client-ca.crt"
    file.write_bytes(authority.ca)
    return file


async def test_a_caller_with_a_certificate_of_the_authority_is_served(mutual: Service, authority: Authority) -> None:
    assert await can_connect(mutual.address, authority.ca, authority.issue("client", common_name="client"))


async def test_a_caller_without_a_good_certificate_cannot_connect(
    mutual: Service, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "other").issue("stranger", common_name="stranger")
    # By an authority that has the right name, and another key.
    (tmp_path / "forged").mkdir()
    forged = Authority(tmp_path / "forged", "ca").issue("forged", common_name="forged")
    expired = authority.issue("expired", common_name="expired", days=(-2, -1))
    early = authority.issue("early", common_name="early", days=(1, 2))
    for own in (None, stranger, forged, expired, early):
        assert not await can_connect(mutual.address, authority.ca, own)


def put(file: Path, content: bytes) -> None:
    file.write_bytes(content)


async def test_the_authorities_of_callers_are_replaced_too(
    mutual: Service, authority: Authority, client_ca: Path, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    old, new = authority.issue("old", common_name="old"), other.issue("new", common_name="new")
    put(client_ca, authority.ca + other.ca)
    assert await soon(lambda: can_connect(mutual.address, authority.ca, new))
    assert await can_connect(mutual.address, authority.ca, old)
    put(client_ca, other.ca)

    async def is_out() -> bool:
        return not await can_connect(mutual.address, authority.ca, old)

    assert await soon(is_out)
    assert await can_connect(mutual.address, authority.ca, new)


# --- certificates of the service


async def test_a_new_certificate_is_shown_to_new_connections_and_nothing_else_notices(
    service: Service, authority: Authority, tmp_path: Path, server: KeyPair
) -> None:
    other = Authority(tmp_path, "other")
    new = other.issue("new", ips=("127.0.0.1",))
    async with over_tls(service.address, authority.ca) as before:
        watch = await before.watching()
        await before.propose()
        fence = before.fencing_token
        answered = 0
        is_over = False

        async def renew() -> None:
            nonlocal answered
            while not is_over:
                await before.propose(fence=fence)
                answered += 1

        renewing = asyncio.create_task(renew())
        server.cert_file.write_bytes(new.cert)
        server.key_file.write_bytes(new.key)
        assert await soon(lambda: can_connect_and_read(service.address, other.ca))
        since = answered
        assert await soon(lambda: has_passed(lambda: answered, since + 10))
        is_over = True
        await renewing
        # The very first stream tells all of it: the lock, and each renewal.
        told = [await watch.read() for _ in range(answered + 1)]
        assert len({each.revision for each in told}) == answered + 1
        watch.cancel()
    assert not await can_connect_and_read(service.address, authority.ca)


async def can_connect_and_read(address: str, ca: bytes) -> bool:
    """Without a change, of which a watch would tell."""
    async with over_tls(address, ca) as peer:
        try:
            await peer.get()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False
        return True


async def has_passed(count: Callable[[], int], wanted: int) -> bool:
    return count() > wanted


def replaced_by(server: KeyPair, kind: str) -> str:
    """Put something that cannot be used in place of the files; return what is said of it."""
    if kind == "broken":
        server.cert_file.write_bytes(server.cert[:200])
        return "no certificate"
    if kind == "gone":
        server.key_file.unlink()
        return "No such file"
    other = Authority(server.cert_file.parent, "other")
    if kind == "mismatched":
        server.cert_file.write_bytes(other.server("new").cert)
        return "not the key of"
    expired = other.server("expired", days=(-2, -1))
    server.cert_file.write_bytes(expired.cert)
    server.key_file.write_bytes(expired.key)
    return "expired"


@pytest.mark.parametrize("kind", ["broken", "gone", "mismatched", "expired"])
async def test_what_cannot_be_used_leaves_the_one_before_in_use_and_is_told_once(
    kind: str, service: Service, authority: Authority, server: KeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    words = replaced_by(server, kind)

    async def is_told() -> bool:
        return "stays in use" in caplog.text

    assert await soon(is_told)
    assert words in caplog.text
    assert await can_connect(service.address, authority.ca)
    # It is looked at again and again, and another trouble is told.
    server.cert_file.write_bytes(b"another trouble")
    server.key_file.write_bytes(server.key)

    async def is_told_again() -> bool:
        return caplog.text.count("stays in use") == (2 if kind != "broken" else 1)

    assert await soon(is_told_again)
    assert await can_connect(service.address, authority.ca)
    server.cert_file.write_bytes(authority.server("good").cert)
    server.key_file.write_bytes((server.key_file.parent / "good.key").read_bytes())

    async def is_replaced() -> bool:
        return "new certificate of" in caplog.text

    caplog.set_level(logging.INFO)
    assert await soon(is_replaced)
    assert "valid until" in caplog.text
    assert await can_connect(service.address, authority.ca)


async def test_trouble_that_lasts_is_told_once_and_trouble_that_passes_is_not(
    authority: Authority, server: KeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    certificates = ServerCertificates(ServerTls(cert=server.cert_file, key=server.key_file))
    new = authority.server("new")
    server.cert_file.write_bytes(new.cert)
    await certificates.look()
    server.key_file.write_bytes(new.key)
    await certificates.look()
    assert "stays in use" not in caplog.text
    for content, count in ((b"broken", 1), (server.cert, 2), (b"broken", 3)):
        server.cert_file.write_bytes(content)
        for _ in range(5):
            await certificates.look()
        assert caplog.text.count("stays in use") == count


async def test_the_log_says_which_files_are_new(
    authority: Authority, server: KeyPair, client_ca: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificates = ServerCertificates(ServerTls(cert=server.cert_file, key=server.key_file, client_ca=client_ca))
    caplog.set_level(logging.INFO)
    put(client_ca, authority.ca * 2)
    await certificates.look()
    in_use = f"--tls-client-ca {client_ca}: what is in it now is in use"
    assert caplog.messages == [in_use]
    new = authority.server("new")
    put(server.cert_file, new.cert)
    put(server.key_file, new.key)
    await certificates.look()
    _, pair_in_use, new_certificate = caplog.messages
    assert pair_in_use == f"--tls-cert {server.cert_file}, --tls-key {server.key_file}: what is in them now is in use"
    assert new_certificate.startswith(f"new certificate of {server.cert_file}, for connections to come: valid until ")


async def test_a_certificate_that_is_not_valid_yet_is_taken_when_it_is(
    service: Service, authority: Authority, server: KeyPair, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    new = other.issue("new", ips=("127.0.0.1",), days=(3 / 86_400, 1))
    server.cert_file.write_bytes(new.cert)
    server.key_file.write_bytes(new.key)
    assert await can_connect(service.address, authority.ca)
    assert await soon(lambda: can_connect(service.address, other.ca))


@pytest.mark.parametrize(
    ("days", "is_told"),
    [((-1, 13.5), True), ((-1, 14.5), False), ((-0.5, 0.4), False), ((-0.9, 0.1), True)],
    ids=["two weeks", "more", "half of a short life", "the end of a short life"],
)
async def test_the_end_of_a_certificate_is_told_in_time(
    days: tuple[float, float], is_told: bool, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    pair = authority.server("short", days=(days[0] - (60 if days[1] > 1 else 0), days[1]))
    certificates = ServerCertificates(ServerTls(cert=pair.cert_file, key=pair.key_file))
    await certificates.look()
    assert caplog.text.count("ends soon") == int(is_told)


async def test_a_certificate_that_ends_while_it_serves_is_told_and_refused(
    etcd: str, settings: Settings, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    pair = authority.server("short", days=(-1, 4 / 86_400))
    tls = ServerTls(cert=pair.cert_file, key=pair.key_file)
    async with running(replace(settings, tls=tls), [etcd]) as service, over_tls(service.address, authority.ca) as old:
        await old.propose()

        async def has_ended() -> bool:
            return "has ended" in caplog.text

        assert await soon(has_ended)
        assert not await can_connect(service.address, authority.ca)
        # Connections that are there go on.
        await old.propose()


# --- the port for probes


async def test_the_port_for_probes_tells_of_the_health_and_of_nothing_else(etcd: str, settings: Settings) -> None:
    async with running(replace(settings, health_listen="127.0.0.1:0"), [etcd]) as service:
        where = service.settings.health_listen
        assert where
        answer = await check_health(where, 5)
        assert answer.is_serving, answer.reason
        async with connected(where) as peer:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await peer.get()
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "does not answer" in (await check_health(where, 5)).reason
