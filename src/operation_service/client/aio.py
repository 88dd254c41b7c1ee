"""The steps of the flows (see `flows.py`), done with grpc.aio."""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import grpc

from operation_service.client import connection, forks
from operation_service.client.connection import Target
from operation_service.client.errors import OperationServiceError, UnavailableError
from operation_service.client.flows import Answer, Await, Flow, Open, Read, Renew, Rest, Send, Step
from operation_service.client.rpcs import Rpc
from operation_service.client.translation import translated

Result = TypeVar("Result")


class AsyncChannel:
    """A connection to the service, made when it is first needed, in the event loop that needs it.

    Args:
        target: Where the service is.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._channel: grpc.aio.Channel | None = None
        self._previous: grpc.aio.Channel | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self._has_cut_off = False

    def unary(self, rpc: Rpc[Any, Any]) -> Any:  # noqa: ANN401, gRPC's multi-callables are generic in its stubs alone
        """Return what makes a call."""
        return connection.method(self._open().unary_unary, rpc)

    def stream(self, rpc: Rpc[Any, Any]) -> Any:  # noqa: ANN401, as above
        """Return what begins a stream."""
        return connection.method(self._open().unary_stream, rpc)

    def metadata(self, fencing_token: int | None = None) -> tuple[tuple[str, str], ...]:
        """Return a call's metadata (see `Target`)."""
        return self._target.metadata(fencing_token)

    @contextlib.contextmanager
    def border(self, what: str) -> Iterator[None]:
        """Raise what gRPC raises within as one of ours.

        Args:
            what: Which call is made.

        Raises:
            OperationServiceError: The call failed, or the connection was closed meanwhile.
        """
        try:
            yield
        except grpc.RpcError as error:
            raise translated(error, what) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling() or not (self._is_closed or self._has_cut_off):
                raise
            # Closing a channel cancels its calls. The task that waits for one was not cancelled, and must not end so.
            cut_off = (
                OperationServiceError(f"this client was closed before {what} was answered")
                if self._is_closed
                else UnavailableError(f"{what} was not answered before its connection was replaced")
            )
            cut_off.may_have_been_carried_out = True
            raise cut_off from None

    async def close(self) -> None:
        """Close the connection for good."""
        self._is_closed = True
        channels = self._channel, self._previous
        self._channel = self._previous = None
        for channel in channels:
            if channel is not None:
                await channel.close()
        if self._closing:
            await asyncio.wait(self._closing)

    def _open(self) -> grpc.aio.Channel:
        if self._is_closed:
            raise OperationServiceError("this client is closed: make a new one")
        forks.use_aio()
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise RuntimeError("this client belongs to another event loop: make one in each")
        if self._channel is not None and self._target.is_outdated():
            self._retire()
        if self._channel is None:
            self._loop = loop
            self._channel = self._target.open(grpc.aio)
        return self._channel

    def _retire(self) -> None:
        """Connect anew. What is under way over the connection goes on until the next time; watches then resume."""
        if self._previous is not None:
            self._has_cut_off = True
            closing = asyncio.create_task(self._previous.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        self._previous, self._channel = self._channel, None


class AsyncStream:
    """The stream of one flow, at most one at a time.

    Args:
        channel: The connection.
    """

    def __init__(self, channel: AsyncChannel) -> None:
        self._channel = channel
        self._call: Any = None
        self._what = ""

    async def open(self, step: Open) -> None:
        """Begin a stream, and wait until the service has taken it on.

        Raises:
            OperationServiceError: It did not.
        """
        self.drop()
        self._what = step.rpc.name
        metadata = self._channel.metadata()
        with self._channel.border(self._what):
            self._call = self._channel.stream(step.rpc)(step.request, timeout=step.timeout, metadata=metadata)
            # It says nothing of how the call ended, if it has; reading does.
            await self._call.initial_metadata()

    async def read(self) -> Any:  # noqa: ANN401, whatever the stream carries
        """Return the next message.

        Raises:
            OperationServiceError: The stream has ended.
        """
        with self._channel.border(self._what):
            told = await self._call.read()
        if told is grpc.aio.EOF:
            raise OperationServiceError(f"the service ended {self._what} without a word")
        return told

    def is_standing(self) -> bool:
        """Whether the service has taken on the stream, and not ended it."""
        return self._call is not None and not self._call.done()

    def drop(self) -> None:
        """End the stream; another one may be begun."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()


async def _sleep(seconds: float) -> bool:
    await asyncio.sleep(seconds)
    return False


async def _no_lock() -> None:
    raise AssertionError("this flow keeps no lock")


class AsyncSteps:
    """Runs flows.

    Args:
        channel: The connection.
        renew: Renews the lock that the flow keeps.

    Attributes:
        is_sending: Whether the latest step is a call: its outcome may not be known yet, or not have been dealt with.
    """

    def __init__(self, channel: AsyncChannel, renew: Callable[[], Awaitable[None]] = _no_lock) -> None:
        self._channel = channel
        self._renew = renew
        self.is_sending = False
        self._stream = AsyncStream(channel)

    async def run(self, flow: Flow[Result]) -> Result:
        """Run a flow to its end.

        Raises:
            OperationServiceError: As the flow does.
        """
        with contextlib.closing(flow):
            try:
                step = next(flow)
                while True:
                    try:
                        brought = await self._take(step)
                    except OperationServiceError as error:
                        step = flow.throw(error)
                    else:
                        step = flow.send(brought)
            except StopIteration as end:
                result: Result = end.value
                return result
            finally:
                self._stream.drop()

    async def _take(self, step: Step) -> Any:  # noqa: ANN401, what a step brings depends on the step
        self.is_sending = isinstance(step, Send)
        match step:
            case Send():
                return await self._send(step)
            case Open():
                return await self._stream.open(step)
            case Read():
                return await self._stream.read()
            case Rest():
                return await _sleep(step.seconds)
            case Renew():
                return await self._renew()
            case Await():
                # Not cancelled with whoever waits: others wait for the same.
                seconds = None if math.isinf(step.seconds) else max(step.seconds, 0.0)
                await asyncio.wait([asyncio.wrap_future(step.done)], timeout=seconds)
                return None

    async def _send(self, step: Send) -> Answer[Any]:
        metadata = self._channel.metadata(step.fencing_token)
        with self._channel.border(step.rpc.name):
            call = self._channel.unary(step.rpc)(step.request, timeout=step.timeout, metadata=metadata)
            message = await call
            return Answer(message, connection.fencing_token_in(await call.trailing_metadata()), 0.0)
