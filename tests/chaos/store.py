"""The value that a lock guards: a store beside the service that knows fencing tokens, as every such store should.

One line of JSON a request, one an answer, over TCP on loopback.
"""

import asyncio
import contextlib
from collections import defaultdict

import msgspec


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request: a read, or a write of the whole value.

    Attributes:
        resource: Whose value.
        fencing_token: As the grant told it.
        value: What to write. None: read.
    """

    resource: str
    fencing_token: int
    value: tuple[str, ...] | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: refused, where a later fencing token was seen before; otherwise the value as it is now."""

    is_refused: bool
    value: tuple[str, ...] = ()


class Values:
    """The values themselves."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[str, ...]] = {}
        self._tokens: dict[str, int] = defaultdict(int)

    def answer(self, ask: Ask) -> Reply:
        """Carry out a request.

        A read raises the token too: if only writes did, a former holder could still write between the new holder's read
        and its write, and that update would be lost.
        """
        if ask.fencing_token < self._tokens[ask.resource]:
            return Reply(is_refused=True)
        self._tokens[ask.resource] = ask.fencing_token
        if ask.value is not None:
            self._values[ask.resource] = ask.value
        return Reply(is_refused=False, value=self.value(ask.resource))

    def value(self, resource: str) -> tuple[str, ...]:
        """Return a value; empty if it was never written."""
        return self._values.get(resource, ())


class StoreServer:
    """Serves values, and is never hurt: what is tested is the lock.

    Args:
        values: Which.
    """

    def __init__(self, values: Values) -> None:
        self._values = values
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=_LINE)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                while line := await reader.readline():
                    ask = msgspec.json.decode(line, type=Ask)
                    writer.write(msgspec.json.encode(self._values.answer(ask)) + b"\n")
                    await writer.drain()
        finally:
            writer.close()
            self._connections.discard(task)


class StoreClient:
    """Asks a store; one request at a time.

    Args:
        port: Where it listens.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def read(self, resource: str, fencing_token: int) -> Reply:
        """Read a value."""
        return await self._ask(Ask(resource=resource, fencing_token=fencing_token))

    async def write(self, resource: str, fencing_token: int, value: tuple[str, ...]) -> Reply:
        """Write a value."""
        return await self._ask(Ask(resource=resource, fencing_token=fencing_token, value=value))

    async def _ask(self, ask: Ask) -> Reply:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=_LINE)
        reader, writer = self._streams
        writer.write(msgspec.json.encode(ask) + b"\n")
        return msgspec.json.decode(await reader.readline(), type=Reply)


_LINE = 4 * 1024 * 1024
"""A value is a list of all that was added in a run."""
