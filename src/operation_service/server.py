"""Puts the service together, serves, and takes it apart again. The only room that sees all others."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service import background, wire
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
from operation_service.health import Health, HealthMonitor, shortened
from operation_service.janitor import Janitor
from operation_service.keys import Keys
from operation_service.landmarks import Landmarks
from operation_service.layout import Layout
from operation_service.leases import Leases
from operation_service.listing import Listing
from operation_service.lock_times import LockTimes
from operation_service.operations import Operations
from operation_service.ports import STOP_SECONDS as PORTS_STOP_SECONDS
from operation_service.ports import Ports
from operation_service.reflection import add_reflection
from operation_service.scan import EVERYTHING, Scan
from operation_service.self_telling import Sources, self_telling
from operation_service.servicer import OperationServicer
from operation_service.serving_line import serving_line
from operation_service.settings import Settings, SettingsError
from operation_service.survey import Survey
from operation_service.telling import Telling
from operation_service.watch_hub import WatchHub
from operation_service.watching import Watching

_log = logging.getLogger(__name__)

_SERVICE = pb.DESCRIPTOR.services_by_name["OperationService"]
_HEALTH: ServiceDescriptor = cast("Any", health_pb2.DESCRIPTOR).services_by_name["Health"]

_NOTICE_SECONDS = 0.5
"""Between NOT_SERVING and the closed port, so that those who ask for health learn it before they are cut off."""
STOP_SECONDS = _NOTICE_SECONDS + PORTS_STOP_SECONDS
"""How long a stop may take: whoever kills has to wait for longer."""
_TELLS_NOTHING = Telling()

_MAX_HEALTH_CALLS = 1_000
_MAX_HEALTH_WATCHES = 1_000
"""Counted for themselves, so that those who ask are answered whatever else is full."""
_MAX_REFLECTIONS = 100
"""An answer has all files that a service needs."""


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
    settings: Settings,
    tell: Callable[[Service], None] = _say_serving,
    again_seconds: float = AGAIN_SECONDS,
    telling: Telling = _TELLS_NOTHING,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: How.
        tell: Called once it serves.
        again_seconds: From when on a second signal ends it at once.
        telling: Where what it tells of itself goes.

    Raises:
        ServerEndedError: gRPC has ended its server; gRPC's own reason is in the log.
        SettingsError: The service cannot run with these settings.
        EmbeddedEtcdError: The embedded etcd cannot be started.
        DescriptorSetError: A descriptor set cannot be used.
    """
    signals = StopSignals(again_seconds)
    async with running(settings, telling=telling) as service:
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
    settings: Settings,
    etcd_endpoints: Sequence[str] = (),
    clock: Clock | None = None,
    telling: Telling = _TELLS_NOTHING,
) -> AsyncIterator[Service]:
    """Run a service; at the end, let calls in flight finish.

    What is wrong with the settings shows before an etcd is started for nothing.

    Args:
        settings: How.
        etcd_endpoints: URLs of the etcd, instead of what the settings say.
        clock: The service's time. None: the machine's.
        telling: Where what it tells of itself goes.

    Raises:
        SettingsError: The service cannot run with these settings.
        EmbeddedEtcdError: The embedded etcd cannot be started.
        DescriptorSetError: A descriptor set cannot be used.
    """
    index = load(settings.descriptor_sets)
    access = Access(settings)
    ports = Ports(settings)
    async with contextlib.AsyncExitStack() as stack:
        told = await stack.enter_async_context(self_telling(settings, telling))
        access.denied.audit = told.audit
        endpoints = etcd_endpoints or settings.etcd_endpoints or (await start_embedded_etcd(settings, stack),)
        clock, keys = clock or SystemClock(), Keys(settings.key_prefix)
        etcd = EtcdClient(endpoints, clock.monotonic, told.observer, access=settings.etcd_access, probe=keys.layout)
        stack.push_async_callback(etcd.close)
        times = LockTimes(clock)
        leases = Leases(etcd, clock, settings.retention_seconds)
        stack.push_async_callback(leases.close)
        landmarks = Landmarks()
        survey = Survey(etcd, keys, landmarks)
        janitor = Janitor(etcd, keys, landmarks)
        commits = Commits(
            *(etcd, keys, leases, times, clock),
            on_operation_replaced=janitor.operation_replaced,
            on_batch=told.on_batch,
            on_outcome=told.on_outcome,
            sharing=told.sharing("commit"),
        )
        store = EtcdStore(etcd, keys, times, commits, sharing=told.sharing("read"))
        listing = Listing(etcd, keys, store, survey)
        expiry = Expiry(etcd, keys, times, told.on_lock_ended)
        census = told.census(lambda: Scan(etcd, keys, store, survey, EVERYTHING), times)
        hub = WatchHub(*(etcd, keys, store, times), expiry=expiry, on_record_gone=janitor.record_gone, census=census)
        watching = Watching(etcd, keys, store, listing, hub)
        admission, delivery = Admission(settings.max_calls_in_flight, settings.max_watches), Delivery()
        operations = Operations(store, clock, told.on_outcome)
        servicer = OperationServicer(
            *(operations, listing, watching, delivery, settings.max_lock_seconds), on_watch_begun=told.on_watch_begun
        )
        health = Health(delivery)
        monitor = HealthMonitor(Layout(etcd, keys), health, ("", _SERVICE.full_name))
        around = wire.Around(delivery, admission, observer=told.observer, access=access)
        methods = wire.handlers(_SERVICE, servicer, around)
        ports.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE.full_name, methods),))
        ports.server.add_generic_rpc_handlers((_health_handlers(health, delivery),))
        names, gate = (_SERVICE.full_name, _HEALTH.full_name), Gate(_MAX_REFLECTIONS, OverloadedError)
        add_reflection(ports.server, index, names, delivery, gate)

        if census is not None:
            told.tell_of(Sources(times, census, admission, monitor, hub, ports.certificate_ends_at))
        await monitor.ask()
        if monitor.wrong_layout is not None:
            # An etcd that does not answer is waited for; this one has answered.
            raise SettingsError(f"--key-prefix {settings.key_prefix}: {monitor.wrong_layout.why}")
        works: list[background.Work] = [*etcd.works, monitor.run, hub.run, expiry.run, janitor.run, survey.run]
        for work in (*works, *told.works, *ports.works, *access.works):
            stack.push_async_callback(background.begun(work))
        stack.push_async_callback(ports.stop, admission)
        settings, ended = await ports.start(_health_handlers(health, delivery))
        # Watches hold a stop for all of its grace, unless they are ended first.
        stack.callback(health.stop)
        stack.callback(delivery.stop)
        stack.callback(watching.stop)
        yield Service(settings, tuple(endpoints), health, watching, admission, ended)


def _health_handlers(health: Health, delivery: Delivery) -> grpc.GenericRpcHandler:
    """Return what one server tells of the health; each counts for itself who asks it."""
    admission = Admission(_MAX_HEALTH_CALLS, _MAX_HEALTH_WATCHES)
    methods = wire.handlers(_HEALTH, health, wire.Around(delivery, admission, shorten=shortened))
    return grpc.method_handlers_generic_handler(_HEALTH.full_name, methods)
