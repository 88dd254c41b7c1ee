"""As much of an HTTP/2 client as a load generator needs: requests are bytes made beforehand, answers are counted.

A client made with gRPC for Python takes more of a machine than the service that it measures. This one takes some
20 us a call: header blocks are literals that are always the same, and of an answer only the end is looked at. It asks
the server for a header table of size 0, so that the status stands in the last header block as it is.
"""

import re
import socket
import struct
from collections.abc import Callable

from operation_service.http2 import PREFACE, frame, literal

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_HEADER_TABLE_SIZE, _INITIAL_WINDOW_SIZE = 1, 4
_WINDOW = 2**30
_STREAM_WINDOW = 2**24
_RECEIVED_AT_ONCE = 256 * 1024
_HUFFMAN_GRPC_STATUS = bytes.fromhex("9acac8b21234da8f")
"""The name as Go's servers write it (RFC 7541, appendix B); a status of one or two digits is no shorter that way."""
_STATUS = re.compile(rb"(?:grpc-status|%b)[\x01\x02](\d+)" % re.escape(_HUFFMAN_GRPC_STATUS))

UNKNOWN = -1
"""The status of a call that ended without one."""


class ServerGoneError(Exception):
    """The server has closed the connection, or is about to."""


def header_block(path: str, authority: str) -> bytes:
    """Return the headers of a gRPC call."""
    headers = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", authority.encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
    return b"".join(literal(name, value) for name, value in headers)


def status_of(data: bytes, begin: int, end: int) -> int:
    """Return the gRPC status that a header block in some data has, `UNKNOWN` if it has none."""
    found = _STATUS.search(data, begin, end)
    return int(found.group(1)) if found else UNKNOWN


class Connection:
    """One connection, with as many calls at once as its user begins.

    Args:
        address: HOST:PORT.
        path: The method's, "/package.Service/Method".
        data_received: Is told the stream and the payload of each DATA frame. None: what answers say is not looked at.
    """

    def __init__(self, address: str, path: str, data_received: Callable[[int, bytes], None] | None = None) -> None:
        self._data_received = data_received
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        block = header_block(path, address)
        self._headers_before_id = struct.pack(">IBB", len(block), _HEADERS, _END_HEADERS)[1:]
        self._block = block
        self._next_stream = 1
        self._inbox = b""
        self._received = 0
        settings = struct.pack(">HIHI", _HEADER_TABLE_SIZE, 0, _INITIAL_WINDOW_SIZE, _STREAM_WINDOW)
        window = frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW))
        self._outbox = [PREFACE + frame(_SETTINGS, 0, 0, settings) + window]

    def fileno(self) -> int:
        """Return what selectors need."""
        return self._socket.fileno()

    def begin(self, message: bytes) -> int:
        """Begin a call; `flush` sends it. Return its stream."""
        stream = self._next_stream
        self._next_stream += 2
        size = len(message)
        self._outbox.append(
            b"%b%b%b%b%b%b"
            % (
                self._headers_before_id,
                stream.to_bytes(4, "big"),
                self._block,
                struct.pack(">IBBI", size + 5, _DATA, _END_STREAM, stream)[1:],
                struct.pack(">BI", 0, size),
                message,
            )
        )
        return stream

    def flush(self) -> None:
        """Send what has been begun."""
        if self._outbox:
            self._socket.sendall(b"".join(self._outbox))
            self._outbox.clear()

    def ended(self) -> list[tuple[int, int]]:
        """Receive, and return the streams of calls that have ended, with their gRPC statuses.

        Raises:
            ServerGoneError: There is nothing more to come.
        """
        received = self._socket.recv(_RECEIVED_AT_ONCE)
        if not received:
            raise ServerGoneError
        data = self._inbox + received if self._inbox else received
        ended: list[tuple[int, int]] = []
        at, end = 0, len(data)
        while end - at >= 9:  # noqa: PLR2004, a frame's header
            size = int.from_bytes(data[at : at + 3], "big")
            after = at + 9 + size
            if after > end:
                break
            kind, flags = data[at + 3], data[at + 4]
            if kind == _DATA:
                self._received += size
                if self._data_received is not None:
                    self._data_received(int.from_bytes(data[at + 5 : at + 9], "big"), data[at + 9 : after])
            elif kind == _HEADERS:
                if flags & _END_STREAM:
                    stream = int.from_bytes(data[at + 5 : at + 9], "big")
                    ended.append((stream, status_of(data, at + 9, after)))
            else:
                self._control(kind, flags, data[at:after], ended)
            at = after
        self._inbox = data[at:]
        if self._received > _WINDOW // 2:
            self._outbox.append(frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received)))
            self._received = 0
        return ended

    def _control(self, kind: int, flags: int, received: bytes, ended: list[tuple[int, int]]) -> None:
        if kind == _PING and not flags & _ACK:
            self._outbox.append(frame(_PING, _ACK, 0, received[9:]))
        elif kind == _SETTINGS and not flags & _ACK:
            self._outbox.append(frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _RESET:
            ended.append((int.from_bytes(received[5:9], "big"), UNKNOWN))
        elif kind == _GOAWAY:
            raise ServerGoneError

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
