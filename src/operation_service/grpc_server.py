"""gRPC's asyncio server, without the holes by which one request of anybody can end it.

The stock server decodes the path of a method that it does not know where nobody catches the failure: one request whose
:path is not UTF-8 ends its main loop, and with it the service. Here every method is registered with gRPC's core by
name, so that what comes for none of them is refused as unknown whatever its path is, and never decoded. Each method has
a queue of its own then: who asks for the health does not wait behind a flood of calls.

This rests on names that grpcio does not promise; pyproject.toml therefore holds grpcio to releases that have them, and
tests/integration/test_bad_bytes.py fails with one that has not.
"""

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, cast

import grpc
from grpc._cython import cygrpc
from grpc.aio import _server as stock

_cygrpc: Any = cygrpc
_TAKEN_AT_ONCE = 16
"""So many calls of one method are taken out of gRPC's queue in a turn of the event loop; the stock server takes one.
Under a flood, in which most are refused, that is twice as many a second, and half the wait (docs/limits.md)."""
_NO_NAME = ""
"""Of a method that is not known: no method has that one."""

Option = tuple[str, int]


class _AioServer(_cygrpc.AioServer):  # type: ignore[misc]
    """Hands on the calls of each method in a task of its own, whose end the stock main loop waits for in vain."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: Sequence[Option]) -> None:
        super().__init__(loop, None, (), (), options, None)
        self._loop_of_tasks = loop
        self._handlers: dict[str, Any] = {}
        self._calls: set[asyncio.Task[None]] = set()

    def add_registered_method_handlers(self, method_handlers: dict[str, Any]) -> None:
        """Register methods by their paths."""
        super().add_registered_method_handlers(method_handlers)
        self._handlers |= method_handlers
        self._resolver = _cygrpc._MethodResolver([], self._handlers)  # noqa: SLF001

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Task[None]:
        """Begin to serve one method, or, for None, to refuse what is called by any other name."""
        return self._loop_of_tasks.create_task(self._serve_at_once(method))

    async def _serve_at_once(self, method: bytes | None) -> None:
        await asyncio.gather(*(self._serve(method) for _ in range(_TAKEN_AT_ONCE)))

    async def _serve(self, method: bytes | None) -> None:
        """Serve until the server stops, which ends in an exception that the main loop waits for."""
        name = _NO_NAME if method is None else method.decode()
        while True:
            try:
                # In one expression: a name for the call would keep it, and its request, until the next one comes.
                self._begin(
                    name, await (self._request_call() if method is None else self._request_registered_call(method))
                )
            except _cygrpc._RequestCallError:  # noqa: SLF001
                # One call that could not be taken is no reason to take no others; unless it is because of the end.
                if not self.is_running():
                    raise

    def _begin(self, name: str, state: object) -> None:
        """Begin a call, as the main loop does it: what listens for its cancellation begins it."""
        loop = self._loop_of_tasks
        call = ServedCall()
        served = _until_gone(loop, call, _cygrpc._handle_rpc(name, self._resolver, (), state, loop, False))  # noqa: SLF001
        call.listener = loop.create_task(_cygrpc._schedule_rpc_coro(served, state, loop, name))  # noqa: SLF001
        self._calls.add(call.listener)
        call.listener.add_done_callback(self._calls.discard)


class ServedCall:
    """A call, as long as gRPC has it.

    Attributes:
        listener: Listens for the call's cancellation, and is done when the call is over for gRPC.
        handler: Serves it.
    """

    __slots__ = ("handler", "listener")

    listener: asyncio.Task[None]
    handler: asyncio.Task[None]

    def cut_off(self) -> None:
        """End the call without a word: once nobody holds it, gRPC cancels it, and frees what was on its way."""
        self.listener.cancel()
        self.handler.cancel()


_current: ContextVar[ServedCall | None] = ContextVar("_current", default=None)


def current_call() -> ServedCall | None:
    """Return the call that is served by the current task. None: it serves none."""
    return _current.get()


async def _until_gone(loop: asyncio.AbstractEventLoop, call: ServedCall, served: Awaitable[None]) -> None:
    """Run a call. Nothing can be sent to a caller that has gone, which is its right and no failure of anything."""
    call.handler = cast("asyncio.Task[None]", asyncio.current_task(loop))
    _current.set(call)
    try:
        await served
    except _cygrpc.ExecuteBatchError:
        raise asyncio.CancelledError from None
    except grpc.aio.AbortError as error:
        # The call holds this, whose traceback holds the call: megabytes of them would wait for the garbage collector.
        error.__context__ = None
        raise error.with_traceback(None) from None


class _Server(stock.Server):
    def __init__(self, options: Sequence[Option]) -> None:
        # In place of the stock one's: what that makes could not be taken apart again.
        self._loop = _cygrpc.get_working_loop()
        self._server = _AioServer(self._loop, stock._augment_channel_arguments(options, None))  # noqa: SLF001

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Register the methods of what grpc.method_handlers_generic_handler returns, before the start."""
        for handler in generic_rpc_handlers:
            self._server.add_registered_method_handlers(cast("Any", handler)._method_handlers)  # noqa: SLF001


def new_server(options: Sequence[Option]) -> grpc.aio.Server:
    """Return a server. It takes only handlers that grpc.method_handlers_generic_handler has made.

    Args:
        options: As grpc.aio.server takes them.
    """
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)
    return cast("grpc.aio.Server", _Server(options))


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of gRPC is worth its place: that some caller's header is not UTF-8, with a traceback, is not."""
    return not (isinstance(record.msg, str) and record.msg.startswith("Invalid encoding on"))
