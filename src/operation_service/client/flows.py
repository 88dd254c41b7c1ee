"""How calls are made, apart from I/O: generators that yield what is to be done next, and are sent what came of it.

The blocking and the asyncio client run the same flows; `blocking.py` and `aio.py` say how each step is done.
"""

import random
from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from google.protobuf.message import Message

from operation_service.client.clock import Clock
from operation_service.client.errors import (
    ContentionError,
    OperationServiceError,
    OverloadedError,
    UnavailableError,
)
from operation_service.client.rpcs import Repeat, Reply, Request, Rpc

ATTEMPT_SECONDS = 5.0
"""How long one attempt may take. A replica that hangs, or a connection that was cut without a word, must not use up all
the time that there is."""
_FIRST_BACKOFF_SECONDS = 0.1
_LONGEST_BACKOFF_SECONDS = 2.0

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Send:
    """Make one attempt at a call; sent back: an `Answer`, or an OperationServiceError is thrown in."""

    rpc: Rpc[Any, Any]
    request: Message
    fencing_token: int | None
    timeout: float
    """In seconds."""


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a stream, instead of the one that this flow has begun before; nothing is sent back."""

    rpc: Rpc[Any, Any]
    request: Message
    timeout: float | None
    """After how many seconds it ends with an UnavailableError. None: never."""


@dataclass(frozen=True, slots=True)
class Read:
    """Read from the stream; sent back: its next message, or an OperationServiceError is thrown in."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Wait; sent back: whether the flow is to end, as nobody needs it any more."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Renew:
    """Renew the lock that the flow keeps, one renewal at a time; or an OperationServiceError is thrown in."""


@dataclass(frozen=True, slots=True)
class Await:
    """Wait until something is done, or the seconds have passed; nothing is sent back."""

    done: "Future[None]"
    seconds: float
    """May be infinite."""


Step: TypeAlias = Send | Open | Read | Rest | Renew | Await
Flow: TypeAlias = Generator[Step, Any, Result]


@dataclass(frozen=True, slots=True)
class Answer(Generic[Reply]):
    """What a call brought.

    Attributes:
        message: The answer.
        fencing_token: The fencing token of the operation's latest lock, from the trailing metadata. 0: it was never
            locked, or the call changes nothing.
        sent_at: When the attempt that was answered was sent, by the client's clock.
    """

    message: Reply
    fencing_token: int
    sent_at: float


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call may take.

    Attributes:
        clock: The client's clock.
        until: Until when, by that clock.
        attempt_seconds: How long one attempt may take, in seconds.
    """

    clock: Clock
    until: float
    attempt_seconds: float = ATTEMPT_SECONDS

    def left(self) -> float:
        """Return the seconds that are left, at least 0."""
        return max(self.until - self.clock(), 0.0)


def exchange(
    rpc: Rpc[Request, Reply], request: Request, patience: Patience, fencing_token: int | None = None
) -> Flow[Answer[Reply]]:
    """Make a call, and repeat what may be repeated for as long as there is patience.

    Args:
        rpc: Which.
        request: With what.
        patience: For how long. One attempt is made in any case.
        fencing_token: The lock that the call is for, as its precondition. None: none.

    Raises:
        OperationServiceError: As the last attempt failed. `may_have_been_carried_out` is about all of them.
    """
    number = 0
    is_unclear = False
    while True:
        number += 1
        sent_at = patience.clock()
        # A tenth of a second at least, lest a call without time end before it was sent.
        timeout = min(max(patience.left(), 0.1), patience.attempt_seconds)
        try:
            answer: Answer[Reply] = yield Send(rpc, request, fencing_token, timeout)
        except OperationServiceError as error:
            is_unclear |= error.may_have_been_carried_out
            error.may_have_been_carried_out = is_unclear
            pause = _pause(rpc, error, number, is_unclear=is_unclear)
            if pause is None or pause >= patience.left():
                raise
        else:
            return Answer(answer.message, answer.fencing_token, sent_at)
        yield Rest(pause)


def _pause(rpc: Rpc[Any, Any], error: OperationServiceError, number: int, *, is_unclear: bool) -> float | None:
    """Return how long to wait before the next attempt, in seconds, or None if there must be none."""
    if not isinstance(error, UnavailableError | ContentionError | OverloadedError):
        return None
    if is_unclear and rpc.repeat is Repeat.IF_UNCHANGED:
        return None
    return backoff(number, error.retry_after or 0.0)


def backoff(number: int, at_least: float = 0.0) -> float:
    """Return how many seconds to wait after so many failures in a row, somewhat at random: callers must not march."""
    longest: float = min(_FIRST_BACKOFF_SECONDS * 2 ** min(number - 1, 10), _LONGEST_BACKOFF_SECONDS)
    return at_least + longest * random.uniform(0.5, 1.0)  # noqa: S311, nothing depends on nobody knowing it
