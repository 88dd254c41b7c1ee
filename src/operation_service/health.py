"""grpc.health.v1, told by what counts: whether etcd answers."""

import asyncio
import logging
from typing import Any, cast

import grpc
from etcd3 import etcdrpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from operation_service.clock import Deadline
from operation_service.errors import StoreUnavailableError
from operation_service.etcd_client import EtcdClient

_log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

_EVERY_SECONDS = 1.0
_PATIENCE_SECONDS = 3.0
"""An election takes about two seconds; one is no reason to send callers elsewhere."""


class Health(health_aio.HealthServicer):
    """The stock servicer, with the List that it lacks, and with watches that can be ended.

    Open ones would hold a stop for all of its grace.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End all watches."""
        self._stopping.set()

    async def List(self, _request: object, _context: Context) -> Message:
        """Tell the health of everything."""
        # The published types know neither this method, nor what it returns, nor where the stock servicer keeps it.
        known: dict[str, Any] = cast("Any", self)._server_status  # noqa: SLF001
        statuses = {name: HealthCheckResponse(status=status) for name, status in known.items()}
        return cast("Message", cast("Any", health_pb2).HealthListResponse(statuses=statuses))

    async def Watch(self, request: HealthCheckRequest, context: Context) -> None:
        """Tell of every change, until the service stops."""
        tasks = {
            asyncio.ensure_future(super().Watch(request, context)),
            asyncio.ensure_future(self._stopping.wait()),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


class HealthMonitor:
    """Asks etcd every second, and tells the health service.

    Args:
        etcd: The client.
        servicer: What callers ask.
        names: The services that are healthy or not, all alike.
    """

    def __init__(self, etcd: EtcdClient, servicer: health_aio.HealthServicer, names: tuple[str, ...]) -> None:
        self._etcd = etcd
        self._servicer = servicer
        self._names = names
        self._is_serving: bool | None = None

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(_EVERY_SECONDS)

    async def ask(self) -> None:
        """Ask once: a read that needs the quorum, of a key that need not be there."""
        request = etcdrpc.RangeRequest(key=b"health", count_only=True)
        try:
            await self._etcd.range(request, Deadline(_PATIENCE_SECONDS))
        except StoreUnavailableError as error:
            await self._tell(False, f"etcd is not available: {error.why}")
        else:
            await self._tell(True, "etcd answers")

    async def _tell(self, is_serving: bool, why: str) -> None:
        if is_serving is self._is_serving:
            return
        if self._is_serving is not None or not is_serving:
            _log.warning("%s: %s", "healthy again" if is_serving else "not healthy", why)
        self._is_serving = is_serving
        status = HealthCheckResponse.SERVING if is_serving else HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._servicer.set(name, status)
