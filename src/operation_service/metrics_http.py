"""GET /metrics over HTTP/1.1, for Prometheus: as much of HTTP as that takes, and nobody waits for who reads slowly.

One request a connection. There are few connections, none lasts for long, and the text is made five times a second at
the most, however many ask for it. Nothing here needs gRPC: a supervisor of workers serves it, too.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import PurePath

from operation_service.settings_error import SettingsError

_log = logging.getLogger(__name__)

MAX_CONNECTIONS = 16
_MAX_REQUEST_BYTES = 8 * 1024
_REQUEST_SECONDS = 5.0
_ANSWER_SECONDS = 10.0
"""As long as Prometheus itself waits by default."""
_KEPT_SECONDS = 0.2

Text = Callable[[], Awaitable[bytes]]


class _MetricsServer:
    def __init__(self, text: Text) -> None:
        self._text = text
        self._open: set[asyncio.Task[None]] = set()
        self._made: tuple[float, bytes] | None = None
        self._making = asyncio.Lock()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection in a task of its own, if there are not too many."""
        if len(self._open) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def end(self) -> None:
        """Cut off who is still connected."""
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # What comes in time is answered; what comes slowly, or is more than a request, is cut off.
            async with asyncio.timeout(_REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            async with asyncio.timeout(_ANSWER_SECONDS):
                writer.write(await self._answer(head))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except Exception:  # noqa: BLE001, whatever it was, nobody else must feel it
            _log.exception("metrics could not be told")
        finally:
            writer.transport.abort()

    async def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path != b"/metrics":
            return _response(b"404 Not Found", b"metrics are at /metrics\n", is_head=method == b"HEAD")
        if method not in {b"GET", b"HEAD"}:
            return _response(b"405 Method Not Allowed", b"GET it\n", b"Allow: GET, HEAD\r\n")
        return _response(b"200 OK", await self._fresh(), is_head=method == b"HEAD")

    async def _fresh(self) -> bytes:
        loop = asyncio.get_running_loop()
        async with self._making:
            if self._made is None or loop.time() - self._made[0] >= _KEPT_SECONDS:
                self._made = loop.time(), await self._text()
            return self._made[1]


def _response(status: bytes, body: bytes, headers: bytes = b"", *, is_head: bool = False) -> bytes:
    return b"".join(
        (
            *(b"HTTP/1.1 ", status, b"\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            *(b"Content-Length: %d\r\nConnection: close\r\n" % len(body), headers, b"\r\n"),
            b"" if is_head else body,
        )
    )


@contextlib.asynccontextmanager
async def metrics_served(where: str | PurePath, text: Text) -> AsyncIterator[None]:
    """Serve metrics for as long as the block runs.

    Args:
        where: HOST:PORT, or the path of a socket.
        text: Makes what is told.

    Raises:
        SettingsError: Somebody listens there already, or the host is none of this machine's.
    """
    metrics = _MetricsServer(text)
    try:
        server = await _listening(where, metrics)
    except OSError as error:
        raise SettingsError(
            f"--metrics-listen: cannot listen on {where}: the port is in use, or the host is none of this machine's"
        ) from error
    try:
        yield
    finally:
        server.close()
        await metrics.end()


async def _listening(where: str | PurePath, metrics: _MetricsServer) -> asyncio.Server:
    if isinstance(where, PurePath):
        return await asyncio.start_unix_server(metrics.connected, f"{where}", limit=_MAX_REQUEST_BYTES)
    host, port = _host_and_port(where)
    server = await asyncio.start_server(metrics.connected, host.strip("[]"), port, limit=_MAX_REQUEST_BYTES)
    _log.info("metrics at http://%s:%d/metrics", host, server.sockets[0].getsockname()[1])
    return server


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
