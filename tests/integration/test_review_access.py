"""What a review found in who may call and what is told of it; each test fails until it is mended."""

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from callers import Caller, bearer, binding, write_policy
from google.protobuf.any_pb2 import Any as AnyMessage
from issuer import AUDIENCE, ISSUER, Issuer
from support import refused
from waiting import soon

from operation_service import denied
from operation_service.http2 import literal
from operation_service.kept_file import KeptFile
from operation_service.policy_file import policy_of
from operation_service.server import running
from operation_service.settings import Settings
from operation_service.settings_access import Access
from operation_service.settings_error import SettingsError

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
    """Holds where the role is lost; with a token that has expired the place is kept for as long as the caller likes."""
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


async def test_who_has_lost_all_projects_but_one_is_not_told_to_have_none(
    root: Caller, issuer: Issuer, policy: Path
) -> None:
    watch = await Caller(root.channel, bearer(issuer.token("reader"))).watching()
    write_policy(policy, ROOT, binding("token:reader", "read"))
    refusal = await refused(watch.read())
    assert refusal.reason == "ROLE_REQUIRED"
    assert "any project" not in refusal.message


async def test_how_many_more_were_refused_is_told_also_if_nobody_calls_after_them(
    root: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(denied, "_EVERY_SECONDS", 1.0)
    stranger = Caller(root.channel)
    for _ in range(30):
        await refused(stranger.get("n/1", "demo"))

    async def is_told() -> bool:
        return any("more calls were refused" in line for line in caplog.messages)

    assert await soon(is_told, 5)


async def test_what_is_bad_is_understood_once_and_not_every_second(tmp_path: Path) -> None:
    """A policy of 1 MiB takes 0.4 s of the interpreter, in which calls wait."""
    file, count = tmp_path / "file", 0

    def understand(content: bytes, _file: Path) -> bytes:
        nonlocal count
        count += 1
        if content == b"bad":
            raise SettingsError("it is bad")
        return content

    file.write_bytes(b"good")
    kept = KeptFile("--policy", file, understand)
    file.write_bytes(b"bad")
    for _ in range(6):
        await kept.look()
    assert count == 2


def test_a_policy_takes_memory_by_its_size_and_not_by_subjects_times_projects() -> None:
    """115 KiB of this kind, 5,000 agents, take 1.1 GiB and 6.6 s."""
    subjects = ", ".join(f'"certificate:a{number}"' for number in range(300))
    projects = ", ".join(f'"p{number}"' for number in range(900))
    text = (
        f'[[bindings]]\nsubjects = ["certificate:*"]\nroles = ["read"]\nprojects = [{projects}]\n'
        f'[[bindings]]\nsubjects = [{subjects}]\nroles = ["operate"]\nprojects = ["demo"]\n'
    )
    tracemalloc.start()
    try:
        policy = policy_of(text.encode(), Path("policy.toml"))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert policy.grants("certificate:a1").on("p1")
    assert taken < 10 * 1024 * 1024


def frame(kind: int, flags: int, data: bytes) -> bytes:
    stream = 1 if kind == 1 else 0
    return len(data).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + data


def headers(token: str) -> bytes:
    """Of a call; nothing follows them."""
    told = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/n0stack.operation.v1alpha.OperationService/ProposeOperation",
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
        "authorization": f"Bearer {token}",
    }
    return b"".join(literal(name.encode(), value.encode()) for name, value in told.items())


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
        silent.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, b"") + frame(1, 4, headers(issuer.token("nobody")))
        )
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
