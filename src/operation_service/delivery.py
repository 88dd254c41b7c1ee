"""Hands answers to gRPC, and gives up on callers that do not read.

A write waits until the caller's window has room for it. Giving up means to hold nothing else for that caller, and to
have the error lie in its way behind what it has not read: both stay in gRPC's buffers until the caller reads on, its
connection ends, or there are too many such calls (`lingering.py`).
"""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from operation_service.bounds import Bounded, Bounds
from operation_service.grpc_server import ServedCall, current_call
from operation_service.lingering import Lingering

Context = grpc.aio.ServicerContext[Any, Any]
Answer = Message | bytes
"""A message, or one that is serialized already."""

_MAX_BYTES = 64 * 1024 * 1024
"""Python and gRPC hold each message up to three times while it is written."""
_LAST_SECONDS = 1.0
"""What a write may still take once the service stops."""


class NotReadError(Exception):
    """The caller has not read in time. The message is on its way all the same."""


class CallerGoneError(Exception):
    """The call is over: nobody is there to read."""


class _HandedOver:
    """An answer that gRPC writes by itself, once the call's coroutine has returned it."""

    __slots__ = ("_delivery", "_on_over", "call", "due_at", "is_over", "size")

    def __init__(self, delivery: "Delivery", call: ServedCall, size: int, on_over: Callable[[], None]) -> None:
        self._delivery = delivery
        self._on_over = on_over
        self.call = call
        self.size = size
        self.due_at = math.inf
        self.is_over = False

    def end(self) -> None:
        """Give up on a caller that has not read it."""
        if not self.is_over:
            self.over()
            self._delivery.linger(self.call, self.size)

    def over(self, _served: object = None) -> None:
        """Take note that it is on its way."""
        if not self.is_over:
            self.is_over = True
            self._delivery.forget(self)
            self._on_over()


class Delivery:
    """All writes of the service.

    Args:
        max_bytes: How much may be on its way at once, of what is waited for, and as much again of what was given up.
            Beyond it, whoever has been waited for longest is given up.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._bounds = Bounds()
        self._under_way: dict[Bounded, int] = {}
        self._is_stopping = False
        self._lingering = Lingering()

    @property
    def bytes_under_way(self) -> int:
        """How much is being written just now."""
        return self._bytes

    async def write(self, context: Context, message: Message, patience_seconds: float) -> None:
        """Write a message, and wait until it is on its way.

        Raises:
            NotReadError: The caller has not read for so long, or what is held for all such callers had no more room.
            CallerGoneError: The call is over.
        """
        data = message.SerializeToString()
        await self._within(patience_seconds, context.write(data), len(data))

    def hand_over(self, answer: Answer, patience_seconds: float, on_over: Callable[[], None]) -> bytes:
        """Return a call's only answer as its coroutine has to return it: gRPC writes it together with the status.

        Args:
            answer: What it is.
            patience_seconds: After so long without its being read the caller is given up.
            on_over: Is called once, when the answer is on its way, or the caller is given up.
        """
        data = answer if isinstance(answer, bytes) else answer.SerializeToString()
        call = current_call()
        if call is None:
            on_over()
            return data
        handed_over = _HandedOver(self, call, len(data), on_over)
        seconds = _LAST_SECONDS if self._is_stopping else patience_seconds
        handed_over.due_at = asyncio.get_running_loop().time() + seconds
        self._bounds.add(handed_over)
        self._under_way[handed_over] = len(data)
        self._bytes += len(data)
        call.handler.add_done_callback(handed_over.over)
        self._make_room()
        return data

    def forget(self, handed_over: "_HandedOver") -> None:
        """Count an answer no more."""
        self._bounds.discard(handed_over)
        self._bytes -= self._under_way.pop(handed_over, 0)

    def linger(self, call: ServedCall, size: int) -> None:
        """Count a call, and what its caller has yet to read, until it is over for gRPC."""
        self._lingering.add(call, size)
        call.listener.add_done_callback(lambda _: self._lingering.discard(call))

    async def refuse(self, context: Context, status: grpc.Status) -> None:
        """End a call that was not taken on. It has no place, so it is counted until its caller has read that."""
        self._linger(0)
        with contextlib.suppress(grpc.aio.InternalError):
            await context.abort_with_status(status)

    async def abort(self, context: Context, status: grpc.Status, patience_seconds: float | None) -> None:
        """End a call with an error, and wait until that is on its way. Raises grpc's AbortError if it is.

        Args:
            context: The call's.
            status: The error.
            patience_seconds: How long to wait. None: for as long as it takes, unless the service stops.
        """
        with contextlib.suppress(NotReadError, CallerGoneError):
            await self._within(patience_seconds, context.abort_with_status(status), 0)

    def stop(self) -> None:
        """Wait for none of them much longer: the service is stopping."""
        self._is_stopping = True
        until = asyncio.get_running_loop().time() + _LAST_SECONDS
        for bound in self._under_way:
            bound.due_at = min(bound.due_at, until)

    async def _within(self, seconds: float | None, writing: Awaitable[None], size: int) -> None:
        if self._is_stopping:
            seconds = _LAST_SECONDS
        bound = self._bounds.within(math.inf if seconds is None else seconds)
        try:
            with bound:
                self._under_way[bound] = size
                self._bytes += size
                try:
                    self._make_room()
                    await writing
                finally:
                    self._bytes -= self._under_way.pop(bound, 0)
        except TimeoutError as error:
            self._linger(size)
            raise NotReadError from error
        except grpc.aio.InternalError as error:
            raise CallerGoneError from error

    def _linger(self, size: int) -> None:
        call = current_call()
        if call is not None:
            self.linger(call, size)

    def _make_room(self) -> None:
        while self._bytes > self._max_bytes:
            longest_waiting = next(iter(self._under_way))
            self._bytes -= self._under_way.pop(longest_waiting)
            # In the next turn: it may be the very one that is about to be written.
            asyncio.get_running_loop().call_soon(longest_waiting.end)
