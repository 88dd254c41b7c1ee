"""Calls to one gRPC server, on the event loop itself.

gRPC's own client for asyncio hands each step of a call from a thread of its own to the event loop; for a lone call that
takes more time than etcd does (docs/adr/0017-etcd-over-http2.md). Here a call is one write and, as a rule, one read.

There is one connection, made when it is needed. While it cannot be made, calls fail at once, and are certain not to
have been carried out; what is under way when it breaks may have been.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeVar, cast
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError, Message
from grpc import StatusCode

from operation_service.grpc_calls import RpcError, StreamCall, UnaryAnswer, framed
from operation_service.http2 import Http2, ProtocolError, literal

_CONNECT_SECONDS = 1.0
"""For a connection to stand, the server's settings included."""

Answer = TypeVar("Answer", bound=Message)
Answer_co = TypeVar("Answer_co", bound=Message, covariant=True)


class UnaryCall(Protocol[Answer_co]):
    """A method that takes one message and answers with one."""

    def __call__(self, request: Message, *, timeout: float) -> Awaitable[Answer_co]:
        """Call it.

        Args:
            request: The message.
            timeout: In seconds; the server is told as well.

        Raises:
            RpcError: It has failed; DEADLINE_EXCEEDED: the time is over.
        """
        ...


class HeaderedCall(UnaryCall[Answer_co], Protocol[Answer_co]):
    """The same, with headers of its own for a call."""

    def __call__(self, request: Message, *, timeout: float, headers: bytes = b"") -> Awaitable[Answer_co]:
        """Call it.

        Args:
            request: The message.
            timeout: In seconds; the server is told as well.
            headers: What this call carries besides (`http2.literal`).

        Raises:
            RpcError: It has failed; DEADLINE_EXCEEDED: the time is over.
        """
        ...


