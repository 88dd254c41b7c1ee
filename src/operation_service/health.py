"""grpc.health.v1, told by what counts: whether etcd answers, and holds what this version can read."""

import asyncio
import logging
from typing import Any, cast

import grpc
from google.protobuf.message import Message
from google.rpc.code_pb2 import NOT_FOUND
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_status.rpc_status import to_status

from operation_service.clock import Deadline
from operation_service.delivery import Delivery
from operation_service.errors import LayoutError, StoreOutOfSpaceError, StoreUnavailableError
from operation_service.layout import Layout

_log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
ServingStatus = Any
"""A HealthCheckResponse.ServingStatus, which the published types do not name."""

_UNKNOWN = to_status(Status(code=NOT_FOUND, message="service: there is none by that name here"))
_ANSWER_SECONDS = 5.0
_UNREAD_SECONDS = 30.0
_EVERY_SECONDS = 1.0
_PATIENCE_SECONDS = 3.0
"""An election takes about two seconds; one is no reason to send callers elsewhere."""
_MAX_NAME_CHARACTERS = 256


def shortened(request: Message) -> Message:
    """Return what is kept of a request: a name that no service can have stays one when it is cut off."""
    if isinstance(request, HealthCheckRequest):
        return HealthCheckRequest(service=request.service[: _MAX_NAME_CHARACTERS + 1])
    return request


class Health:
    """Tells what it has been told.

    The stock servicer lacks List, holds a stop for as long as a watch is open, and writes to a watch while it holds a
    lock: one caller that does not read would have kept it from telling anybody anything ever again.

    Args:
        delivery: Writes.
    """

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._statuses: dict[str, ServingStatus] = {}
        self._changed = asyncio.Event()
        self._is_ending = False
        self._is_stopped = False

    def set(self, name: str, status: ServingStatus) -> None:
        """Set the health of a service; without effect once the whole is about to end."""
        if not self._is_ending:
            self._statuses[name] = status
            self._wake()

    def enter_graceful_shutdown(self) -> None:
        """Be NOT_SERVING for good."""
        for name in self._statuses:
            self.set(name, HealthCheckResponse.NOT_SERVING)
        self._is_ending = True

    def stop(self) -> None:
        """End all watches: open ones would hold a stop for all of its grace."""
        self._is_stopped = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: HealthCheckRequest, context: Context) -> Message:
        """Tell the health of a service."""
        status = self._statuses.get(request.service)
        if status is None:
            await self._delivery.abort(context, _UNKNOWN, _ANSWER_SECONDS)
        return HealthCheckResponse(status=status)

    async def List(self, _request: object, _context: Context) -> Message:
        """Tell the health of everything."""
        # The published types do not know what it returns.
        statuses = {name: HealthCheckResponse(status=status) for name, status in self._statuses.items()}
        return cast("Message", cast("Any", health_pb2).HealthListResponse(statuses=statuses))

    async def Watch(self, request: HealthCheckRequest, context: Context) -> None:
        """Tell of every change, until the service stops or the caller does not read."""
        told = None
        while not self._is_stopped:
            changed = self._changed
            status = self._statuses.get(request.service, HealthCheckResponse.SERVICE_UNKNOWN)
            if status != told:
                await self._delivery.write(context, HealthCheckResponse(status=status), _UNREAD_SECONDS)
                told = status
            else:
                await changed.wait()


class HealthMonitor:
    """Asks etcd every second, and tells the health service.

    Args:
        layout: What is asked for.
        health: What callers ask.
        names: The services that are healthy or not, all alike.

    Attributes:
        wrong_layout: What etcd held when it was last found out, if that is for another version of the service.
    """

    def __init__(self, layout: Layout, health: Health, names: tuple[str, ...]) -> None:
        self._layout = layout
        self._health = health
        self._names = names
        self._is_serving: bool | None = None
        self._why = ""
        self.wrong_layout: LayoutError | None = None

    @property
    def is_healthy(self) -> bool:
        """Whether etcd answered when it was last asked."""
        return bool(self._is_serving)

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(_EVERY_SECONDS)

    async def ask(self) -> None:
        """Ask once: a read that needs the quorum, and tells which layout the keys have."""
        try:
            await self._layout.settle(Deadline(_PATIENCE_SECONDS))
        except LayoutError as error:
            self.wrong_layout = error
            self._tell(False, error.why)
        except StoreUnavailableError as error:
            self._tell(False, f"etcd is not available: {error.why}")
        except StoreOutOfSpaceError:
            # It answers, and there is no number. Whoever wants a change is told.
            self._is_right()
        else:
            self._is_right()

    def _is_right(self) -> None:
        self.wrong_layout = None
        self._tell(True, "etcd answers")

    def _tell(self, is_serving: bool, why: str) -> None:
        if is_serving is self._is_serving and why == self._why:
            return
        self._why = why
        if self._is_serving is not None or not is_serving:
            _log.warning("%s: %s", "healthy again" if is_serving else "not healthy", why)
        self._is_serving = is_serving
        status = HealthCheckResponse.SERVING if is_serving else HealthCheckResponse.NOT_SERVING
        for name in self._names:
            self._health.set(name, status)
