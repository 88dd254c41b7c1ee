"""A TCP proxy before etcd that swallows answers, holds everything back, or cuts every connection, when told to."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class EtcdProxy:
    """Passes bytes on, until told otherwise.

    Attributes:
        url: What to give to the service.
        swallows_answers: What etcd says is dropped; what it is told still arrives.
        holds_answers_back: What etcd says waits.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("http://").rpartition(":")
        self._target = (host, int(port))
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.swallows_answers = False
        self.holds_answers_back = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def open(self) -> None:
        """Begin to listen, on the same port as before."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, and cut every connection."""
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def cut(self) -> None:
        """Cut every connection; new ones are taken."""
        for connection in self._connections:
            connection.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                etcd_reader, etcd_writer = await asyncio.open_connection(*self._target)
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._pass_on(reader, etcd_writer, is_answer=False))
                        group.create_task(self._pass_on(etcd_reader, writer, is_answer=True))
                finally:
                    etcd_writer.close()
        except* OSError:
            pass
        finally:
            writer.close()
            self._connections.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool) -> None:
        while data := await reader.read(65_536):
            while is_answer and self.holds_answers_back:  # noqa: ASYNC110, a test's switch, thrown from anywhere
                await asyncio.sleep(0.01)
            if not (is_answer and self.swallows_answers):
                writer.write(data)
                await writer.drain()
        raise ConnectionResetError


@contextlib.asynccontextmanager
async def proxied(etcd: str) -> AsyncIterator[EtcdProxy]:
    """Put a proxy before an etcd."""
    proxy = EtcdProxy(etcd)
    await proxy.open()
    try:
        yield proxy
    finally:
        await proxy.close()
