"""How a client connects."""

from collections.abc import Sequence
from typing import Any

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


def checked(target: str) -> str:
    """Return a target as it is.

    Raises:
        TypeError: It is no string.
        ValueError: It is a URL, or empty: gRPC would take it for a name that it cannot find.
    """
    if not isinstance(target, str):
        raise TypeError(f"target must be a string, HOST:PORT say, not {target!r}")
    if not target or target.startswith(("http://", "https://")):
        raise ValueError(f"target must be HOST:PORT, or another name that gRPC takes, and no URL, not {target!r}")
    return target


def options(more: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return gRPC's channel options; `more` comes last, and wins."""
    return [*_OPTIONS, *more]


def metadata(fencing_token: int | None) -> tuple[tuple[str, str], ...]:
    """Return a call's metadata; None: the call is for any lock."""
    return () if fencing_token is None else ((FENCING_TOKEN, str(fencing_token)),)


def fencing_token_in(trailers: Any) -> int:  # noqa: ANN401, gRPC has several types for them
    """Return the fencing token that came with an answer, or 0."""
    for name, value in trailers or ():
        if name == FENCING_TOKEN:
            return int(value)
    return 0
