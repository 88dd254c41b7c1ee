"""grpc.health.v1 alone, in plaintext, on a port of its own: for probes that know neither TLS nor certificates.

It tells whether the service serves, and takes nothing else; so it may listen where the service itself must not without
TLS (docs/adr/0024-tls.md).
"""

import grpc

from operation_service.grpc_server import Option, new_server
from operation_service.listening import bind, port_sharing
from operation_service.settings import Settings

MAX_CONNECTIONS = 200
"""Of those that probe. Nobody needs more, and the callers' connections come out of the same limit of open files."""
_IDLE_MS = 60_000
_LAST_SECONDS = 1.0
_OPTIONS: tuple[Option, ...] = (
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    # Whoever holds a connection and asks nothing keeps a probe out.
    ("grpc.max_connection_idle_ms", _IDLE_MS),
)


class HealthPort:
    """The port. What is wrong with it shows when it is bound, before anything else is begun.

    Args:
        settings: The service's; with workers the port is bound only when it starts.
        options: gRPC's, of all servers of this process.

    Raises:
        SettingsError: Somebody listens there already, or the host is none of this machine's.
    """

    def __init__(self, settings: Settings, options: tuple[Option, ...]) -> None:
        self._server = new_server((*options, *_OPTIONS, port_sharing(settings)))
        self._listen = settings.health_listen or ""
        self._address = "" if settings.workers > 1 else self._bind()

    async def start(self, handlers: grpc.GenericRpcHandler) -> str:
        """Serve; return HOST:PORT, with the port that it has got.

        Args:
            handlers: The health service's.

        Raises:
            SettingsError: As when it is made, of a worker's.
        """
        self._server.add_generic_rpc_handlers((handlers,))
        # Once it is bound, the kernel sends it connections.
        address = self._address or self._bind()
        await self._server.start()
        return address

    async def stop(self) -> None:
        """Stop. It tells that the service is NOT_SERVING to the last: stop it after the service."""
        await self._server.stop(_LAST_SECONDS)

    def _bind(self) -> str:
        return bind(self._server, self._listen, "--health-listen")
