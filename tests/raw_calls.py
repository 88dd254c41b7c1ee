"""Calls as bytes: for what no client of gRPC does, such as to begin one and say no more."""

from google.protobuf.message import Message

from operation_service.http2 import PREFACE, frame, literal

_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 0x1, 0x4

BEGINNING = PREFACE + frame(_SETTINGS, 0, 0, b"")
"""Of a connection."""


def begun(rpc: str, stream: int = 1, **metadata: str) -> bytes:
    """Begin a call of the service, whose request is yet to come."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/n0stack.operation.v1alpha.OperationService/{rpc}",
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    } | metadata
    block = b"".join(literal(name.encode(), value.encode()) for name, value in headers.items())
    return frame(_HEADERS, _END_HEADERS, stream, block)


def whole(rpc: str, request: Message, stream: int = 1) -> bytes:
    """Make a call of the service."""
    data = request.SerializeToString()
    return begun(rpc, stream) + frame(_DATA, _END_STREAM, stream, b"\0" + len(data).to_bytes(4, "big") + data)
