"""Puts the service together, serves, and takes it apart again. The only room that sees all others."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service import health_port, wire
from operation_service.access import Access
from operation_service.admission import Admission, Gate
from operation_service.clock import Clock, SystemClock
from operation_service.commits import Commits
from operation_service.delivery import Delivery
from operation_service.descriptor_sets import load
from operation_service.embedded_etcd import start_embedded_etcd
from operation_service.ending import AGAIN_SECONDS, ServerEndedError, StopSignals
from operation_service.errors import OverloadedError
from operation_service.etcd_client import EtcdClient
from operation_service.etcd_store import EtcdStore
from operation_service.expiry import Expiry
from operation_service.grpc_server import new_server
from operation_service.health import Health, HealthMonitor, shortened
from operation_service.janitor import Janitor
from operation_service.keys import Keys
from operation_service.landmarks import Landmarks
from operation_service.leases import Leases
from operation_service.listening import bind, port_sharing
from operation_service.listing import Listing
from operation_service.lock_times import LockTimes
from operation_service.open_files import max_connections
from operation_service.operations import Operations
from operation_service.reflection import add_reflection
from operation_service.server_tls import ServerCertificates
from operation_service.servicer import OperationServicer
from operation_service.serving_line import serving_line
from operation_service.settings import Settings
from operation_service.survey import Survey
from operation_service.watch_hub import WatchHub
from operation_service.watching import Watching

_log = logging.getLogger(__name__)

_SERVICE = pb.DESCRIPTOR.services_by_name["OperationService"]
_HEALTH: ServiceDescriptor = cast("Any", health_pb2.DESCRIPTOR).services_by_name["Health"]

_NOTICE_SECONDS = 0.5
"""Between NOT_SERVING and the closed port, so that those who ask for health learn it before they are cut off."""
_GRACE_SECONDS = 10.0
"""As long as the longest call without a deadline of its own may take."""

_LAST_SECONDS = 1.0
"""For what is on its way when the last call has done its part."""

_MAX_PENDING = 8_000
_MAX_HEALTH_CALLS = 1_000
_MAX_HEALTH_WATCHES = 1_000
"""Counted for themselves, so that those who ask are answered whatever else is full."""
_MAX_REFLECTIONS = 100
"""An answer has all files that a service needs."""

_OPTIONS = (
    # Callers that wait in a watch may check the connection; by default they would be thrown out for it.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Callers that have gone without a word are found, and their watches ended.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # The former is not enough: a caller that is stopped, whose kernel answers for it, is only found by this one.
    ("grpc.http2.ping_timeout_ms", 20_000),
    # gRPC's own default. Up to here the field that is too large is named; wire.py says what is.
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    # Calls that have come and were not yet looked at, of about 16 KiB each. gRPC itself ends what is beyond it, with
    # CANCELLED; from the default, 1,000, on it would do so at random.
    ("grpc.server.max_pending_requests", _MAX_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING),
    # Connections that say nothing are ended; gRPC would wait for two minutes.
    ("grpc.server_handshake_timeout_ms", 20_000),
    # Headers in bytes: from the first limit on they may be refused, from the second on they are. gRPC's own defaults.
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    # What cannot be decompressed would be INTERNAL; compression.py does it.
    ("grpc.per_message_decompression", 0),
)


@dataclass(frozen=True, slots=True)
class Service:
    """A service that serves.

    Attributes:
        settings: How it serves, with the ports that it has got.
        etcd_endpoints: URLs of the etcd that holds its state.
        health: What it tells of its health.
        watching: Its watches.
        admission: The gates of its operations.
        ended: Done, as soon as gRPC takes no more calls, whoever ended it.
    """

    settings: Settings
    etcd_endpoints: tuple[str, ...]
    health: Health
    watching: Watching
    admission: Admission
    ended: "asyncio.Task[bool]"

    @property
    def address(self) -> str:
        """Where it listens: HOST:PORT."""
        return self.settings.listen

    async def drain(self) -> None:
        """Send callers elsewhere: NOT_SERVING for good, watches ended, a moment to notice."""
        self.health.enter_graceful_shutdown()
        self.watching.stop()
        await asyncio.sleep(_NOTICE_SECONDS)


def _say_serving(service: Service) -> None:
    _log.info("%s", serving_line(service.settings, service.etcd_endpoints))


async def serve(
    settings: Settings, tell: Callable[[Service], None] = _say_serving, again_seconds: float = AGAIN_SECONDS
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: How.
        tell: Called once it serves.
        again_seconds: From when on a second signal ends it at once.

    Raises:
        ServerEndedError: gRPC has ended its server; gRPC's own reason is in the log.
        SettingsError: The service cannot run with these settings.
        EmbeddedEtcdError: The embedded etcd cannot be started.
        DescriptorSetError: A descriptor set cannot be used.
    """
    signals = StopSignals(again_seconds)
    async with running(settings) as service:
        tell(service)
        signalled = asyncio.create_task(signals.wait())
        await asyncio.wait({signalled, service.ended}, return_when=asyncio.FIRST_COMPLETED)
        if not signalled.done():
            signalled.cancel()
            signals.wait_no_more()
            raise ServerEndedError("gRPC takes no more calls: start the service again, and look into its log")
        _log.info("stopping: calls in flight may finish")
        await service.drain()
    _log.info("stopped; locks stay with their holders")


