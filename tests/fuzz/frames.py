"""HTTP/2 and gRPC by hand: every byte can be made wrong, which no library would allow."""

import struct
from collections.abc import Iterable
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16_384

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY_FLAG = 0x20

Header = tuple[bytes, bytes]


class Type(IntEnum):
    """Types of frames."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Setting(IntEnum):
    """Parameters of a SETTINGS frame."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode(IntEnum):
    """Why a stream or a connection was ended."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


def error_name(code: int) -> str:
    """The name of an HTTP/2 error code."""
    return ErrorCode(code).name if code in set(ErrorCode) else f"error {code}"


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """One frame; `length` is what it claims, if that is not the truth."""
    claimed = len(payload) if length is None else length
    return struct.pack(">I", claimed)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(*pairs: tuple[int, int], flags: int = 0) -> bytes:
    return frame(Type.SETTINGS, flags, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def window_update(stream: int, increment: int) -> bytes:
    return frame(Type.WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def rst_stream(stream: int, code: int = 8) -> bytes:
    return frame(Type.RST_STREAM, 0, stream, struct.pack(">I", code))


def _integer(value: int, prefix_bits: int, first: int = 0) -> bytes:
    """HPACK's integer (RFC 7541 5.1)."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([first | value])
    out = bytearray([first | limit])
    value -= limit
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def literal(name: bytes, value: bytes, first: int = 0x00) -> bytes:
    """A header, literally; `first` 0x40 puts it into the dynamic table."""
    return bytes([first]) + _integer(len(name), 7) + name + _integer(len(value), 7) + value


def table_size(size: int) -> bytes:
    """An update of the dynamic table's size."""
    return _integer(size, 5, 0x20)


def block(headers: Iterable[Header]) -> bytes:
    return b"".join(literal(name, value) for name, value in headers)


def header_frames(stream: int, data: bytes, *, end_stream: bool = False) -> bytes:
    """A block of headers as HEADERS and as many CONTINUATIONs as it takes."""
    parts = [data[start : start + MAX_FRAME] for start in range(0, len(data), MAX_FRAME)] or [b""]
    out = bytearray()
    for number, part in enumerate(parts):
        flags = END_HEADERS if number == len(parts) - 1 else 0
        if number:
            out += frame(Type.CONTINUATION, flags, stream, part)
        else:
            out += frame(Type.HEADERS, flags | (END_STREAM if end_stream else 0), stream, part)
    return bytes(out)


def message(data: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """A gRPC message with its prefix; `length` is what it claims, if that is not the truth."""
    return struct.pack(">BI", flag, len(data) if length is None else length) + data


def request_headers(path: bytes) -> list[Header]:
    """What a well-behaved client sends."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"grpc-timeout", b"20S"),
    ]
