"""Where the service listens: its port, with its certificate if it has one, and that of the health alone."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import grpc

from operation_service.admission import Admission
from operation_service.background import Work
from operation_service.grpc_server import Option, new_server
from operation_service.health_port import MAX_CONNECTIONS, HealthPort
from operation_service.listening import bind, port_sharing
from operation_service.open_files import max_connections
from operation_service.server_tls import ServerCertificates
from operation_service.settings import Settings

_GRACE_SECONDS = 10.0
"""As long as the longest call without a deadline of its own may take."""
_LAST_SECONDS = 1.0
"""For what is on its way when the last call has done its part."""
STOP_SECONDS = _GRACE_SECONDS + _LAST_SECONDS
"""How long the ports may take to stop."""

_MAX_PENDING = 8_000
_OPTIONS: tuple[Option, ...] = (
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


class Ports:
    """The ports. What is wrong with them shows when this is made, before anything else is begun.

    A worker's ports have been claimed for it; they are bound only when it starts: once they are, the kernel sends them
    connections.

    Args:
        settings: The service's.

    Attributes:
        server: Serves what callers call; to be given its handlers before the start.

    Raises:
        SettingsError: Somebody listens there already, the host is none of this machine's, or a certificate is bad.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._certificates = ServerCertificates(settings.tls) if settings.tls else None
        most = max(1, max_connections() - (MAX_CONNECTIONS if settings.health_listen else 0))
        self.server = new_server((*_OPTIONS, port_sharing(settings), ("grpc.max_allowed_incoming_connections", most)))
        self._address = "" if settings.workers > 1 else self._bind()
        self._health = HealthPort(settings, _OPTIONS) if settings.health_listen else None

    @property
    def works(self) -> Sequence[Work]:
        """Background work."""
        return (self._certificates.run,) if self._certificates else ()

    def certificate_ends_at(self) -> float | None:
        """Return until when the certificate is valid, as Unix time. None: there is none."""
        return self._certificates.ends_at if self._certificates else None

    async def start(self, health: grpc.GenericRpcHandler) -> "tuple[Settings, asyncio.Task[bool]]":
        """Serve.

        Args:
            health: What the port of the health serves.

        Returns:
            The settings, with the ports that it has got, and what is done as soon as gRPC takes no more calls, whoever
            ended it.

        Raises:
            SettingsError: As when it is made, of a worker's.
        """
        settings = replace(self._settings, listen=self._address or self._bind())
        await self.server.start()
        ended = asyncio.create_task(self.server.wait_for_termination())
        # What ended it is in gRPC's log already.
        ended.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self._health:
            settings = replace(settings, health_listen=await self._health.start(health))
        return settings, ended

    async def stop(self, admission: Admission) -> None:
        """Let calls in flight finish; but callers that do not read what they are told hold it no longer than that.

        The health is told to the last.

        Args:
            admission: Knows of the calls in flight.
        """
        stopping = asyncio.create_task(self.server.stop(_GRACE_SECONDS))
        idle = asyncio.create_task(admission.emptied())
        await asyncio.wait({stopping, idle}, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        await self.server.stop(_LAST_SECONDS)
        await stopping
        if self._health:
            await self._health.stop()

    def _bind(self) -> str:
        return bind(self.server, self._settings.listen, certificates=self._certificates)