class Channel:
    """The way to one server.

    Args:
        url: "http://host:port" or "https://host:port".
        metadata: What each call carries besides, in ASCII.
        tls: Returns what a new connection by "https://" is made with. None: what this machine's CAs are enough for.
    """

    def __init__(
        self, url: str, metadata: tuple[tuple[str, str], ...] = (), tls: Callable[[], ssl.SSLContext] | None = None
    ) -> None:
        parts = urlsplit(url)
        self.address = parts.netloc
        self._host, self._port = parts.hostname or "", parts.port or 0
        self._scheme = parts.scheme
        self._tls = (tls or _trusting_the_machine()) if parts.scheme == "https" else None
        self._metadata = metadata
        self._carried = b""
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None
        self._connections: set[_Connection] = set()
        self._is_closed = False

    def unary(self, path: str, answer: type[Answer]) -> HeaderedCall[Answer]:
        """Return what calls a method ("/package.Service/Method") that answers with one message of a type."""
        block = self._header_block(path)

        def call(request: Message, *, timeout: float, headers: bytes = b"") -> Awaitable[Answer]:
            return self._call(block + self._carried + headers, request, answer, timeout)

        return call

    def unary_that_carries_nothing(self, path: str, answer: type[Answer]) -> UnaryCall[Answer]:
        """Return the same for a method whose calls are without what `carry` was told."""
        block = self._header_block(path)

        def call(request: Message, *, timeout: float) -> Awaitable[Answer]:
            return self._call(block, request, answer, timeout)

        return call

    async def stream(self, path: str, request: Message) -> "StreamCall":
        """Call a method that takes a stream of messages, of which it is sent one, and answers with a stream.

        Raises:
            RpcError: There is no connection.
        """
        connection = await self._connected(_CONNECT_SECONDS)
        return StreamCall(connection.http2, self._header_block(path) + self._carried, framed(request))

    def carry(self, metadata: tuple[tuple[str, str], ...]) -> None:
        """Let each call from now on carry that besides, in ASCII, and what was told here before no more."""
        self._carried = _literals(metadata)

    def end_if_silent(self, since: float) -> None:
        """Close the connection if nothing at all has come since a time of the event loop: it may lead nowhere."""
        connection = self._connection
        if connection is not None and connection.heard_at < since:
            connection.end("the server is silent")

    async def close(self) -> None:
        """End all calls; there can be no others."""
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        for connection in list(self._connections):
            connection.end("the channel is closed")

    def _header_block(self, path: str) -> bytes:
        headers = (
            (":method", "POST"),
            (":scheme", self._scheme),
            (":path", path),
            (":authority", self.address),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *self._metadata,
        )
        return _literals(headers)

    async def _call(self, block: bytes, request: Message, answer: type[Answer], seconds: float) -> Answer:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        connection = self._connection
        if connection is None or not connection.takes_calls:
            connection = await self._connected(seconds)
        call = UnaryAnswer(loop)
        # Rounded up: who waits here gives up first, and knows why.
        headers = block + literal(b"grpc-timeout", b"%dm" % max(1, 1 + int((until - loop.time()) * 1000)))
        http2 = connection.http2
        stream_id = http2.begin(headers, framed(request), call, is_last=True)
        timer = loop.call_at(until, call.expire)
        try:
            received = await call.answer
        finally:
            timer.cancel()
            http2.reset(stream_id)
        try:
            return answer.FromString(received)
        except DecodeError as error:
            raise RpcError(StatusCode.INTERNAL, "the answer cannot be parsed") from error

    async def _connected(self, seconds: float) -> "_Connection":
        """Wait for a connection that takes calls, together with all others."""
        if self._connection is not None and self._connection.takes_calls:
            return self._connection
        if self._is_closed:
            raise RpcError(StatusCode.UNAVAILABLE, "the channel is closed", is_untouched=True)
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._has_connected)
        done, _ = await asyncio.wait({self._connecting}, timeout=seconds)
        for connecting in done:
            error = asyncio.CancelledError() if connecting.cancelled() else connecting.exception()
            if error is None and not connecting.result().takes_calls:
                # The event loop has turned since it came to stand.
                error = ConnectionError("the server has closed the connection again")
            if error is None:
                return connecting.result()
            raise RpcError(StatusCode.UNAVAILABLE, self._why_not(error), is_untouched=True) from error
        raise RpcError(StatusCode.UNAVAILABLE, self._why_not(TimeoutError()), is_untouched=True)

    def _why_not(self, error: BaseException) -> str:
        return f"failed to connect to {self.address}: {str(error) or 'no answer in time'}"

    def _has_connected(self, done: "asyncio.Task[_Connection]") -> None:
        self._connecting = None
        if not done.cancelled() and done.exception() is None:
            self._connection = done.result()

    async def _connect(self) -> "_Connection":
        """Raises OSError (which TimeoutError is)."""
        loop = asyncio.get_running_loop()
        connection = _Connection(loop, self._connections)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                tls = self._tls() if self._tls is not None else None
                await loop.create_connection(lambda: connection, self._host, self._port, ssl=tls)
                await connection.ready
        except BaseException:
            connection.end("it did not come to stand")
            raise
        return connection


def _literals(headers: Iterable[tuple[str, str]]) -> bytes:
    return b"".join(literal(name.encode(), value.encode()) for name, value in headers)


def _trusting_the_machine() -> Callable[[], ssl.SSLContext]:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    return lambda: context


class _Connection(asyncio.Protocol):
    """One connection, from its making to its end.

    Attributes:
        heard_at: The event loop's time when something came last.
        ready: Done once the server has said that it speaks HTTP/2.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, connections: "set[_Connection]") -> None:
        self._loop = loop
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self.ready: asyncio.Future[None] = loop.create_future()
        # Nobody may be left who waits for it.
        self.ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        self.heard_at = loop.time()
        self.http2: Http2

    @property
    def takes_calls(self) -> bool:
        """Whether calls may be begun: a transport that closes says so before it tells its protocol."""
        return self._transport is not None and not self._transport.is_closing() and self.http2.takes_streams

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        self.http2 = Http2(self._transport.write)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self.heard_at = self._loop.time()
        try:
            self.http2.receive(data)
        except ProtocolError as error:
            self.end(f"the server does not speak HTTP/2: {error}")
            return
        if self.http2.is_ready and not self.ready.done():
            self.ready.set_result(None)
        if self.http2.is_idle and not self.http2.takes_streams:
            self.end("the server goes away")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._lost(str(exc) if exc else "the connection was closed")

    def end(self, why: str) -> None:
        """Close it, whatever is on its way."""
        if self._transport is not None:
            self._transport.abort()
        self._lost(why)

    def _lost(self, why: str) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(why))
        if self._transport is not None:
            self._transport = None
            self._connections.discard(self)
            self.http2.lost(why)
