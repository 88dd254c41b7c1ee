"""How a client connects."""

from collections.abc import Sequence
from typing import Any

import grpc

from operation_service.client.bearer import Bearer, Token, stays_here
from operation_service.client.rpcs import Rpc
from operation_service.client.tls import Tls, TlsFiles

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

_SERVER_NAME = "grpc.default_authority"


class Target:
    """Where the service is, how to connect to it, and what is sent with each call.

    Args:
        name: As gRPC takes it.
        credentials: gRPC's own. None: what `tls` says.
        options: gRPC's channel options; they come after ours, and win.
        tls: TLS. None: without.
        bearer_token: The token by which the service knows who calls, or what returns it. None: none.
        allow_plaintext_token: Whether it may be sent without TLS to where others than this machine could read it.

    Raises:
        TypeError: The name or the token is no string.
        ValueError: The name is a URL, or empty: gRPC would take it for a name that it cannot find. A file or the token
            cannot be used, or must not be sent there.
    """

    def __init__(
        self,
        name: str,
        credentials: grpc.ChannelCredentials | None = None,
        options: Sequence[tuple[str, Any]] = (),
        *,
        tls: Tls | None = None,
        bearer_token: Token | None = None,
        allow_plaintext_token: bool = False,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"target must be a string, HOST:PORT say, not {name!r}")
        if not name or name.startswith(("http://", "https://")):
            raise ValueError(f"target must be HOST:PORT, or another name that gRPC takes, and no URL, not {name!r}")
        if tls is not None and credentials is not None:
            raise ValueError("tls and credentials say the same: give one of them")
        is_readable = tls is None and credentials is None and not stays_here(name)
        if bearer_token is not None and is_readable and not allow_plaintext_token:
            raise ValueError(
                f"a bearer token must not be sent to {name} without TLS, where others could read it: give tls, or say "
                "allow_plaintext_token"
            )
        self._name = name
        self._files = None if tls is None else TlsFiles(tls)
        self._credentials = credentials
        self._bearer = None if bearer_token is None else Bearer(bearer_token)
        named = () if tls is None or tls.server_name is None else ((_SERVER_NAME, tls.server_name),)
        self._options = [*_OPTIONS, *named, *options]

    def open(self, library: Any) -> Any:  # noqa: ANN401, `grpc` and `grpc.aio` have the same functions
        """Return a channel of `grpc` or of `grpc.aio`."""
        credentials = self._credentials if self._files is None else self._files.credentials
        if credentials is None:
            return library.insecure_channel(self._name, options=self._options)
        return library.secure_channel(self._name, credentials, options=self._options)

    def is_outdated(self) -> bool:
        """Whether a channel that was opened before connects with a certificate that has been replaced since."""
        return self._files is not None and self._files.have_changed()

    def metadata(self, fencing_token: int | None = None) -> tuple[tuple[str, str], ...]:
        """Return a call's metadata.

        Args:
            fencing_token: The lock that the call is for. None: any.

        Raises:
            UnavailableError: There is no bearer token to send at this moment.
        """
        fence = () if fencing_token is None else ((FENCING_TOKEN, str(fencing_token)),)
        return fence if self._bearer is None else (*fence, self._bearer.metadata())


def method(kind: Any, rpc: Rpc[Any, Any]) -> Any:  # noqa: ANN401, gRPC's multi-callables are generic in its stubs alone
    """Return what calls an RPC.

    Args:
        kind: A channel's `unary_unary` or `unary_stream`.
        rpc: Which.
    """
    return kind(rpc.path, request_serializer=rpc.request.SerializeToString, response_deserializer=rpc.reply.FromString)


def fencing_token_in(trailers: Any) -> int:  # noqa: ANN401, gRPC has several types for them
    """Return the fencing token that came with an answer, or 0."""
    for name, value in trailers or ():
        if name == FENCING_TOKEN:
            return int(value)
    return 0
