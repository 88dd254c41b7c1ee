"""Bounds: what is over them is refused at once and changes nothing, and who does not read harms nobody else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from fuzz import frames
from fuzz.connection import Connection
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from support import NAME, PROJECT, Peer, Refusal, connected, event_name, refusal_of, refused
from waiting import soon

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.lingering import Lingering
from operation_service.server import running
from operation_service.settings import Settings

SERVICE = "n0stack.operation.v1alpha.OperationService"
GET = pb.GetOperationRequest(project=PROJECT, name=NAME)


@pytest.fixture
async def full(etcd: str, settings: Settings) -> AsyncIterator[tuple[Peer, contextlib.ExitStack]]:
    """A peer of a service that has one place, and who has that place."""
    async with running(replace(settings, max_calls_in_flight=1), [etcd]) as service, connected(service.address) as peer:
        with contextlib.ExitStack() as place:
            place.enter_context(service.admission.calls.place())
            yield peer, place


async def test_a_call_over_the_limit_is_refused_at_once_and_changes_nothing(
    full: tuple[Peer, contextlib.ExitStack],
) -> None:
    peer, place = full
    for call in (peer.propose(), peer.create(), peer.append(), peer.complete(), peer.cancel(), peer.get(), peer.list()):
        refusal = await refused(call)
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (refusal.reason, refusal.metadata) == ("OVERLOADED", {"limit": "1"})
        assert refusal.retry_seconds is not None
        assert refusal.retry_seconds >= 0.5
    place.close()
    assert not (await peer.list()).operations


def check(peer: Peer) -> Any:
    return peer.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )


def health_watch(peer: Peer, service: str = "") -> Any:
    return peer.channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )(HealthCheckRequest(service=service), timeout=20)


def reflection(peer: Peer) -> Any:
    return peer.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )


async def test_health_and_reflection_are_answered_while_it_is_full(full: tuple[Peer, contextlib.ExitStack]) -> None:
    peer, _ = full
    assert (await check(peer)(HealthCheckRequest(), timeout=10)).status == HealthCheckResponse.SERVING
    reflect = reflection(peer)
    call = reflect([ServerReflectionRequest(list_services="")], timeout=10)
    assert SERVICE in {service.name for service in (await call.read()).list_services_response.service}


async def test_a_watch_needs_no_place_of_a_call(full: tuple[Peer, contextlib.ExitStack]) -> None:
    peer, _ = full
    await peer.watching()


async def test_a_request_that_does_not_come_gives_its_place_up(
    etcd: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operation_service.wire._REQUEST_SECONDS", 1.0)
    async with running(settings, [etcd]) as service, connected(service.address) as peer:
        never = asyncio.Event()

        async def nothing() -> AsyncIterator[bytes]:
            await never.wait()
            yield b""

        get: Any = peer.channel.stream_unary(f"/{SERVICE}/GetOperation")
        refusal = await refused(get(nothing(), timeout=30))
        assert refusal.reason == "INVALID_ARGUMENT"
        assert "did not arrive" in refusal.message
        async with asyncio.timeout(10):
            await service.admission.calls.emptied()


async def test_a_watch_over_the_limit_is_refused_until_another_ends(etcd: str, settings: Settings) -> None:
    async with running(replace(settings, max_watches=2), [etcd]) as service, connected(service.address) as peer:
        first, second = await peer.watching(), await peer.watching()
        for _ in range(2):
            refusal = await over_the_limit(peer)
            assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (refusal.reason, refusal.metadata) == ("TOO_MANY_WATCHES", {"limit": "2"})
            assert refusal.retry_seconds is not None
        first.cancel()

        async def is_taken_on() -> bool:
            watch = peer.watch()
            await watch.initial_metadata()
            await peer.propose()
            return await watch.read() is not grpc.aio.EOF

        assert await soon(is_taken_on)
        await peer.propose("after")
        assert event_name((await second.read()).event) == "LOCKED"


async def over_the_limit(peer: Peer) -> Refusal:
    try:
        await peer.watch().read()
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError


async def test_watches_of_the_health_have_a_limit_of_their_own_and_keep_nobody_from_asking(
    etcd: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operation_service.server._MAX_HEALTH_CALLS", 1)
    monkeypatch.setattr("operation_service.server._MAX_HEALTH_WATCHES", 2)
    async with running(settings, [etcd]) as service, connected(service.address) as peer:
        watches = [health_watch(peer), health_watch(peer)]
        for watch in watches:
            assert (await watch.read()).status == HealthCheckResponse.SERVING
        refusal = await refused(health_watch(peer).read())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHES")
        assert (await check(peer)(HealthCheckRequest(), timeout=10)).status == HealthCheckResponse.SERVING
        await peer.watching()
        for watch in watches:
            watch.cancel()


async def test_a_service_with_too_long_a_name_is_unknown_to_the_health(peer: Peer) -> None:
    for name in ("x" * 257, "ä" * 300, "x" * 1_000_000):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(peer)(HealthCheckRequest(service=name), timeout=10)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = health_watch(peer, name)
        assert (await watch.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()


async def test_conversations_with_reflection_have_a_limit_of_their_own(
    etcd: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operation_service.server._MAX_REFLECTIONS", 1)
    async with running(settings, [etcd]) as service, connected(service.address) as peer:
        first = reflection(peer)(timeout=20)
        await first.write(ServerReflectionRequest(list_services=""))
        assert (await first.read()).list_services_response.service
        assert (await refused(reflection(peer)(timeout=20).read())).reason == "OVERLOADED"
        await first.done_writing()
        assert await first.read() is grpc.aio.EOF
        second = reflection(peer)([ServerReflectionRequest(list_services="")], timeout=20)
        assert (await second.read()).list_services_response.service


async def test_a_conversation_in_which_nothing_is_asked_ends(
    etcd: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operation_service.reflection._QUESTION_SECONDS", 0.2)
    async with running(settings, [etcd]) as service, connected(service.address) as peer:
        assert await reflection(peer)(timeout=20).read() is grpc.aio.EOF


# --- callers that do not read

LARGE = "x" * 4_000


async def fill(peer: Peer, name: str = "large") -> int:
    """Make changes that are more than gRPC buffers for a caller that does not read; return how many."""
    await peer.propose(name, lock_for_seconds=600)
    for _ in range(60):
        await peer.append(LARGE, name)
    return 61


async def read_to_the_end(watch: Any) -> tuple[list[int], Refusal]:
    revisions = []
    try:
        while True:
            revisions.append((await watch.read()).revision)
    except grpc.aio.AioRpcError as error:
        return revisions, refusal_of(error)


async def test_a_watch_that_is_not_read_is_ended_with_an_error_and_can_be_resumed_without_a_gap(
    address: str, peer: Peer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("operation_service.servicer._PATIENCE_SECONDS", 1.0)
    async with connected(address) as other:
        slow, good = await other.watching(), await peer.watching()
        changes = await fill(peer)
        revisions = [(await good.read()).revision for _ in range(changes)]

        async def is_given_up() -> bool:
            return "is given up" in caplog.text

        assert await soon(is_given_up)
        read, refusal = await read_to_the_end(slow)
        assert refusal.reason == "WATCHER_TOO_SLOW"
        assert read == revisions[: len(read)]
        resumed = await other.watching(start_revision=int(refusal.metadata["resume_revision"]))
        read += [(await resumed.read()).revision for _ in range(changes - len(read))]
        assert read == revisions


async def test_a_watch_that_is_not_read_does_not_hold_a_stop(etcd: str, settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        async with running(settings, [etcd]) as service, connected(service.address) as peer:
            slow = await (await stack.enter_async_context(connected(service.address))).watching()
            good = await peer.watching()
            for _ in range(await fill(peer)):
                await good.read()
            begin = loop.time()
        # The grace that calls in flight are given is 10 s.
        assert loop.time() - begin < 7
        slow.cancel()


async def test_answers_that_are_not_read_do_not_pile_up(
    etcd: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operation_service.wire._ANSWER_SECONDS", 0.2)
    monkeypatch.setattr("operation_service.delivery.Lingering", lambda: Lingering(max_calls=3))
    async with running(settings, [etcd]) as service, connected(service.address) as peer:
        await peer.propose()
        before = len(asyncio.all_tasks())
        connection = await Connection.open(service.address)
        await connection.send(frames.PREFACE + frames.settings((frames.Setting.INITIAL_WINDOW_SIZE, 0)))
        for _ in range(10):
            stream = connection.new_stream()
            headers = frames.request_headers(f"/{SERVICE}/GetOperation".encode())
            await connection.send(frames.header_frames(stream, frames.block(headers)))
            await connection.send_data(stream, frames.message(GET.SerializeToString()))

        async def is_bounded() -> bool:
            # Two tasks for each call of the three, and nothing of the others.
            return len(asyncio.all_tasks()) - before <= 6

        async with asyncio.timeout(10):
            await service.admission.calls.emptied()
        assert await soon(is_bounded)
        try:

            async def are_cut_off() -> bool:
                told = [await connection.reaction(stream, 0.2) for stream in range(1, 21, 2)]
                return told.count("CANCELLED") == 7

            assert await soon(are_cut_off)
        finally:
            await connection.close(abort=True)
        assert await peer.state() == "LOCKED"
