"""A certificate that has expired lets nobody connect, also not by going on with an earlier TLS session.

gRPC's tickets live for two hours over TLS 1.2, and two days over TLS 1.3.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest
from callers import request_of
from certificates import Authority
from raw_calls import BEGINNING, whole

from operation_service.server import running
from operation_service.settings import Settings
from operation_service.settings_tls import ServerTls

_LIVES_SECONDS = 5.0


def holder_told(
    address: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[bool, ssl.SSLSession | None]:
    """Propose and read over a connection of its own: whether the service took the caller for its certificate."""
    host, _, port = address.rpartition(":")
    received, after = b"", None
    with (
        contextlib.suppress(OSError),
        socket.create_connection((host, int(port)), timeout=2) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as tls,
    ):
        tls.sendall(BEGINNING + whole("ProposeOperation", request_of("ProposeOperation")))
        while b"peer-a" not in received and (some := tls.recv(4096)):
            received += some
        tls.sendall(whole("GetOperation", request_of("GetOperation"), 3))
        while b"certificate:agent" not in received and (some := tls.recv(4096)):
            received += some
        after = tls.session
    return b"certificate:agent" in received, after


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_an_expired_certificate_does_not_connect_by_an_earlier_session(
    version: ssl.TLSVersion, etcd: str, settings: Settings, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    own = authority.server()
    tls = ServerTls(cert=own.cert_file, key=own.key_file, client_ca=authority.ca_file)
    ends_at = time.time() + _LIVES_SECONDS
    agent = authority.issue("agent", common_name="agent", days=(-1, _LIVES_SECONDS / 86_400))
    context = ssl.create_default_context(cadata=authority.ca.decode())
    context.load_cert_chain(agent.cert_file, agent.key_file)
    context.set_alpn_protocols(["h2"])
    context.minimum_version = context.maximum_version = version
    async with running(replace(settings, tls=tls), [etcd]) as service:
        is_let_in, session = await asyncio.to_thread(holder_told, service.address, context)
        assert is_let_in
        assert session is not None
        await asyncio.sleep(ends_at + 1 - time.time())
        assert not (await asyncio.to_thread(holder_told, service.address, context))[0]
        assert not (await asyncio.to_thread(holder_told, service.address, context, session))[0]
