"""The health check, against real gRPC servers of this process."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from operation_service.health_check import check_health

TIMEOUT_SECONDS = 5.0


@asynccontextmanager
async def health_server(
    status: int | None = health_pb2.HealthCheckResponse.SERVING, *, listen: str = "127.0.0.1:0"
) -> AsyncIterator[int]:
    """Run a server with that health, or without the health service at all, and give its port."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    if status is not None:
        servicer = health.aio.HealthServicer()
        await servicer.set("", status)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(listen)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(grace=None)


async def test_serving() -> None:
    async with health_server() as port:
        answer = await check_health(f"127.0.0.1:{port}", TIMEOUT_SECONDS)
    assert answer.is_serving
    assert answer.reason == f"127.0.0.1:{port} is SERVING"


async def test_not_serving() -> None:
    async with health_server(health_pb2.HealthCheckResponse.NOT_SERVING) as port:
        answer = await check_health(f"127.0.0.1:{port}", TIMEOUT_SECONDS)
    assert not answer.is_serving
    assert answer.reason == f"127.0.0.1:{port} is NOT_SERVING"


async def test_a_status_of_a_later_protocol_is_not_serving() -> None:
    async with health_server(77) as port:
        answer = await check_health(f"127.0.0.1:{port}", TIMEOUT_SECONDS)
    assert not answer.is_serving
    assert answer.reason == f"127.0.0.1:{port} is in state 77"


async def test_a_server_without_the_health_service() -> None:
    async with health_server(status=None) as port:
        answer = await check_health(f"127.0.0.1:{port}", TIMEOUT_SECONDS)
    assert not answer.is_serving
    assert "UNIMPLEMENTED" in answer.reason


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "[::]", "[0:0:0:0:0:0:0:0]"])  # noqa: S104 - what is tested
async def test_a_listen_address_that_means_all_is_asked_on_loopback(wildcard: str) -> None:
    async with health_server(listen=f"{wildcard}:0") as port:
        answer = await check_health(f"{wildcard}:{port}", TIMEOUT_SECONDS)
    assert answer.is_serving, answer.reason
    assert answer.reason.startswith(f"127.0.0.1:{port} ")


async def test_a_name_is_resolved() -> None:
    async with health_server() as port:
        answer = await check_health(f"localhost:{port}", TIMEOUT_SECONDS)
    assert answer.is_serving, answer.reason


async def test_nobody_listens() -> None:
    # Bound but not listening: refused, and nobody else can take the port meanwhile.
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        answer = await check_health(f"127.0.0.1:{port}", TIMEOUT_SECONDS)
    assert not answer.is_serving
    assert f"127.0.0.1:{port} does not answer: UNAVAILABLE" in answer.reason
    assert "\n" not in answer.reason


async def test_who_accepts_and_stays_silent_is_given_up_after_the_timeout() -> None:
    connections: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: connections.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    started = time.monotonic()
    answer = await check_health(f"127.0.0.1:{port}", 0.3)
    took = time.monotonic() - started
    silent.close()
    for connection in connections:
        connection.close()
    assert not answer.is_serving
    assert "DEADLINE_EXCEEDED" in answer.reason
    assert 0.25 < took < TIMEOUT_SECONDS


@pytest.mark.parametrize(
    "listen",
    [
        "",
        "nonsense",
        "127.0.0.1",
        "127.0.0.1:",
        ":50051",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:http",
        "127.0.0.1:50051\n",
        "::1:80",
        "[::1]",
        "http://127.0.0.1:50051",
        "a b:1",
    ],
)
async def test_what_is_no_address_is_an_answer_too(listen: str) -> None:
    answer = await check_health(listen, TIMEOUT_SECONDS)
    assert not answer.is_serving
    assert answer.reason == f"{listen!r} is not HOST:PORT with a port from 1 to 65535"


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with health_server() as unused, health_server() as port:
        for name in ("grpc_proxy", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{unused}")
        for name in ("no_grpc_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        answer = await check_health(f"127.0.0.1:{port}", TIMEOUT_SECONDS)
    assert answer.is_serving, answer.reason
