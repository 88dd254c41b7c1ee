"""grpc.health.v1, served by the service itself."""

import asyncio
from typing import Any

import grpc
import pytest
from fuzz import frames
from fuzz.connection import Connection
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from support import Peer, connected

from operation_service.server import running
from operation_service.settings import Settings

SERVICE = "n0stack.operation.v1alpha.OperationService"
SERVING = HealthCheckResponse.SERVING


WATCH = "/grpc.health.v1.Health/Watch"


def watch_health(peer: Peer) -> Any:
    """Begin a watch of the health of the whole."""
    return peer.channel.unary_stream(
        WATCH,
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )(HealthCheckRequest(), timeout=30)


async def ask(peer: Peer, rpc: str, request: Message, answer: type[Message]) -> Message:
    call: grpc.aio.UnaryUnaryMultiCallable[Message, Message] = peer.channel.unary_unary(
        f"/grpc.health.v1.Health/{rpc}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=answer.FromString,
    )
    return await call(request, timeout=10)


async def test_the_whole_and_the_service_by_name_are_serving(peer: Peer) -> None:
    for name in ("", SERVICE):
        answer = await ask(peer, "Check", HealthCheckRequest(service=name), HealthCheckResponse)
        assert answer == HealthCheckResponse(status=SERVING)


async def test_an_unknown_service_is_not_found(peer: Peer) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(peer, "Check", HealthCheckRequest(service="nobody"), HealthCheckResponse)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_every_method_of_the_health_service_answers(peer: Peer) -> None:
    assert [method.name for method in health_pb2.DESCRIPTOR.services_by_name["Health"].methods] == [
        "Check",
        "List",
        "Watch",
    ]
    # The published types do not know them.
    untyped: Any = health_pb2
    answer = await ask(peer, "List", untyped.HealthListRequest(), untyped.HealthListResponse)
    serving = HealthCheckResponse(status=SERVING)
    assert answer == untyped.HealthListResponse(statuses={"": serving, SERVICE: serving})


async def test_an_open_watch_of_the_health_does_not_hold_a_stop(etcd: str, settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    async with running(settings, [etcd]) as service, connected(service.address) as peer:
        watch = watch_health(peer)
        assert (await watch.read()) == HealthCheckResponse(status=SERVING)
        begin = loop.time()
    # The grace that calls in flight are given is 10 s.
    assert loop.time() - begin < 5


async def test_a_caller_that_does_not_read_keeps_the_health_from_nobody_and_holds_no_stop(
    etcd: str, settings: Settings
) -> None:
    loop = asyncio.get_running_loop()
    async with running(settings, [etcd]) as service, connected(service.address) as peer:
        unread = await Connection.open(service.address)
        # With a window of nothing, not even the first message can be written to it.
        await unread.send(frames.PREFACE + frames.settings((frames.Setting.INITIAL_WINDOW_SIZE, 0)))
        stream = unread.new_stream()
        await unread.send(frames.header_frames(stream, frames.block(frames.request_headers(WATCH.encode()))))
        await unread.send_data(stream, frames.message(b""))
        watch = watch_health(peer)
        assert (await watch.read()) == HealthCheckResponse(status=SERVING)
        begin = loop.time()
        await service.drain()
        assert (await watch.read()) == HealthCheckResponse(status=HealthCheckResponse.NOT_SERVING)
        assert await ask(peer, "Check", HealthCheckRequest(), HealthCheckResponse) == HealthCheckResponse(
            status=HealthCheckResponse.NOT_SERVING
        )
    # The grace that calls in flight are given is 10 s.
    assert loop.time() - begin < 8
    await unread.close()
