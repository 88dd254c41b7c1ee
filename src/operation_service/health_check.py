"""Ask a running service whether it serves, as a container's health check does."""

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

if TYPE_CHECKING:
    from operation_service.client import Tls

_HOST_AND_PORT = re.compile(r"(?P<host>\[[^\[\]]+\]|[^\[\]:/\s]+):(?P<port>[0-9]{1,5})")

# It asks over loopback or by name, never through a proxy that the environment names for other traffic.
_CHANNEL_OPTIONS = (("grpc.enable_http_proxy", 0),)


@dataclass(frozen=True, slots=True)
class Health:
    """What a service said about itself.

    Attributes:
        is_serving: Whether it answered, and with SERVING.
        reason: One line that says what was asked and what came of it.
    """

    is_serving: bool
    reason: str


async def check_health(listen: str, timeout_seconds: float, tls: "Tls | None" = None) -> Health:
    """Ask grpc.health.v1 for the health of the service as a whole (the name "").

    It never raises for what the service or the network does: that is an answer too.

    Args:
        listen: HOST:PORT as the service was told to listen on; an address that stands for all addresses is asked
            on loopback.
        timeout_seconds: How long to wait for the answer in all, in seconds, more than 0.
        tls: How to know the service. None: without TLS.

    Returns:
        Whether it serves, and why not.

    Raises:
        ValueError: A file that TLS needs cannot be used.
    """
    target = _dialable(listen)
    if target is None:
        return Health(is_serving=False, reason=f"{listen!r} is not HOST:PORT with a port from 1 to 65535")
    async with _channel(target, tls) as channel:
        # Not by the package's HealthStub: its published types know none of its methods.
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        try:
            answer = await check(HealthCheckRequest(), timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            # gRPC's details may hold several lines; whoever shows this wants one.
            details = " ".join((error.details() or "").split())
            return Health(is_serving=False, reason=f"{target} does not answer: {error.code().name}: {details}")
    is_serving = answer.status == HealthCheckResponse.SERVING
    return Health(is_serving=is_serving, reason=f"{target} is {_name(answer.status)}")


def _channel(target: str, tls: "Tls | None") -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
    from operation_service.client.connection import Target  # noqa: PLC0415, a check without TLS needs none of it

    channel: grpc.aio.Channel = Target(target, tls=tls).open(grpc.aio)
    return channel


def _name(status: int) -> str:
    """Return the status by name; one that a later protocol adds has none here."""
    names = HealthCheckResponse.ServingStatus
    return names.Name(status) if status in names.values() else f"in state {status}"


def _dialable(listen: str) -> str | None:
    """Return the address to dial for an address that is listened on, or None if there is none."""
    match = _HOST_AND_PORT.fullmatch(listen)
    # Port 0 is a free one of the system's choice: nobody can know which from here.
    if match is None or not 1 <= int(match["port"]) <= 65535:  # noqa: PLR2004
        return None
    host = match["host"]
    try:
        is_wildcard = ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        is_wildcard = False  # a name
    # gRPC takes either wildcard for all addresses of both families, so that IPv4's loopback does for both, also where
    # there is no IPv6.
    return f"127.0.0.1:{match['port']}" if is_wildcard else listen
