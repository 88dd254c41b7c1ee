"""Callers that may not do what they want keep no place, whatever they do to keep one."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from callers import Caller, bearer, binding, write_policy
from google.protobuf.any_pb2 import Any as AnyMessage
from issuer import AUDIENCE, ISSUER, Issuer
from raw_calls import BEGINNING, begun
from waiting import soon

from operation_service.server import running
from operation_service.settings import Settings
from operation_service.settings_access import Access

ROOT = binding("token:root", "write", "operate", projects=("*",))


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return tmp_path / "policy.toml"


@pytest.fixture
async def root(etcd: str, settings: Settings, issuer: Issuer, policy: Path) -> AsyncIterator[Caller]:
    """A caller of a service that has one place for watches."""
    write_policy(policy, ROOT, binding("token:reader", "read", projects=("*",)))
    access = Access(policy=policy, jwks=issuer.file, issuer=ISSUER, audience=AUDIENCE)
    async with (
        running(replace(settings, access=access, max_watches=1), [etcd]) as service,
        grpc.aio.insecure_channel(service.address) as channel,
    ):
        yield Caller(channel, bearer(issuer.token("root")))


@pytest.mark.parametrize("lost", ["role", "token"])
async def test_a_watch_that_may_not_go_on_keeps_no_place_if_it_is_not_read(
    lost: str, root: Caller, issuer: Issuer, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operation_service.bearer_tokens.LEEWAY_SECONDS", 0.0)
    for number in range(40):
        large = AnyMessage(type_url="t/x.Y", value=b"x" * 250_000)
        await root.create(f"n/{number}", project="demo", operation_request=large)
    expires = int(time.time()) + 4
    short = Caller(root.channel, bearer(issuer.token("reader", exp=expires + (0 if lost == "token" else 99))))
    short.timeout = 50
    unread = await short.watching(project="demo")
    if lost == "role":
        write_policy(policy, ROOT)
    await asyncio.sleep(expires - time.time())

    async def is_free() -> bool:
        watch = root.watch(project="demo")
        try:
            await watch.read()
        finally:
            watch.cancel()
        return True

    try:
        assert await soon(is_free, 10)
    finally:
        unread.cancel()


async def test_who_has_no_role_at_all_keeps_no_place_by_not_sending_a_request(
    etcd: str, settings: Settings, issuer: Issuer, policy: Path
) -> None:
    """What cannot be granted, whatever is asked for, need not be waited for."""
    write_policy(policy, ROOT)
    access = Access(policy=policy, jwks=issuer.file, issuer=ISSUER, audience=AUDIENCE)
    async with (
        running(replace(settings, access=access, max_calls_in_flight=1), [etcd]) as service,
        grpc.aio.insecure_channel(service.address) as channel,
    ):
        host, _, port = service.address.rpartition(":")
        _, silent = await asyncio.open_connection(host, int(port))
        silent.write(BEGINNING + begun("ProposeOperation", authorization=f"Bearer {issuer.token('nobody')}"))
        await asyncio.sleep(0.5)
        root, refusals = Caller(channel, bearer(issuer.token("root"))), 0
        try:
            for number in range(30):
                try:
                    await root.propose(f"n/{number}", project="demo")
                except grpc.aio.AioRpcError:
                    refusals += 1
                await asyncio.sleep(0.05)
        finally:
            silent.close()
        assert refusals < 5
