"""gRPC's own server for asyncio, as it comes, with gRPC's own health service: what most services in Python stand on."""

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from grpc_health.v1.health import aio
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from benchmarks import requests
from benchmarks.bench import Bench, Spot
from benchmarks.figures import Figure
from benchmarks.requests import HEALTH
from benchmarks.servers import Server, StartError, server_process

STOCK = "Health/Check, gRPC's own"
_SAYS = r"listening on (\S+)"


class StockGrpc:
    """The server, to be measured.

    Args:
        server: It.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    async def measure(self, bench: Bench, spot: Spot) -> AsyncIterator[Figure]:
        """Call its Health/Check."""
        plan = bench.timed(self._server.address, HEALTH, [requests.health()], spot)
        yield (await bench.measure(STOCK, plan, spot, server=self._server))[0]


@contextlib.asynccontextmanager
async def running_stock_grpc(folder: Path) -> AsyncIterator[StockGrpc]:
    """Run the server."""
    command = (sys.executable, "-m", "benchmarks.stock_grpc")
    async with server_process("stock-grpc", command, folder, says=_SAYS) as (process, pid):
        listening = re.search(_SAYS, process.log)
        if listening is None:
            raise StartError("gRPC's own server does not say where it listens")
        yield StockGrpc(Server("stock-grpc", listening.group(1), pid))


async def _serve() -> None:
    server, health = grpc.aio.server(), aio.HealthServicer()
    add_HealthServicer_to_server(health, server)
    await health.set("", HealthCheckResponse.SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve())
