"""How a client connects."""

from collections.abc import Sequence
from typing import Any

import grpc

from operation_service.client.rpcs import Rpc

FENCING_TOKEN = "n0stack-fencing-token"  # noqa: S105, a name
"""The metadata that carries a fencing token, in both directions (CONTRACT rule 11)."""

_OPTIONS: tuple[tuple[str, int], ...] = (
    # The service is a neighbour: a proxy that the environment names is for other traffic.
    ("grpc.enable_http_proxy", 0),
    # A connection that was cut without a word is found within 15 s, also when only a watch waits on it. The service
    # takes a ping each 5 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # By default gRPC waits for up to two minutes before it looks again for a service that was away.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class Target:
    """Where the service is, and how to connect to it.

    Args:
        name: As gRPC takes it.
        credentials: None: without TLS.
        options: gRPC's channel options; they come after ours, and win.

    Raises:
        TypeError: The name is no string.
        ValueError: It is a URL, or empty: gRPC would take it for a name that it cannot find.
    """

    def __init__(
        self, name: str, credentials: grpc.ChannelCredentials | None, options: Sequence[tuple[str, Any]]
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"target must be a string, HOST:PORT say, not {name!r}")
        if not name or name.startswith(("http://", "https://")):
            raise ValueError(f"target must be HOST:PORT, or another name that gRPC takes, and no URL, not {name!r}")
        self._name = name
        self._credentials = credentials
        self._options = [*_OPTIONS, *options]

    def open(self, library: Any) -> Any:  # noqa: ANN401, `grpc` and `grpc.aio` have the same functions
        """Return a channel of `grpc` or of `grpc.aio`."""
        if self._credentials is None:
            return library.insecure_channel(self._name, options=self._options)
        return library.secure_channel(self._name, self._credentials, options=self._options)


def method(kind: Any, rpc: Rpc[Any, Any]) -> Any:  # noqa: ANN401, gRPC's multi-callables are generic in its stubs alone
    """Return what calls an RPC.

    Args:
        kind: A channel's `unary_unary` or `unary_stream`.
        rpc: Which.
    """
    return kind(rpc.path, request_serializer=rpc.request.SerializeToString, response_deserializer=rpc.reply.FromString)


def metadata(fencing_token: int | None) -> tuple[tuple[str, str], ...]:
    """Return a call's metadata; None: the call is for any lock."""
    return () if fencing_token is None else ((FENCING_TOKEN, str(fencing_token)),)


def fencing_token_in(trailers: Any) -> int:  # noqa: ANN401, gRPC has several types for them
    """Return the fencing token that came with an answer, or 0."""
    for name, value in trailers or ():
        if name == FENCING_TOKEN:
            return int(value)
    return 0
