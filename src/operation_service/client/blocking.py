"""The steps of the flows (see `flows.py`), done with gRPC's blocking calls."""

import contextlib
import math
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from operation_service.client import connection, forks
from operation_service.client.connection import Target
from operation_service.client.errors import OperationServiceError
from operation_service.client.flows import Answer, Await, Flow, Open, Read, Renew, Rest, Send, Step
from operation_service.client.rpcs import Rpc
from operation_service.client.translation import translated

Result = TypeVar("Result")


class Channel:
    """A connection to the service; another one is made in each child of the process that needs one.

    Args:
        target: Where the service is.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._mutex = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._previous: grpc.Channel | None = None
        self._generation = forks.generation()
        self._is_closed = False
        # Now, and not by the first call, in some thread: a fork beside that would leave a child with half of gRPC.
        self._open()

    def unary(self, rpc: Rpc[Any, Any]) -> Any:  # noqa: ANN401, gRPC's multi-callables are generic in its stubs alone
        """Return what makes a call."""
        return connection.method(self._open().unary_unary, rpc)

    def stream(self, rpc: Rpc[Any, Any]) -> Any:  # noqa: ANN401, as above
        """Return what begins a stream."""
        return connection.method(self._open().unary_stream, rpc)

    def metadata(self, fencing_token: int | None = None) -> tuple[tuple[str, str], ...]:
        """Return a call's metadata (see `Target`)."""
        return self._target.metadata(fencing_token)

    def close(self) -> None:
        """Close the connection for good."""
        self._begin_anew_in_a_child()
        with self._mutex:
            self._is_closed = True
            channels = self._channel, self._previous
            self._channel = self._previous = None
        for channel in channels:
            if channel is not None:
                channel.close()

    def _begin_anew_in_a_child(self) -> None:
        if self._generation != forks.generation():
            # Whoever held the mutex is not in this process, and the parent's connection is the parent's.
            self._mutex, self._channel, self._generation = threading.Lock(), None, forks.generation()
            self._previous = None

    def _open(self) -> grpc.Channel:
        self._begin_anew_in_a_child()
        with self._mutex:
            if self._is_closed:
                raise OperationServiceError("this client is closed: make a new one")
            if self._channel is not None and self._target.is_outdated():
                self._retire()
            if self._channel is None:
                forks.use_grpc()
                with forks.inside_grpc():
                    self._channel = self._target.open(grpc)
                forks.guard()
            return self._channel

    def _retire(self) -> None:
        """Connect anew. What is under way over the connection goes on until the next time; watches then resume."""
        with forks.inside_grpc():
            if self._previous is not None:
                self._previous.close()
        self._previous, self._channel = self._channel, None


class Stream:
    """The stream of one flow: at most one at a time, and none any more once it is closed.

    Args:
        channel: The connection.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._mutex = threading.Lock()
        self._call: Any = None
        self._what = ""
        self._is_closed = False

    def open(self, step: Open) -> None:
        """Begin a stream, and wait until the service has taken it on.

        Raises:
            OperationServiceError: It did not.
        """
        self.drop()
        self._what = step.rpc.name
        begin, metadata = self._channel.stream(step.rpc), self._channel.metadata()
        with self._mutex, forks.inside_grpc():
            if self._is_closed:
                raise OperationServiceError(f"{self._what} is not wanted any more")
            self._call = _calling(begin, step.request, timeout=step.timeout, metadata=metadata)
        with forks.inside_grpc(self._call.cancel):
            # It says nothing of how the call ended, if it has; reading does.
            self._call.initial_metadata()

    def read(self) -> Any:  # noqa: ANN401, whatever the stream carries
        """Return the next message.

        Raises:
            OperationServiceError: The stream has ended.
        """
        call = self._call
        try:
            with forks.inside_grpc(call.cancel):
                return next(call)
        except grpc.RpcError as error:
            raise translated(error, self._what) from error
        except StopIteration:
            raise OperationServiceError(f"the service ended {self._what} without a word") from None

    def is_standing(self) -> bool:
        """Whether the service has taken on the stream, and not ended it."""
        return bool(self._call is not None and self._call.is_active())

    def drop(self) -> None:
        """End the stream; another one may be begun."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def close(self) -> None:
        """End the stream for good, from any thread; who reads is told."""
        with self._mutex:
            self._is_closed = True
            call = self._call
        if call is not None:
            call.cancel()


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _no_lock() -> None:
    raise AssertionError("this flow keeps no lock")


class Steps:
    """Runs flows.

    Args:
        channel: The connection.
        rest: Waits for some seconds, and returns whether the flow is to end.
        renew: Renews the lock that the flow keeps.

    Attributes:
        is_sending: Whether the latest step is a call: its outcome may not be known yet, or not have been dealt with.
    """

    def __init__(
        self, channel: Channel, rest: Callable[[float], bool] = _sleep, renew: Callable[[], None] = _no_lock
    ) -> None:
        self._channel = channel
        self._rest = rest
        self._renew = renew
        self.stream = Stream(channel)
        self.is_sending = False

    def run(self, flow: Flow[Result]) -> Result:
        """Run a flow to its end.

        Raises:
            OperationServiceError: As the flow does.
        """
        with contextlib.closing(flow):
            try:
                step = next(flow)
                while True:
                    try:
                        brought = self._take(step)
                    except OperationServiceError as error:
                        step = flow.throw(error)
                    else:
                        step = flow.send(brought)
            except StopIteration as end:
                result: Result = end.value
                return result
            finally:
                self.stream.drop()

    def _take(self, step: Step) -> Any:  # noqa: ANN401, what a step brings depends on the step
        self.is_sending = isinstance(step, Send)
        match step:
            case Send():
                return self._send(step)
            case Open():
                return self.stream.open(step)
            case Read():
                return self.stream.read()
            case Rest():
                return self._rest(step.seconds)
            case Renew():
                return self._renew()
            case Await():
                with contextlib.suppress(TimeoutError):
                    step.done.result(None if math.isinf(step.seconds) else step.seconds)
                return None

    def _send(self, step: Send) -> Answer[Any]:
        begin, metadata = self._channel.unary(step.rpc), self._channel.metadata(step.fencing_token)
        # Waited for outside of gRPC, so that a fork need not wait for the answer.
        with forks.inside_grpc():
            call = _calling(begin.future, step.request, timeout=step.timeout, metadata=metadata)
        try:
            return Answer(call.result(), connection.fencing_token_in(call.trailing_metadata()), 0.0)
        except grpc.RpcError as error:
            raise translated(error, step.rpc.name) from error
        finally:
            # For an interrupt; what has ended is not touched by it.
            call.cancel()


def _calling(call: Any, *args: Any, **more: Any) -> Any:  # noqa: ANN401, gRPC's own
    try:
        return call(*args, **more)
    except ValueError as error:
        # What gRPC says of a channel that another thread has just closed.
        raise OperationServiceError("this client is closed: make a new one") from error