@contextlib.asynccontextmanager
async def running(
    settings: Settings, etcd_endpoints: Sequence[str] = (), clock: Clock | None = None
) -> AsyncIterator[Service]:
    """Run a service; at the end, let calls in flight finish.

    What is wrong with the settings shows before an etcd is started for nothing.

    Args:
        settings: How.
        etcd_endpoints: URLs of the etcd, instead of what the settings say.
        clock: The service's time. None: the machine's.

    Raises:
        SettingsError: The service cannot run with these settings.
        EmbeddedEtcdError: The embedded etcd cannot be started.
        DescriptorSetError: A descriptor set cannot be used.
    """
    index = load(settings.descriptor_sets)
    access = Access(settings)
    certificates = ServerCertificates(settings.tls) if settings.tls else None
    most = max(1, max_connections() - (health_port.MAX_CONNECTIONS if settings.health_listen else 0))
    server = new_server((*_OPTIONS, port_sharing(settings), ("grpc.max_allowed_incoming_connections", most)))
    # A worker's port has been claimed for it; and once it is bound, the kernel sends it connections.
    address = "" if settings.workers > 1 else bind(server, settings.listen, certificates=certificates)
    probed = health_port.HealthPort(settings, _OPTIONS) if settings.health_listen else None
    async with contextlib.AsyncExitStack() as stack:
        endpoints = etcd_endpoints or settings.etcd_endpoints or (await start_embedded_etcd(settings, stack),)
        clock, keys = clock or SystemClock(), Keys(settings.key_prefix)
        etcd = EtcdClient(endpoints, clock.monotonic)
        stack.push_async_callback(etcd.close)
        times = LockTimes(clock)
        leases = Leases(etcd, clock, settings.retention_seconds)
        stack.push_async_callback(leases.close)
        landmarks = Landmarks()
        survey = Survey(etcd, keys, landmarks)
        janitor = Janitor(etcd, keys, landmarks)
        commits = Commits(etcd, keys, leases, times, clock, on_operation_replaced=janitor.operation_replaced)
        store = EtcdStore(etcd, keys, times, commits)
        listing = Listing(etcd, keys, store, survey)
        expiry = Expiry(etcd, keys, times)
        hub = WatchHub(etcd, keys, store, times, expiry=expiry, on_record_gone=janitor.record_gone)
        watching = Watching(etcd, keys, store, listing, hub)
        admission, delivery = Admission(settings.max_calls_in_flight, settings.max_watches), Delivery()
        operations = Operations(store, clock)
        servicer = OperationServicer(operations, listing, watching, delivery, settings.max_lock_seconds)
        health = Health(delivery)
        monitor = HealthMonitor(etcd, health, ("", _SERVICE.full_name))
        methods = wire.handlers(_SERVICE, servicer, delivery, admission, access=access)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE.full_name, methods),))
        server.add_generic_rpc_handlers((_health_handlers(health, delivery),))
        add_reflection(
            server, index, (_SERVICE.full_name, _HEALTH.full_name), delivery, Gate(_MAX_REFLECTIONS, OverloadedError)
        )

        await monitor.ask()
        own = [*([certificates.run] if certificates else []), *([] if access.is_open else [access.run])]
        for work in (etcd.feel_pulses, monitor.run, hub.run, expiry.run, janitor.run, survey.run, *own):
            stack.push_async_callback(_cancel, asyncio.create_task(_for_ever(work)))
        settings = replace(settings, listen=address or bind(server, settings.listen, certificates=certificates))
        await server.start()
        ended = asyncio.create_task(server.wait_for_termination())
        # What ended it is in gRPC's log already.
        ended.add_done_callback(lambda done: done.cancelled() or done.exception())
        if probed:
            stack.push_async_callback(probed.stop)
            settings = replace(settings, health_listen=await probed.start(_health_handlers(health, delivery)))
        stack.push_async_callback(_stop, server, admission)
        # Watches hold a stop for all of its grace, unless they are ended first.
        stack.callback(health.stop)
        stack.callback(delivery.stop)
        stack.callback(watching.stop)
        yield Service(settings, tuple(endpoints), health, watching, admission, ended)


def _health_handlers(health: Health, delivery: Delivery) -> grpc.GenericRpcHandler:
    """Return what one server tells of the health; each counts for itself who asks it."""
    admission = Admission(_MAX_HEALTH_CALLS, _MAX_HEALTH_WATCHES)
    methods = wire.handlers(_HEALTH, health, delivery, admission, shortened)
    return grpc.method_handlers_generic_handler(_HEALTH.full_name, methods)


async def _stop(server: grpc.aio.Server, admission: Admission) -> None:
    """Let calls in flight finish; but callers that do not read what they are told hold the stop no longer than that."""
    stopping = asyncio.create_task(server.stop(_GRACE_SECONDS))
    idle = asyncio.create_task(admission.emptied())
    await asyncio.wait({stopping, idle}, return_when=asyncio.FIRST_COMPLETED)
    idle.cancel()
    await server.stop(_LAST_SECONDS)
    await stopping


async def _for_ever(work: Callable[[], Awaitable[None]]) -> None:
    """Keep background work going: a mistake in it must not leave the service deaf without a word."""
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001, whatever it was is logged, and the work goes on
            _log.exception("background work failed, and is begun again")
        await asyncio.sleep(1.0)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
