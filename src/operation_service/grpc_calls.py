"""Calls as streams of HTTP/2: what is sent first, and what becomes of what comes back. No I/O.

A message has a prefix, and the last headers say how a call has ended (gRPC's PROTOCOL-HTTP2).
"""

import asyncio
import struct
from collections import deque
from urllib.parse import unquote

from google.protobuf.message import Message
from grpc import StatusCode

from operation_service.http2 import Headers, Http2

_STATUS_CODES = {code.value[0]: code for code in StatusCode}
_PREFIX = struct.Struct(">BI")
"""Before each message: whether it is compressed, which nobody here asks for, and its size."""


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


def framed(message: Message) -> bytes:
    """Return a message as it is sent."""
    data = message.SerializeToString()
    return _PREFIX.pack(0, len(data)) + data


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


class UnaryAnswer:
    """A call that is answered once.

    Attributes:
        answer: The message, serialized; or RpcError.
    """

    __slots__ = ("_headers", "_parts", "answer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._parts: list[bytes] = []
        self._headers: Headers = {}
        self.answer: asyncio.Future[bytes] = loop.create_future()

    def headers_received(self, headers: Headers) -> None:
        """See `http2.Stream`."""
        self._headers = headers if not self._headers else self._headers | headers

    def data_received(self, data: bytes) -> None:
        """See `http2.Stream`."""
        self._parts.append(data)

    def ended(self) -> None:
        """See `http2.Stream`."""
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
        """See `http2.Stream`."""
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
