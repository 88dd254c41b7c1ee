"""Both clients over TLS, with certificates and tokens of their own."""

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority, KeyPair
from support import NAME, PROJECT
from waiting import soon

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.client import AsyncClient, Client, Tls, TokenFile, UnavailableError
from operation_service.client.connection import Target
from operation_service.client.translation import translated
from operation_service.server import Service, running
from operation_service.settings import Settings
from operation_service.settings_tls import ServerTls


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def own(authority: Authority) -> KeyPair:
    return authority.issue("client", common_name="operator")


@pytest.fixture
def tls(authority: Authority, own: KeyPair) -> Tls:
    return Tls(ca=authority.ca_file, cert=own.cert_file, key=own.key_file)


@pytest.fixture
async def service(etcd: str, settings: Settings, authority: Authority) -> AsyncIterator[Service]:
    server = authority.server()
    wanted = ServerTls(cert=server.cert_file, key=server.key_file, client_ca=authority.ca_file)
    async with running(replace(settings, tls=wanted), [etcd]) as service:
        yield service


async def propose(address: str, **more: Any) -> None:
    """With both clients, each over a connection of its own."""
    async with AsyncClient(address, options=[("grpc.use_local_subchannel_pool", 1)], timeout=2, **more) as client:
        await client.propose(PROJECT, NAME, lock_for=30)
    await asyncio.to_thread(propose_blocking, address, **more)


def propose_blocking(address: str, **more: Any) -> None:
    with Client(address, options=[("grpc.use_local_subchannel_pool", 1)], timeout=2, **more) as client:
        client.propose(PROJECT, NAME, lock_for=30)


async def test_both_clients_call_over_mutual_tls(service: Service, tls: Tls) -> None:
    await propose(service.address, tls=tls)


async def test_without_a_certificate_neither_is_served(service: Service, authority: Authority) -> None:
    with pytest.raises(UnavailableError):
        await propose(service.address, tls=Tls(ca=authority.ca_file))
    with pytest.raises(UnavailableError):
        await asyncio.to_thread(propose_blocking, service.address, tls=Tls(ca=authority.ca_file))


async def test_a_name_may_be_told_that_the_target_does_not_have(etcd: str, settings: Settings, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "of names")
    server = authority.issue("named", dns=("operation.n0stack.svc",))
    served = replace(settings, tls=ServerTls(cert=server.cert_file, key=server.key_file))
    async with running(served, [etcd]) as service:
        await propose(service.address, tls=Tls(ca=authority.ca_file, server_name="operation.n0stack.svc"))
        await propose(f"ipv4:{service.address}", tls=Tls(ca=authority.ca_file, server_name="operation.n0stack.svc"))
        for wrong in (None, "another.n0stack.svc"):
            with pytest.raises(UnavailableError):
                await propose(service.address, tls=Tls(ca=authority.ca_file, server_name=wrong))


