"""Bad input of every kind gets the error of section 5, and changes nothing."""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.status_pb2 import Status
from support import NAME, PROJECT, Peer, refusal_of, refused

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import ProposeOperationRequest

SERVICE = "n0stack.operation.v1alpha.OperationService"
CHANGES = ("CreateOperation", "ProposeOperation", "AppendOperationLog", "CompleteOperation", "CancelOperation")

BAD_PROJECTS = ["", "-a", ".a", "_a", "a" * 64, "a/b", "a b", "a\n", "a\0", "ä", "..", "a#b", "a%2fb", "\u202ea"]
BAD_NAMES = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/./b",
    "a/..",
    "a b",
    "a\n",
    "a\tb",
    "a\0b",
    "ä",
    "a#b",
    "a?b",
    "a%2e%2e",
    "a\\b",
    "a" * 254,
    "\u2044a",
]
BAD_TOKENS = ["", "a" * 257, "ä" * 129, "a\nb", "a\0", "\x1b[31m", "a\u202eb", "\u200b", "a\u2028b"]
BAD_TYPE_URLS = [
    "",
    "no.slash",
    "/",
    "type.googleapis.com/",
    "type.googleapis.com/a..b",
    "type.googleapis.com/.a",
    "type.googleapis.com/1a",
    "type.googleapis.com/a b",
    "type.googleapis.com/a/",
    "type googleapis/a",
    "type.googleapis.com/a\n",
    "type.googleapis.com/ä",
]


@pytest.fixture(autouse=True)
async def record_is_unchanged(peer: Peer) -> AsyncIterator[None]:
    """Whatever the test sends, the operation that was there stays as it is."""
    await peer.create(lock_for_seconds=600, log_message="there before")
    before = await peer.get()
    yield
    after = await peer.get()
    after.remaining.CopyFrom(before.remaining)
    assert after == before


async def invalid(call: Awaitable[object], *fields: str) -> None:
    refusal = await refused(call)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert sorted(refusal.violations) == sorted(fields)
    for field in fields:
        assert field in refusal.message


def changes(peer: Peer) -> list[Callable[..., Awaitable[object]]]:
    def append(name: str = NAME, **fields: Any) -> Awaitable[object]:
        return peer.append("a step", name, **fields)

    return [peer.create, peer.propose, append, peer.complete, peer.cancel]


async def test_projects(peer: Peer) -> None:
    for bad in BAD_PROJECTS:
        for change in changes(peer):
            await invalid(change(project=bad), "project")
        await invalid(peer.get(project=bad), "project")
        await invalid(peer.logs(project=bad), "project")
        if bad:
            await invalid(peer.list(project=bad), "project")
            await invalid(peer.watch(project=bad).read(), "project")


async def test_names(peer: Peer) -> None:
    for bad in BAD_NAMES:
        for change in changes(peer):
            await invalid(change(bad), "name")
        await invalid(peer.get(bad), "name")
        await invalid(peer.logs(bad), "name")


async def test_name_prefixes(peer: Peer) -> None:
    for bad in ["/", "/a", "a//", "../", "a/../b", "a b", "a\n", "ä", "a#", "a" * 254]:
        await invalid(peer.list(name_prefix=bad), "name_prefix")
        await invalid(peer.watch(name_prefix=bad).read(), "name_prefix")


async def test_tokens(peer: Peer) -> None:
    for bad in BAD_TOKENS:
        for change in changes(peer.named(bad)):
            await invalid(change(), "proposing_peer_token")


async def test_log_messages(peer: Peer) -> None:
    for bad in ("x" * 4097, "ä" * 2049):
        for change in (peer.create, peer.propose, peer.complete, peer.cancel):
            await invalid(change(log_message=bad), "log_message")
        await invalid(peer.append(bad), "log_message")
    await invalid(peer.append(""), "log_message")


async def test_lock_for_seconds(peer: Peer) -> None:
    for bad in (86_401, 2**32 - 1):
        await invalid(peer.create(lock_for_seconds=bad), "lock_for_seconds")
    for bad in (0, 86_401, 2**32 - 1):
        await invalid(peer.propose(lock_for_seconds=bad), "lock_for_seconds")


async def test_operation_requests(peer: Peer) -> None:
    for bad in BAD_TYPE_URLS:
        request = AnyMessage(type_url=bad, value=b"\x01")
        await invalid(peer.create(operation_request=request), "operation_request.type_url")
    large = AnyMessage(type_url="type.googleapis.com/a.B", value=b"x" * (256 * 1024))
    await invalid(peer.create(operation_request=large), "operation_request")
    larger = AnyMessage(type_url="type.googleapis.com/a.B", value=b"x" * (3 * 1024 * 1024))
    await invalid(peer.create(operation_request=larger), "operation_request")


async def test_errors(peer: Peer) -> None:
    for code in (0, 17, -1, 2**31 - 1):
        await invalid(peer.complete(error=Status(code=code, message="x")), "error.code")
    await invalid(peer.complete(error=Status(code=2, message="x" * 70_000)), "error")
    await invalid(peer.complete(error=Status(code=2, message="x" * 3_000_000)), "error")
    await invalid(peer.complete(error=Status(code=2, details=[AnyMessage()] * 101)), "error.details")


