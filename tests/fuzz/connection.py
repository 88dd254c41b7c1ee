"""A client's side of one HTTP/2 connection that sends whatever it is told to, and names what comes back."""

import asyncio
import contextlib
import struct
import time
from typing import Self

import grpc
import hpack
from fuzz import frames
from fuzz.frames import Type

WINDOW = 2**30
SILENCE = "silence"
NOT_READING = "the server does not read"
LIVES = "ignored: the connection lives"

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_STREAMING_SECONDS = 0.03
"""How long a stream that has begun is listened to: an error would come at once."""


class Connection:
    """One connection. `closed` says how it ended, once it has."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.closed = ""
        self.next_stream = 1
        self.detail = ""
        self._decoder = hpack.Decoder(max_header_list_size=1 << 24)
        self._window = 65_535
        self._initial_window = 65_535
        self._windows: dict[int, int] = {}
        self._answers: dict[int, dict[str, str]] = {}
        self._done: dict[int, str] = {}
        self._pings: set[bytes] = set()
        self._head = b""
        self._is_half_closed = False

    @classmethod
    async def open(cls, address: str) -> Self:
        """Connect, and send nothing."""
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port), limit=1 << 20))

    @classmethod
    async def begin(cls, address: str) -> Self:
        """Connect, and begin as a well-behaved client does."""
        connection = await cls.open(address)
        await connection.send(
            frames.PREFACE
            + frames.settings((frames.Setting.INITIAL_WINDOW_SIZE, WINDOW), (frames.Setting.ENABLE_PUSH, 0))
            + frames.window_update(0, WINDOW)
        )
        return connection

    def new_stream(self) -> int:
        stream = self.next_stream
        self.next_stream += 2
        return stream

    async def send(self, data: bytes) -> None:
        """Send bytes as they are; the other side may have gone."""
        if self.closed or self._is_half_closed or self.writer.is_closing():
            return
        try:
            self.writer.write(data)
            async with asyncio.timeout(20):
                await self.writer.drain()
        except TimeoutError:
            self.closed = NOT_READING
        except OSError:
            # What it had to say before it closed can still be read.
            self._is_half_closed = True

    def end_sending(self) -> None:
        """Close this side's half, and listen on."""
        self._is_half_closed = True
        if not self.writer.is_closing():
            with contextlib.suppress(OSError):
                self.writer.write_eof()

    async def send_data(self, stream: int, data: bytes, *, end_stream: bool = True) -> None:
        """Send DATA within the windows that the server has opened; gives up when it has ended the stream."""
        self._windows.setdefault(stream, self._initial_window)
        sent = 0
        until = time.monotonic() + 20
        while not self.closed and stream not in self._done and time.monotonic() < until:
            room = min(len(data) - sent, frames.MAX_FRAME, self._window, self._windows[stream])
            if room <= 0 and sent < len(data):
                await self._pump(until)
                continue
            part = data[sent : sent + room]
            sent += room
            self._window -= room
            self._windows[stream] -= room
            is_last = sent == len(data)
            await self.send(frames.frame(Type.DATA, frames.END_STREAM if is_last and end_stream else 0, stream, part))
            if is_last:
                return

    async def reaction(self, stream: int, seconds: float) -> str:
        """Wait for the end of a stream, or of the connection."""
        until = time.monotonic() + seconds
        while stream not in self._done and not self.closed:
            if not await self._pump(until):
                break
            if stream in self._answers:
                until = min(until, time.monotonic() + _STREAMING_SECONDS)
        if stream in self._done:
            return self._done[stream]
        if self.closed:
            return self.closed
        return "streaming" if stream in self._answers else SILENCE

    async def fate(self, seconds: float) -> str:
        """Ask with a PING whether the connection lives, and tell how it ended if not."""
        payload = b"alive..?"
        await self.send(frames.frame(Type.PING, 0, 0, payload))
        until = time.monotonic() + seconds
        while not self.closed and payload not in self._pings:
            if not await self._pump(until):
                return self.closed or SILENCE
        return self.closed or LIVES

    async def close(self, *, abort: bool = False) -> None:
        if abort:
            self.writer.transport.abort()
        self.writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await self.writer.wait_closed()

    async def _pump(self, until: float) -> bool:
        """Read one frame; whether there was one before the time was up. Sets `closed` at the end."""
        try:
            async with asyncio.timeout(max(until - time.monotonic(), 0)):
                # Kept, should the time be up between the two.
                head = self._head = self._head or await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
                self._head = b""
        except TimeoutError:
            return False
        except asyncio.IncompleteReadError as error:
            # A server that does not speak HTTP/2 to one that did not may say so in its own way.
            self.closed = self.closed or ("closed after other bytes" if error.partial else "closed")
            return False
        except OSError:
            self.closed = self.closed or "reset"
            return False
        stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
        await self._frame(head[3], head[4], stream, payload)
        return True

    async def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == Type.HEADERS:
            self._headers(flags, stream, payload)
        elif kind == Type.DATA:
            if flags & frames.END_STREAM:
                self._done[stream] = "ended without a status"
        elif kind == Type.RST_STREAM:
            self._done.setdefault(stream, f"RST_STREAM {frames.error_name(int.from_bytes(payload, 'big'))}")
        elif kind == Type.PING and flags & frames.ACK:
            self._pings.add(payload)
        elif kind in {Type.PING, Type.SETTINGS}:
            await self._acknowledge(kind, flags, payload)
        elif kind == Type.GOAWAY:
            _, code = struct.unpack(">II", payload[:8])
            self.detail = payload[8:].decode(errors="replace")
            self.closed = f"GOAWAY {frames.error_name(code)}"
        elif kind == Type.WINDOW_UPDATE:
            (increment,) = struct.unpack(">I", payload)
            if stream:
                self._windows[stream] = self._windows.get(stream, self._initial_window) + increment
            else:
                self._window += increment

    def _headers(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & frames.PRIORITY_FLAG:
            payload = payload[5:]
        headers = self._decoder.decode(payload, raw=True)
        fields = {bytes(name).decode("latin-1"): bytes(value).decode("latin-1") for name, value in headers}
        known = self._answers.setdefault(stream, {})
        known.update(fields)
        if flags & frames.END_STREAM or "grpc-status" in fields:
            self.detail = known.get("grpc-message", "")
            if "grpc-status" in known:
                self._done[stream] = _CODES[int(known["grpc-status"])]
            else:
                self._done[stream] = f"HTTP {known.get(':status')}"

    async def _acknowledge(self, kind: int, flags: int, payload: bytes) -> None:
        if flags & frames.ACK:
            return
        if kind == Type.SETTINGS:
            self._settings(payload)
            payload = b""
        await self.send(frames.frame(kind, frames.ACK, 0, payload))

    def _settings(self, payload: bytes) -> None:
        for start in range(0, len(payload), 6):
            name, value = struct.unpack(">HI", payload[start : start + 6])
            if name == frames.Setting.INITIAL_WINDOW_SIZE:
                change = value - self._initial_window
                self._initial_window = value
                self._windows = {stream: window + change for stream, window in self._windows.items()}