async def test_the_machines_authorities_are_trusted_where_none_is_named(
    service: Service, own: KeyPair, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = Tls(cert=own.cert_file, key=own.key_file)
    with pytest.raises(UnavailableError):
        await propose(service.address, tls=tls)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    await propose(service.address, tls=tls)


async def test_a_file_that_cannot_be_used_is_named_at_once(authority: Authority, tmp_path: Path, own: KeyPair) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    other = authority.issue("other")
    for wrong, named in (
        (Tls(ca=tmp_path / "missing"), "missing"),
        (Tls(ca=empty), "empty"),
        (Tls(cert=own.cert_file, key=tmp_path / "missing"), "missing"),
        (Tls(cert=empty, key=own.key_file), "empty"),
        (Tls(cert=own.cert_file, key=other.key_file), "other.key"),
    ):
        for kind in (Client, AsyncClient):
            with pytest.raises(ValueError, match=named):
                kind("127.0.0.1:1", tls=wrong)


# --- certificates that are replaced


@pytest.mark.parametrize("is_blocking", [True, False], ids=["blocking", "aio"])
async def test_a_new_certificate_is_shown_to_the_service_from_the_next_connection_on(
    is_blocking: bool, etcd: str, settings: Settings, authority: Authority, own: KeyPair
) -> None:
    """The service that comes back on the same port wants one of another authority."""
    other = Authority(authority.ca_file.parent, "other")
    server = authority.server()
    tls = Tls(ca=authority.ca_file, cert=own.cert_file, key=own.key_file)
    wanted = ServerTls(cert=server.cert_file, key=server.key_file, client_ca=authority.ca_file)
    client: Any = Client if is_blocking else AsyncClient

    async def call() -> None:
        if is_blocking:
            await asyncio.to_thread(lambda: made.propose(PROJECT, NAME, lock_for=30))
        else:
            await made.propose(PROJECT, NAME, lock_for=30)

    async def can_call() -> bool:
        try:
            await call()
        except UnavailableError:
            return False
        return True

    async with running(replace(settings, tls=wanted), [etcd]) as service:
        made = client(service.address, tls=tls, timeout=2)
        await call()
    again = replace(settings, listen=service.address, tls=replace(wanted, client_ca=other.ca_file))
    async with running(again, [etcd]):
        assert not await can_call()
        new = other.issue("new", common_name="operator")
        own.cert_file.write_bytes(new.cert)
        own.key_file.write_bytes(new.key)
        assert await soon(can_call)
        if is_blocking:
            await asyncio.to_thread(made.close)
        else:
            await made.close()


async def test_a_watch_and_a_hold_go_on_whenever_the_certificate_is_replaced(
    service: Service, authority: Authority, tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    stock = Target.open

    def noted(self: Target, library: Any) -> Any:
        opened.append(library)
        return stock(self, library)

    monkeypatch.setattr(Target, "open", noted)
    async with AsyncClient(service.address, tls=tls) as client:
        watch: Any = client.watch(PROJECT)
        async with client.hold(PROJECT, NAME, lock_for=3) as operation:
            for number in range(1, 4):
                # The third connection ends the first, over which the watch was begun.
                authority.issue("client", common_name="operator")

                async def is_replaced(wanted: int = number + 1) -> bool:
                    await client.get(PROJECT, NAME)
                    return len(opened) >= wanted

                assert await soon(is_replaced)
                await operation.log(f"step {number}")
                told = await anext(watch)
                while f"step {number}" not in [log.message for log in told.operation.operation.logs]:
                    told = await anext(watch)
            assert not operation.lost.is_set()
        await watch.aclose()


async def test_files_that_are_bad_leave_those_from_before_in_use(
    service: Service, own: KeyPair, tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncClient(service.address, tls=tls) as client:
        await client.propose(PROJECT, NAME, lock_for=30)
        own.key_file.write_bytes(b"broken")

        async def is_told() -> bool:
            await client.propose(PROJECT, NAME, lock_for=30)
            return "stay in use" in caplog.text

        with caplog.at_level(logging.WARNING):
            assert await soon(is_told)
            await client.propose(PROJECT, NAME, lock_for=30)
    assert caplog.text.count("stay in use") == 1


# --- tokens


@dataclass
class Listener:
    """A server that notes what is sent with each call, and answers nothing of use."""

    server: grpc.aio.Server
    address: str
    seen: list[str]

    async def Get(self, _request: Any, context: Any) -> pb.OperationRecord:  # noqa: N802
        self.seen += [value for name, value in context.invocation_metadata() if name == "authorization"]
        return pb.OperationRecord()

    async def Watch(self, _request: Any, context: Any) -> AsyncIterator[pb.WatchOperationsResponse]:  # noqa: N802
        self.seen += [value for name, value in context.invocation_metadata() if name == "authorization"]
        yield pb.WatchOperationsResponse(revision=1)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    server = grpc.aio.server()
    listener = Listener(server, f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", [])
    handlers: dict[str, Any] = {
        "GetOperation": grpc.unary_unary_rpc_method_handler(
            listener.Get, pb.GetOperationRequest.FromString, pb.OperationRecord.SerializeToString
        ),
        "WatchOperations": grpc.unary_stream_rpc_method_handler(
            listener.Watch, pb.WatchOperationsRequest.FromString, pb.WatchOperationsResponse.SerializeToString
        ),
    }
    name = "n0stack.operation.v1alpha.OperationService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    await server.start()
    yield listener
    await server.stop(0)


async def test_the_token_of_a_file_is_sent_with_every_call_and_read_anew_when_it_is_replaced(
    listener: Listener, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    token = TokenFile(file)
    async with AsyncClient(listener.address, bearer_token=token) as client:
        with Client(listener.address, bearer_token=token) as blocking:
            await client.get(PROJECT, NAME)
            await asyncio.to_thread(blocking.get, PROJECT, NAME)
            # As Kubernetes does it: the name leads to another file from one moment to the next.
            (tmp_path / "next").write_text("second\n")
            (tmp_path / "next").rename(file)
            await client.get(PROJECT, NAME)
            await asyncio.to_thread(blocking.get, PROJECT, NAME)
            watch: Any = client.watch()
            await anext(watch)
            await watch.aclose()
            await asyncio.to_thread(first_of, blocking.watch)
    assert listener.seen == ["Bearer first"] * 2 + ["Bearer second"] * 4


def first_of(watch: Callable[[], Any]) -> None:
    told = watch()
    next(told)
    told.close()


async def test_a_token_file_that_is_gone_is_asked_for_again_for_as_long_as_the_call_may_take(
    listener: Listener, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    async with AsyncClient(listener.address, bearer_token=TokenFile(file), timeout=20) as client:
        file.unlink()
        asking = asyncio.create_task(client.get(PROJECT, NAME))
        await asyncio.wait({asking}, timeout=0.3)
        assert not asking.done()
        file.write_text("second")
        await asking
    assert listener.seen == ["Bearer second"]


async def test_headers_that_are_too_large_are_told_as_such(address: str) -> None:
    """Which something on the way may have added."""
    async with grpc.aio.insecure_channel(address) as channel:
        get: Any = channel.unary_unary("/n0stack.operation.v1alpha.OperationService/GetOperation")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await get(b"", metadata=(("x-added-on-the-way", "x" * 20_000),), timeout=10)
    error = translated(caught.value, "GetOperation")
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "")
    assert error.message.startswith("GetOperation: the headers of the call, a bearer token among them")


@pytest.mark.parametrize("content", ["", "\n", "s3cr3t with a space", "s3cr3t\ns3cr3t"])
def test_a_file_without_a_token_is_named_and_not_shown(content: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(ValueError, match="token") as caught:
        TokenFile(file)
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(ValueError, match="missing"):
        TokenFile(tmp_path / "missing")
