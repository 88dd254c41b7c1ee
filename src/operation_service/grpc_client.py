"""Calls to one gRPC server, on the event loop itself.

gRPC's own client for asyncio hands each step of a call from a thread of its own to the event loop; for a lone call that
takes more time than etcd does (docs/adr/0017-etcd-over-http2.md). Here a call is one write and, as a rule, one read.

There is one connection, made when it is needed. While it cannot be made, calls fail at once, and are certain not to
have been carried out; what is under way when it breaks may have been.
"""

import asyncio
import ssl
import struct
from collections import deque
from collections.abc import Awaitable
from typing import Protocol, TypeVar, cast
from urllib.parse import unquote, urlsplit

from google.protobuf.message import DecodeError, Message
from grpc import StatusCode

from operation_service.http2 import Headers, Http2, ProtocolError, literal

_STATUS_CODES = {code.value[0]: code for code in StatusCode}
_PREFIX = struct.Struct(">BI")
"""Before each message: whether it is compressed, which nobody here asks for, and its size."""
_CONNECT_SECONDS = 1.0
"""For a connection to stand, the server's settings included."""

Answer = TypeVar("Answer", bound=Message)
Answer_co = TypeVar("Answer_co", bound=Message, covariant=True)


class RpcError(Exception):
    """A call has failed.

    Attributes:
        code: gRPC's.
        details: What went wrong, in the words of the server or of this side.
        is_untouched: It is certain that the server has not looked at the request.
    """

    def __init__(self, code: StatusCode, details: str, *, is_untouched: bool = False) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details
        self.is_untouched = is_untouched


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


