"""Connections that only stay: HTTP/2 by hand, as ten thousand gRPC channels would be dearer than the service."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS, _PING = 4, 6
_ACK = 1
_HEADER = struct.Struct(">BHBBI")


def _frame(kind: int, flags: int = 0, payload: bytes = b"") -> bytes:
    return _HEADER.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, 0) + payload


class IdleConnection(asyncio.Protocol):
    """Says hello, and answers what has to be answered."""

    def __init__(self) -> None:
        self.is_greeted = asyncio.get_running_loop().create_future()
        self.is_open = False
        self._data = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.is_open = True
        transport.write(_PREFACE + _frame(_SETTINGS))

    def data_received(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= _HEADER.size:
            high, low, kind, flags, _ = _HEADER.unpack_from(self._data)
            end = _HEADER.size + (high << 16) + low
            if len(self._data) < end:
                return
            payload, self._data = self._data[_HEADER.size : end], self._data[end:]
            if kind in {_SETTINGS, _PING} and not flags & _ACK:
                self._transport.write(_frame(kind, _ACK, payload if kind == _PING else b""))
            if kind == _SETTINGS and not self.is_greeted.done():
                self.is_greeted.set_result(None)

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_open = False
        if not self.is_greeted.done():
            self.is_greeted.set_exception(ConnectionError("closed before it was greeted"))

    def close(self) -> None:
        self._transport.abort()


@contextlib.asynccontextmanager
async def idle_connections(address: str, count: int) -> AsyncIterator[list[IdleConnection]]:
    """Hold so many connections, each of which the service has greeted."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    held: list[IdleConnection] = []
    try:
        while len(held) < count:
            some = await asyncio.gather(
                *(loop.create_connection(IdleConnection, host, int(port)) for _ in range(min(100, count - len(held))))
            )
            held += [connection for _, connection in some]
            await asyncio.gather(*(connection.is_greeted for _, connection in some))
        yield held
    finally:
        for connection in held:
            connection.close()
