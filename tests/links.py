"""A way that bytes go from one process to another, and on which they can be held, lost or cut.

A black hole holds both directions, and delivers late what it was given, as TCP does after a partition: a change may
then be made long after its caller gave up.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from enum import Enum

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: on, 0 seconds. Closing then sends RST."""
_CHUNK = 65_536


class Mode(Enum):
    """What a link does with bytes."""

    PASS = "pass"
    HOLD = "hold"
    """Both ways wait; connections are taken, and say nothing."""
    HOLD_ANSWERS = "hold answers"
    """What is asked arrives, what is answered waits."""
    SWALLOW = "swallow"
    """What is asked arrives, what is answered is lost."""


class Link:
    """A TCP proxy on a port of loopback.

    Args:
        host: Of the target.
        port: Of the target.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._questions_flow = asyncio.Event()
        self._answers_flow = asyncio.Event()
        self.become(Mode.PASS)
        self.port = 0
        self.asked: bytearray | None = None
        """What was asked so far, for a test that sets it to be empty."""

    @property
    def url(self) -> str:
        """What to give to a service as the URL of etcd."""
        return f"http://127.0.0.1:{self.port}"

    async def open(self) -> None:
        """Begin to listen; again, on the same port as before."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, and cut every connection."""
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def become(self, mode: Mode) -> None:
        """From now on do that with bytes; what was held until now goes on."""
        self._mode = mode
        _flow(self._questions_flow, mode is not Mode.HOLD)
        _flow(self._answers_flow, mode not in {Mode.HOLD, Mode.HOLD_ANSWERS})

    def cut(self) -> None:
        """Reset every connection; new ones are taken."""
        for connection in self._connections:
            connection.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        self._connections.add(task)
        writers = [writer]
        try:
            await self._questions_flow.wait()
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            writers.append(far_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, far_writer, is_answer=False))
                group.create_task(self._pass_on(far_reader, writer, is_answer=True))
        except* (OSError, asyncio.CancelledError):
            # Nobody waits for a connection's task, so that it may swallow its own cancelling.
            pass
        finally:
            for each in writers:
                _reset(each)
            self._connections.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool) -> None:
        while data := await reader.read(_CHUNK):
            await (self._answers_flow if is_answer else self._questions_flow).wait()
            if self.asked is not None and not is_answer:
                self.asked += data
            if not (is_answer and self._mode is Mode.SWALLOW):
                writer.write(data)
                await writer.drain()
        # The end of one direction is the end of both: gRPC never closes only one.
        raise ConnectionResetError


def _flow(event: asyncio.Event, flows: bool) -> None:
    if flows:
        event.set()
    else:
        event.clear()


@contextlib.asynccontextmanager
async def linked(url: str) -> AsyncIterator[Link]:
    """Put a link before an etcd."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    link = Link(host, int(port))
    await link.open()
    try:
        yield link
    finally:
        await link.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
