"""A client's side of one HTTP/2 connection: bytes in, bytes out, and no I/O (RFC 9113).

As much of it as calls to etcd need. Header blocks are written as literals, and the peer is told to keep no header table
for its own, so that equal blocks mean equal headers. Frames that nobody here asked for end the connection.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from hpack import Decoder
from hpack.exceptions import HPACKError

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITY, _ACK = 0x1, 0x4, 0x8, 0x20, 0x1
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 1, 2, 4, 5
_HEAD = 9
"""Bytes before a frame's payload."""
_LONGEST_FRAME = 16_384
"""What each side may send unless told otherwise; this side never says otherwise."""
_WINDOW = 65_535
"""Of the connection and of each stream, unless told otherwise."""
LONGEST_UNREAD = 2**26
"""Of each stream, in bytes: so much may arrive of what nobody has taken yet."""
_OUR_CONNECTION_WINDOW = 2**30
_LAST_STREAM = 2**31 - 1
_LONGEST_HEADERS = 256 * 1024
_CACHED_BLOCKS = 1_000
_LONGEST_CACHED = 256

Headers = dict[str, str]


class _Kind(IntEnum):
    """What a frame is."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Code(IntEnum):
    """Why a stream is ended before its end (RFC 9113, 7)."""

    NO_ERROR = 0
    REFUSED_STREAM = 7
    CANCEL = 8


class ProtocolError(Exception):
    """The peer has sent what no HTTP/2 server sends; the connection is of no use any more."""


class Stream(Protocol):
    """Whoever waits for what arrives on a stream."""

    def headers_received(self, headers: Headers) -> None:
        """Take headers: those before all data, or those after it."""

    def data_received(self, data: bytes) -> None:
        """Take data. Of a stream that sends on, `taken` has to tell when there is room for as much again."""

    def ended(self) -> None:
        """Take note that nothing more comes."""

    def failed(self, why: str, *, is_untouched: bool) -> None:
        """Take note that the stream has broken; untouched: the peer has certainly not looked at the request."""


def literal(name: bytes, value: bytes) -> bytes:
    """Write a header as it is, and not to be indexed (RFC 7541, 6.2.2)."""
    return b"\x00" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    """Write the length of a string that is not compressed (RFC 7541, 5.1 and 5.2)."""
    rest = len(text) - 0x7F
    if rest < 0:
        return bytes([len(text)])
    written = bytearray([0x7F])
    while rest >= 0x80:  # noqa: PLR2004, what seven bits hold
        written.append(rest & 0x7F | 0x80)
        rest >>= 7
    written.append(rest)
    return bytes(written)


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Write a frame (RFC 9113, 4.1)."""
    return struct.pack(">IBBI", len(payload), kind, flags, stream_id)[1:] + payload


class _Outgoing:
    """What a stream has still to send."""

    __slots__ = ("at", "data", "is_last", "stream", "window")

    def __init__(self, stream: Stream, window: int) -> None:
        self.stream = stream
        self.window = window
        self.data = b""
        self.at = 0
        self.is_last = False