async def test_page_sizes_and_tokens(peer: Peer) -> None:
    for bad in (-1, -(2**31)):
        await invalid(peer.list(page_size=bad), "page_size")
        await invalid(peer.logs(page_size=bad), "page_size")
    for bad_token in ("x", "!!!", "e30", "bnVsbA", "\0", "ä", "A" * 5000, "eyJyZXZpc2lvbiI6IDF9", "../../etc"):
        await invalid(peer.list(page_token=bad_token), "page_token")
        await invalid(peer.logs(page_token=bad_token), "page_token")


async def test_a_page_token_that_was_meddled_with(peer: Peer) -> None:
    await peer.create("second")
    token = (await peer.list(page_size=1)).next_page_token
    facts = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    for meddled in (
        {"revision": 2**62},
        {"revision": -1},
        {"revision": 2**80},
        {"after_project": "../../other"},
        {"after_name": "\0"},
        {"after_project": 7},
    ):
        forged = base64.urlsafe_b64encode(json.dumps(facts | meddled).encode()).decode().rstrip("=")
        refusal = await refused(peer.list(page_size=1, page_token=forged))
        assert refusal.code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE}


async def test_states(peer: Peer) -> None:
    for bad in (0, 8, 99, -1):
        await invalid(peer.list(states=[bad]), "states")
    await invalid(peer.list(states=list(range(8, 5000))), "states")


async def test_start_revisions(peer: Peer) -> None:
    for bad in (-1, -(2**63)):
        await invalid(peer.watch(start_revision=bad).read(), "start_revision")


async def test_every_violation_is_told_at_once(peer: Peer) -> None:
    call = peer.named("").create(
        "..",
        project="",
        log_message="x" * 5000,
        lock_for_seconds=2**32 - 1,
        operation_request=AnyMessage(value=b"x"),
        fence="x",
    )
    await invalid(
        call,
        "project",
        "name",
        "proposing_peer_token",
        "n0stack-fencing-token",
        "log_message",
        "operation_request.type_url",
        "lock_for_seconds",
    )


async def test_the_largest_that_is_allowed_passes(peer: Peer) -> None:
    name = "/".join(["n" * 63] * 3) + "/" + "n" * 61
    assert len(name) == 253
    request = AnyMessage(type_url="example.com/path/a.b.C", value=b"")
    request.value = b"x" * (256 * 1024 - request.ByteSize() - 4)
    assert request.ByteSize() == 256 * 1024
    largest = peer.named("t" * 256)
    fields = {"project": "p" * 63, "log_message": "x" * 4096}
    await largest.create(name, lock_for_seconds=86_400, operation_request=request, **fields)
    await largest.propose(name, lock_for_seconds=86_400, **fields)
    await largest.append("ä" * 2048, name, project="p" * 63)
    details = [AnyMessage(type_url="example.com/a.B")] * 100
    refusal = await refused(peer.propose(name, project="p" * 63))
    assert refusal.reason == "LOCKED"
    await largest.complete(name, error=Status(code=2, message="x" * 63_000, details=details), **fields)
    assert (await peer.get(name, "p" * 63)).error.message == "x" * 63_000
    await peer.create(name, project="p" * 63, operation_request=None)
    await peer.cancel(name, project="p" * 63)


async def raw(peer: Peer, rpc: str, data: bytes) -> bytes:
    """Send bytes that need not be a message."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = peer.channel.unary_unary(f"/{SERVICE}/{rpc}")
    return await call(data, timeout=10)


async def test_wrong_utf_8_on_the_wire_names_the_field(peer: Peer) -> None:
    good = ProposeOperationRequest(
        project=PROJECT, name="NAME", lock_for_seconds=30, proposing_peer_token="TOKEN"
    ).SerializeToString()
    await invalid(raw(peer, "ProposeOperation", good.replace(b"NAME", b"\xff\xfe\xfd\xfc")), "name")
    both = good.replace(b"NAME", b"\xc3\x28ab").replace(b"TOKEN", b"\xed\xa0\x80ab")
    await invalid(raw(peer, "ProposeOperation", both), "name", "proposing_peer_token")
    create = pb.CreateOperationRequest(
        project=PROJECT, name="a", proposing_peer_token="x", operation_request=AnyMessage(type_url="URLS")
    ).SerializeToString()
    await invalid(raw(peer, "CreateOperation", create.replace(b"URLS", b"\xff\xff\xff\xff")), "operation_request")


async def test_bytes_that_are_no_message(peer: Peer) -> None:
    for data in (b"\xff", b"\x0a", b"\x0a\xff", b"\x0b", b"\x0a\x05ab", b"\xff" * 1000, bytes(range(256))):
        for rpc in (*CHANGES, "GetOperation", "ListOperations", "ListOperationLogs"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw(peer, rpc, data)
            assert refusal_of(caught.value).code == grpc.StatusCode.INVALID_ARGUMENT
        watch: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        watch = peer.channel.unary_stream(f"/{SERVICE}/WatchOperations")
        assert (await refused(watch(data, timeout=10).read())).code == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_method_that_does_not_exist(peer: Peer) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await raw(peer, "DestroyEverything", b"")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_wrong_utf_8_to_the_health_service_is_no_internal_error(peer: Peer) -> None:
    check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = peer.channel.unary_unary("/grpc.health.v1.Health/Check")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check(b"\x0a\x01\xff", timeout=10)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
