"""The service's own port with TLS: who gets in, and how its certificate is replaced."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from certificates import Authority, KeyPair
from support import Peer
from waiting import soon

from operation_service.server import Service, running
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


async def test_a_new_certificate_is_shown_to_new_connections(
    service: Service, authority: Authority, tmp_path: Path, server: KeyPair
) -> None:
    other = Authority(tmp_path, "other")
    new = other.issue("new", ips=("127.0.0.1",))
    async with over_tls(service.address, authority.ca) as before:
        await before.propose()
        server.cert_file.write_bytes(new.cert)
        server.key_file.write_bytes(new.key)
        assert await soon(lambda: can_connect(service.address, other.ca))
        await before.propose()
    assert not await can_connect(service.address, authority.ca)