class Channel:
    """The way to one server.

    Args:
        url: "http://host:port" or "https://host:port".
        metadata: What each call carries besides, in ASCII.
    """

    def __init__(self, url: str, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        parts = urlsplit(url)
        self.address = parts.netloc
        self._host, self._port = parts.hostname or "", parts.port or 0
        self._scheme = parts.scheme
        self._tls = _tls() if parts.scheme == "https" else None
        self._metadata = metadata
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None
        self._connections: set[_Connection] = set()
        self._is_closed = False

    def unary(self, path: str, answer: type[Answer]) -> UnaryCall[Answer]:
        """Return what calls a method ("/package.Service/Method") that answers with one message of a type."""
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
        return StreamCall(connection.http2, self._header_block(path), _framed(request))

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
        return b"".join(literal(name.encode(), value.encode()) for name, value in headers)

    async def _call(self, block: bytes, request: Message, answer: type[Answer], seconds: float) -> Answer:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        connection = self._connection
        if connection is None or not connection.takes_calls:
            connection = await self._connected(seconds)
        call = _Unary(loop)
        # Rounded up: who waits here gives up first, and knows why.
        headers = block + literal(b"grpc-timeout", b"%dm" % max(1, 1 + int((until - loop.time()) * 1000)))
        http2 = connection.http2
        stream_id = http2.begin(headers, _framed(request), call, is_last=True)
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
                await loop.create_connection(lambda: connection, self._host, self._port, ssl=self._tls)
                await connection.ready
        except BaseException:
            connection.end("it did not come to stand")
            raise
        return connection


def _framed(message: Message) -> bytes:
    data = message.SerializeToString()
    return _PREFIX.pack(0, len(data)) + data


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    return context


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


def _error_of(headers: Headers) -> RpcError | None:
    """Return what the last headers of a call say went wrong. None: nothing."""
    status = headers.get("grpc-status")
    if status == "0":
        return None
    code = (
        _STATUS_CODES.get(int(status), StatusCode.UNKNOWN) if status and status.isascii() and status.isdigit() else None
    )
    if code is None:
        http = headers.get(":status", "none")
        return RpcError(StatusCode.UNAVAILABLE, f"the server does not speak gRPC, its HTTP status is {http}")
    return RpcError(code, unquote(headers.get("grpc-message", "")))


class _Unary:
    """A call that is answered once."""

    __slots__ = ("_headers", "_parts", "answer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._parts: list[bytes] = []
        self._headers: Headers = {}
        self.answer: asyncio.Future[bytes] = loop.create_future()

    def headers_received(self, headers: Headers) -> None:
        self._headers = headers if not self._headers else self._headers | headers

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)

    def ended(self) -> None:
        error = _error_of(self._headers)
        if error is None:
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            if len(data) >= _PREFIX.size and _PREFIX.unpack_from(data) == (0, len(data) - _PREFIX.size):
                if not self.answer.done():
                    self.answer.set_result(data[_PREFIX.size :])
                return
            error = RpcError(StatusCode.INTERNAL, "the answer is not one whole message")
        self._fail(error)

    def failed(self, why: str, *, is_untouched: bool) -> None:
        self._fail(RpcError(StatusCode.UNAVAILABLE, why, is_untouched=is_untouched))

    def expire(self) -> None:
        """End it: its time is over."""
        self._fail(RpcError(StatusCode.DEADLINE_EXCEEDED, "no answer in time"))

    def _fail(self, error: RpcError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class StreamCall:
    """A call that sends one message, and receives messages until it ends or is ended.

    What has come and has not been read yet is bounded (`http2.LONGEST_UNREAD`), and then the server is told to wait. A
    message that is longer than that is taken in all the same, once those before it have been read.
    """

    def __init__(self, http2: Http2, headers: bytes, first: bytes) -> None:
        self._http2 = http2
        self._headers: Headers = {}
        self._parts: list[bytes] = []
        self._arrived = 0
        self._needed = _PREFIX.size
        self._unread = 0
        self._messages: deque[bytes] = deque()
        self._is_ended = False
        self._error: RpcError | None = None
        self._news = asyncio.Event()
        self._stream_id = http2.begin(headers, first, self, is_last=False)

    async def read(self) -> bytes | None:
        """Return the next message; None when there is none any more.

        Raises:
            RpcError: The call has failed; CANCELLED: on this side.
        """
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self._is_ended:
                return None
            self._news.clear()
            await self._news.wait()
        message = self._messages.popleft()
        self._take_unread()
        return message

    def cancel(self) -> None:
        """End it; whoever reads is told."""
        self._http2.reset(self._stream_id)
        self._over(RpcError(StatusCode.CANCELLED, "it was cancelled"))

    def headers_received(self, headers: Headers) -> None:
        """See `http2.Stream`."""
        self._headers |= headers

    def data_received(self, data: bytes) -> None:
        """See `http2.Stream`."""
        self._unread += len(data)
        self._arrived += len(data)
        self._parts.append(data)
        if self._arrived >= self._needed:
            # Not before: to put together what there is of a message for each frame of it takes time with its square.
            self._take_messages(b"".join(self._parts))
        self._take_unread()

    def _take_messages(self, data: bytes) -> None:
        at, self._needed = 0, _PREFIX.size
        while len(data) - at >= _PREFIX.size:
            size = _PREFIX.size + _PREFIX.unpack_from(data, at)[1]
            if len(data) - at < size:
                self._needed = size
                break
            self._messages.append(data[at + _PREFIX.size : at + size])
            at += size
        self._parts, self._arrived = [data[at:]], len(data) - at
        self._news.set()

    def _take_unread(self) -> None:
        """Let the server send on, unless something waits to be read."""
        if not self._messages:
            self._http2.taken(self._stream_id, self._unread)
            self._unread = 0

    def ended(self) -> None:
        """See `http2.Stream`."""
        self._over(_error_of(self._headers))

    def failed(self, why: str, *, is_untouched: bool) -> None:
        """See `http2.Stream`."""
        self._over(RpcError(StatusCode.UNAVAILABLE, why, is_untouched=is_untouched))

    def _over(self, error: RpcError | None) -> None:
        if not self._is_ended:
            self._is_ended = True
            self._error = error
            self._news.set()
