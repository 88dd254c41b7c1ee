"""What a kind of bad request is given to work with: a connection that is used again and again, and fresh ones."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from random import Random

from fuzz import frames
from fuzz.connection import SILENCE, Connection
from fuzz.frames import Header

REACTION_SECONDS = 15.0
"""For the slowest reaction on a busy machine; what takes longer is a failure."""
MAX_STREAMS = 500
"""On one connection, before a new one is begun."""


class Lane:
    """One of several clients; it sends one bad request after the other, so that each reaction has one cause."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.detail = ""
        self._shared: Connection | None = None

    async def shared(self) -> Connection:
        """The connection for requests that leave the connection alone."""
        if self._shared is None or self._shared.closed or self._shared.next_stream > 2 * MAX_STREAMS:
            await self.close()
            self._shared = await Connection.begin(self.address)
        return self._shared

    @contextlib.asynccontextmanager
    async def fresh(self, *, begun: bool = True, abort: bool = False) -> AsyncIterator[Connection]:
        """A connection for one request."""
        connection = await (Connection.begin if begun else Connection.open)(self.address)
        try:
            yield connection
            self.detail = connection.detail
        finally:
            await connection.close(abort=abort)

    async def request(self, headers: list[Header], data: bytes | None, *, end_stream: bool = True) -> str:
        """Send one request on the shared connection, and tell what it met. `data` is DATA; None: there is none."""
        connection = await self.shared()
        connection.detail = ""
        stream = connection.new_stream()
        await connection.send(
            frames.header_frames(stream, frames.block(headers), end_stream=data is None and end_stream)
        )
        if data is not None:
            await connection.send_data(stream, data, end_stream=end_stream)
        told = await connection.reaction(stream, REACTION_SECONDS)
        self.detail = connection.detail
        if told in {"streaming", SILENCE} or not end_stream:
            await connection.send(frames.rst_stream(stream))
        return told

    async def close(self) -> None:
        if self._shared is not None:
            await self._shared.close()
            self._shared = None


@dataclass(frozen=True)
class Kind:
    """A kind of bad request.

    Attributes:
        name: For the table.
        send: Sends one and tells what it met. Draws all that is random from what it is given, so that it can be
            sent again.
        weight: How often it is sent, compared to the others.
        may_be_silent: No reaction is a right one: there is nothing yet to react to.
    """

    name: str
    send: Callable[[Lane, Random], Awaitable[str]]
    weight: float = 1.0
    may_be_silent: bool = False
