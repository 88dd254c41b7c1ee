"""Who is not let in takes nothing from those who are: no place, no memory, no line of the audit."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from callers import Caller, bearer, binding, write_policy
from issuer import AUDIENCE, ISSUER, Issuer
from support import refused
from waiting import soon

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service import denied, wire
from operation_service.access import Access
from operation_service.admission import Admission
from operation_service.audit import Audit
from operation_service.delivery import Delivery
from operation_service.denied import Denied
from operation_service.errors import RoleRequiredError
from operation_service.lines import Lines
from operation_service.server import running
from operation_service.settings import Settings
from operation_service.settings_access import CallerAccess


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path)


@pytest.fixture
async def address(etcd: str, settings: Settings, issuer: Issuer, tmp_path: Path) -> AsyncIterator[str]:
    """A service that asks who calls."""
    policy = tmp_path / "policy.toml"
    write_policy(policy, binding("token:operator", "operate"))
    access = CallerAccess(policy=policy, jwks=issuer.file, issuer=ISSUER, audience=AUDIENCE)
    async with running(replace(settings, access=access), [etcd]) as service:
        yield service.address


async def test_how_many_more_were_refused_is_told_also_if_nobody_calls_after_them(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(denied, "_EVERY_SECONDS", 1.0)
    await strangers_call(address, 30)

    async def is_told() -> bool:
        return sum(how_many_more(caplog)) == 10

    assert await soon(is_told)


async def test_how_many_more_were_refused_is_told_before_the_service_ends(
    etcd: str, settings: Settings, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    asks = replace(settings, access=CallerAccess(jwks=issuer.file, issuer=ISSUER, audience=AUDIENCE))
    async with running(asks, [etcd]) as service:
        await strangers_call(service.address, 30)
        assert how_many_more(caplog) == []
    assert how_many_more(caplog) == [10]


async def strangers_call(address: str, times: int) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        for _ in range(times):
            assert (await refused(Caller(channel).get("n/1", "demo"))).reason == "IDENTITY_REQUIRED"


def how_many_more(log: pytest.LogCaptureFixture) -> list[int]:
    """What the log says of calls that were refused and not told of."""
    told = (record for record in log.records if "more calls were refused" in record.msg)
    return [record.args[0] for record in told if isinstance(record.args, tuple)]  # type: ignore[misc]


class NeverRead:
    """The call of a stranger that does not read what it is told."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def peer(self) -> str:
        return "ipv4:192.0.2.1:1"

    async def abort_with_status(self, _status: grpc.Status) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("rpc", ["WatchOperations", "ProposeOperation"])
async def test_a_refusal_that_is_not_read_keeps_no_place(rpc: str, settings: Settings, issuer: Issuer) -> None:
    asks = replace(settings, access=CallerAccess(jwks=issuer.file, issuer=ISSUER, audience=AUDIENCE))
    service = pb.DESCRIPTOR.services_by_name["OperationService"]
    servicer = SimpleNamespace(**dict.fromkeys((method.name for method in service.methods), lambda *_: None))
    admission = Admission(1, 1)
    around = wire.Around(Delivery(), admission, access=Access(asks))
    handler: Any = wire.handlers(service, servicer, around)[rpc]
    call = asyncio.create_task((handler.stream_stream or handler.stream_unary)(None, NeverRead()))
    await asyncio.sleep(0.05)
    assert not call.done()
    # The only place there is.
    with (admission.watches if handler.stream_stream else admission.calls).place():
        pass
    call.cancel()


async def test_a_request_that_is_as_large_as_can_be_leaves_only_a_short_line(
    address: str, issuer: Issuer, tmp_path: Path
) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        operator = Caller(channel, bearer(issuer.token("operator")))
        refusal = await refused(operator.create("n" * 100_000, project="demo", proposing_peer_token="t" * 300_000))
    assert refusal.reason == "ROLE_REQUIRED"
    assert len(refusal.message) < 1_000

    log = tmp_path / "log"
    fd = os.open(log, os.O_CREAT | os.O_WRONLY)
    lines, told = Lines(fd, lambda _: b""), Denied()
    told.audit = Audit(lines)
    request = pb.CreateOperationRequest(name="n" * 100_000, proposing_peer_token="t" * 300_000)
    for _ in range(2_000):
        told.tell("CreateOperation", "token:operator", RoleRequiredError("write", "demo", "token:operator"), request)
    told.audit.flush()
    assert await asyncio.to_thread(lines.flush, 5.0)
    os.close(fd)
    written = log.read_text()
    assert 0 < written.count("denied: ") <= 500
    assert max(map(len, written.splitlines())) < 1_000
    assert "token none" in written