class Http2:
    """One connection.

    Attributes:
        is_ready: Whether the server has said its settings, and so is one that speaks HTTP/2.
        takes_streams: Whether new streams may be begun.

    Args:
        write: Sends bytes; never blocks.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._streams: dict[int, _Outgoing] = {}
        self._next_stream = 1
        self._window = _WINDOW
        self._stream_window = _WINDOW
        self._frame_size = _LONGEST_FRAME
        self._inbox = b""
        self._held_back: list[bytes] | None = None
        self._taken = 0
        self._taken_of: dict[int, int] = {}
        self._headers: tuple[int, int, bytes] | None = None
        self._decoder = Decoder(_LONGEST_HEADERS)
        self._decoder.max_allowed_table_size = 0
        self._known_blocks: dict[bytes, Headers] = {}
        self._handlers: dict[int, Callable[[int, int, bytes], None]] = {
            _Kind.DATA: self._data,
            _Kind.HEADERS: self._begin_headers,
            _Kind.RST_STREAM: self._reset_by_peer,
            _Kind.SETTINGS: self._settings,
            _Kind.PUSH_PROMISE: self._pushed,
            _Kind.PING: self._ping,
            _Kind.GOAWAY: self._go_away,
            _Kind.WINDOW_UPDATE: self._grow_window,
            _Kind.CONTINUATION: self._continue_headers,
        }
        self.is_ready = False
        self.takes_streams = True
        settings = struct.pack(">HIHIHI", _HEADER_TABLE_SIZE, 0, _ENABLE_PUSH, 0, _INITIAL_WINDOW_SIZE, LONGEST_UNREAD)
        grown = struct.pack(">I", _OUR_CONNECTION_WINDOW - _WINDOW)
        write(PREFACE + frame(_Kind.SETTINGS, 0, 0, settings) + frame(_Kind.WINDOW_UPDATE, 0, 0, grown))

    @property
    def is_idle(self) -> bool:
        """Whether no stream is open."""
        return not self._streams

    def begin(self, headers: bytes, data: bytes, stream: Stream, *, is_last: bool) -> int:
        """Begin a stream.

        Args:
            headers: Its header block, at most 16,384 bytes.
            data: What it sends first.
            stream: Is told what comes back.
            is_last: Whether it sends no more than that.

        Returns:
            The stream's id.
        """
        stream_id = self._next_stream
        self._next_stream += 2
        self.takes_streams = self.takes_streams and self._next_stream < _LAST_STREAM
        outgoing = _Outgoing(stream, self._stream_window)
        outgoing.data, outgoing.is_last = data, is_last
        self._streams[stream_id] = outgoing
        head = frame(_Kind.HEADERS, _END_HEADERS, stream_id, headers)
        self._send(head + self._sendable(stream_id, outgoing))
        return stream_id

    def reset(self, stream_id: int) -> None:
        """End a stream that nobody waits for any more, if it is still open."""
        if self._streams.pop(stream_id, None) is not None:
            self._taken_of.pop(stream_id, None)
            self._send(frame(_Kind.RST_STREAM, 0, stream_id, struct.pack(">I", Code.CANCEL)))

    def taken(self, stream_id: int, size: int) -> None:
        """Let the peer send as much again as has been taken of a stream."""
        taken = self._taken_of.get(stream_id, 0) + size
        if stream_id in self._streams:
            if taken >= LONGEST_UNREAD // 2:
                self._send(frame(_Kind.WINDOW_UPDATE, 0, stream_id, struct.pack(">I", taken)))
                taken = 0
            self._taken_of[stream_id] = taken

    def lost(self, why: str) -> None:
        """Tell all streams that the connection has broken."""
        self.takes_streams = False
        streams, self._streams = self._streams, {}
        for outgoing in streams.values():
            outgoing.stream.failed(why, is_untouched=False)

    def receive(self, received: bytes) -> None:
        """Take what has arrived.

        Raises:
            ProtocolError: The connection is of no use any more.
        """
        held_back: list[bytes] = []
        self._held_back = held_back
        try:
            self._take_all(self._inbox + received if self._inbox else received)
        finally:
            self._held_back = None
            if held_back:
                self._write(b"".join(held_back))

    def _send(self, data: bytes) -> None:
        """Send data; while something is being received, all at once afterwards."""
        if self._held_back is None:
            self._write(data)
        else:
            self._held_back.append(data)

    def _take_all(self, data: bytes) -> None:
        at, end = 0, len(data)
        while end - at >= _HEAD:
            size = int.from_bytes(data[at : at + 3], "big")
            if size > _LONGEST_FRAME:
                raise ProtocolError(f"a frame of {size} bytes, which nobody allowed")
            begin = at + _HEAD
            if begin + size > end:
                break
            at_stream = int.from_bytes(data[at + 5 : begin], "big") & _LAST_STREAM
            self._take(data[at + 3], data[at + 4], at_stream, data[begin : begin + size])
            at = begin + size
        self._inbox = data[at:]

    def _take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._headers is not None and kind != _Kind.CONTINUATION:
            raise ProtocolError("headers that are not continued")
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(flags, stream_id, payload)

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._taken += len(payload)
        if self._taken >= _OUR_CONNECTION_WINDOW // 2:
            self._send(frame(_Kind.WINDOW_UPDATE, 0, 0, struct.pack(">I", self._taken)))
            self._taken = 0
        outgoing = self._streams.get(stream_id)
        if outgoing is None:
            # Of a stream that nobody waits for any more.
            return
        data = _unpadded(flags, payload)
        if len(data) < len(payload):
            self.taken(stream_id, len(payload) - len(data))
        if data:
            outgoing.stream.data_received(data)
            if outgoing.is_last:
                # Who sends no more waits for all of the answer at once.
                self.taken(stream_id, len(data))
        if flags & _END_STREAM:
            self._end(stream_id)

    def _begin_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = _unpadded(flags, payload)
        if flags & _PRIORITY:
            block = block[5:]
        self._some_headers(flags, stream_id, block, flags & _END_STREAM)

    def _continue_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._headers is None or self._headers[0] != stream_id:
            raise ProtocolError("a continuation of nothing")
        _, is_end, block = self._headers
        self._headers = None
        self._some_headers(flags, stream_id, block + payload, is_end)

    def _some_headers(self, flags: int, stream_id: int, block: bytes, is_end: int) -> None:
        if len(block) > _LONGEST_HEADERS:
            raise ProtocolError("headers without an end")
        if not flags & _END_HEADERS:
            self._headers = stream_id, is_end, block
            return
        # Decoded also if nobody waits for them: the table of the peer goes on with each block.
        headers = self._decoded(block)
        outgoing = self._streams.get(stream_id)
        if outgoing is not None:
            outgoing.stream.headers_received(headers)
            if is_end:
                self._end(stream_id)

    def _decoded(self, block: bytes) -> Headers:
        headers = self._known_blocks.get(block)
        if headers is None:
            is_pure = not self._decoder.header_table_size
            try:
                headers = {str(name): str(value) for name, value in self._decoder.decode(block)}
            except (HPACKError, UnicodeDecodeError) as error:
                raise ProtocolError(f"headers that cannot be read: {error}") from error
            if is_pure and len(block) <= _LONGEST_CACHED and len(self._known_blocks) < _CACHED_BLOCKS:
                self._known_blocks[block] = headers
        return headers

    def _end(self, stream_id: int) -> None:
        outgoing = self._streams.pop(stream_id)
        self._taken_of.pop(stream_id, None)
        if outgoing.data or not outgoing.is_last:
            # It answers without having heard all: nothing more need be said.
            self._send(frame(_Kind.RST_STREAM, 0, stream_id, struct.pack(">I", Code.NO_ERROR)))
        outgoing.stream.ended()

    def _pushed(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise ProtocolError("a push, which nobody allowed")

    def _ping(self, flags: int, _stream_id: int, payload: bytes) -> None:
        if not flags & _ACK:
            self._send(frame(_Kind.PING, _ACK, 0, payload))

    def _settings(self, flags: int, _stream_id: int, payload: bytes) -> None:
        if flags & _ACK:
            return
        for name, value in struct.iter_unpack(">HI", payload[: len(payload) // 6 * 6]):
            if name == _INITIAL_WINDOW_SIZE:
                grown, self._stream_window = value - self._stream_window, value
                for outgoing in self._streams.values():
                    outgoing.window += grown
            elif name == _MAX_FRAME_SIZE:
                self._frame_size = value
        self.is_ready = True
        self._send(frame(_Kind.SETTINGS, _ACK, 0, b""))
        self._send_on()

    def _grow_window(self, _flags: int, stream_id: int, payload: bytes) -> None:
        size = _number(payload)
        if not stream_id:
            self._window += size
            self._send_on()
        elif (outgoing := self._streams.get(stream_id)) is not None:
            outgoing.window += size
            if outgoing.data:
                self._send(self._sendable(stream_id, outgoing))

    def _send_on(self) -> None:
        for stream_id, outgoing in self._streams.items():
            if outgoing.data:
                self._send(self._sendable(stream_id, outgoing))

    def _sendable(self, stream_id: int, outgoing: _Outgoing) -> bytes:
        """Return, as frames, as much as the windows let a stream send now."""
        frames = []
        while outgoing.data:
            size = min(len(outgoing.data) - outgoing.at, outgoing.window, self._window, self._frame_size)
            if size <= 0:
                break
            some = outgoing.data[outgoing.at : outgoing.at + size]
            outgoing.at += size
            if outgoing.at == len(outgoing.data):
                outgoing.data, outgoing.at = b"", 0
            outgoing.window -= size
            self._window -= size
            is_end = outgoing.is_last and not outgoing.data
            frames.append(frame(_Kind.DATA, _END_STREAM if is_end else 0, stream_id, some))
        return b"".join(frames)

    def _reset_by_peer(self, _flags: int, stream_id: int, payload: bytes) -> None:
        code = _number(payload)
        outgoing = self._streams.pop(stream_id, None)
        if outgoing is not None:
            self._taken_of.pop(stream_id, None)
            outgoing.stream.failed(
                f"the server has ended it with code {code}", is_untouched=code == Code.REFUSED_STREAM
            )

    def _go_away(self, _flags: int, _stream_id: int, payload: bytes) -> None:
        """Begin no more streams; those that the server has not looked at end, the others go on."""
        last_stream = _number(payload) & _LAST_STREAM
        self.takes_streams = False
        for stream_id in [stream_id for stream_id in self._streams if stream_id > last_stream]:
            self._taken_of.pop(stream_id, None)
            self._streams.pop(stream_id).stream.failed("the server goes away", is_untouched=True)


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ProtocolError("more padding than there is")
    return payload[1 : len(payload) - payload[0]]


def _number(payload: bytes) -> int:
    """Read the number that a payload begins with."""
    if len(payload) < 4:  # noqa: PLR2004, a number's size
        raise ProtocolError("a frame that is too short")
    return int.from_bytes(payload[:4], "big")
