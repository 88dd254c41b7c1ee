"""What waits while a call is under way leaves together with the next one: the dearer the call, the more share it."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from operation_service.clock import Deadline
from operation_service.errors import StoreUnavailableError

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.02
"""So much later than its deadline a request is given up at the most."""

_TURNS = 40
"""Of the event loop, that go by between an answer and what is sent next: an idle loop takes 0.1 ms for them, and a busy
one has done by then what brings more to send (docs/adr/0019-who-was-answered-comes-back.md)."""
_LET_COME_SECONDS = 0.005
"""However long the turns take, it waits no longer than that."""
_CROWDED_SECONDS = 0.1
"""For so long after several have called they are waited for: one of them is alone with a transaction now and then."""

_ALONE = nullcontext()

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Settle = Callable[[Answer | Exception | None], None]


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Request, Answer]):
    request: Request
    size: int
    deadline: Deadline
    settle: "Settle[Answer]"
    answer: "asyncio.Future[Answer]"
    is_sent: bool = False
    mark: object = None


class Sharing(Protocol):
    """Sees requests that leave together (`tracing.py`)."""

    def joined(self) -> Any | None:  # noqa: ANN401, its own affair
        """Return a mark for a request that the current task has; None, if nobody is interested in it."""
        ...

    def left(self, mark: Any) -> None:  # noqa: ANN401, its own affair
        """See a marked request be over, whatever became of it."""
        ...

    def sending(self, marks: Sequence[Any]) -> AbstractContextManager[None]:
        """See some requests be carried out, for as long as the block runs."""
        ...


class Together(Generic[Request, Answer]):
    """Carries out requests, as many at once as have come meanwhile.

    Args:
        carry_out: Is given some requests, and until when the most patient of those who wait for them does so. Returns
            an answer for each, or an error that is raised there and nowhere else.
        max_requests: How many at once.
        max_size: How large they may be together. One that is larger goes alone.
        is_repeatable: Whether a request that was sent, and whose answer nobody knows, can have changed nothing.
        sharing: Sees who shares, if anybody does.
    """

    def __init__(
        self,
        carry_out: Callable[[Sequence[Request], Deadline], Awaitable[Sequence[Answer | Exception]]],
        *,
        max_requests: int,
        max_size: int,
        is_repeatable: bool,
        sharing: Sharing | None = None,
    ) -> None:
        self._carry_out = carry_out
        self._sharing = sharing
        self._max_requests = max_requests
        self._max_size = max_size
        self._is_repeatable = is_repeatable
        self._queue: dict[_Waiting[Request, Answer], None] = {}
        self._queued_size = 0
        self._waiting: set[_Waiting[Request, Answer]] = set()
        self._working: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._crowded_until = -math.inf

    async def do(
        self, request: Request, size: int, deadline: Deadline, settle: "Settle[Answer]" = lambda _: None
    ) -> Answer:
        """Carry out a request.

        Who is cancelled while its request waits has not sent it. What is under way goes on without it.

        Args:
            request: The request.
            size: How large it is.
            deadline: Until when to wait.
            settle: Is told once what became of the request, also when nobody waits for it any more. None: it was
                never sent.

        Raises:
            StoreUnavailableError: The deadline came first; `is_outcome_unknown` says whether the request was sent.
        """
        if deadline.remaining() <= 0:
            settle(None)
            raise StoreUnavailableError("no answer in time")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        waiting: _Waiting[Request, Answer] = _Waiting(request, size, deadline, settle, self._loop.create_future())
        if self._sharing is not None:
            waiting.mark = self._sharing.joined()
        self._queue[waiting] = None
        self._queued_size += size
        if self._working is None:
            self._working = self._loop.create_task(self._work())
        self._waiting.add(waiting)
        if self._timer is None:
            self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)
        try:
            return await waiting.answer
        finally:
            self._waiting.discard(waiting)
            if self._sharing is not None and waiting.mark is not None:
                self._sharing.left(waiting.mark)
            if not waiting.is_sent:
                # Nobody may be kept waiting behind what nobody waits for, nor its memory be held.
                if waiting in self._queue:
                    del self._queue[waiting]
                    self._queued_size -= size
                _settle(waiting, None)
            # Its error holds this frame: with it there would be a circle, for the garbage collector to find some day.
            del waiting

    def _look(self) -> None:
        """End what has waited for long enough. One timer for all: one for each would be most of what waiting costs."""
        self._timer = None
        for waiting in [each for each in self._waiting if each.deadline.remaining() <= 0 and not each.answer.done()]:
            is_outcome_unknown = waiting.is_sent and not self._is_repeatable
            error = StoreUnavailableError("no answer in time", is_outcome_unknown=is_outcome_unknown)
            waiting.answer.set_exception(error)
        if self._waiting and self._loop is not None:
            self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)

    async def _work(self) -> None:
        try:
            while some := self._next():
                await self._send(some)
                if self._is_crowded(some):
                    await self._let_come()
        finally:
            self._working = None

    def _is_crowded(self, some: Sequence[object]) -> bool:
        """Whether there are several who call, as what was sent last and what waits now show, or did a moment ago."""
        now = asyncio.get_running_loop().time()
        if len(some) > 1 or self._queue:
            self._crowded_until = now + _CROWDED_SECONDS
        return now < self._crowded_until

    async def _let_come(self) -> None:
        """Let those who were just answered be told, and others come: what is sent next is shared by more.

        Who is alone has nothing to wait for.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _LET_COME_SECONDS
        for _ in range(_TURNS):
            is_full = len(self._queue) >= self._max_requests or self._queued_size >= self._max_size
            if is_full or loop.time() >= until:
                return
            await asyncio.sleep(0)

    def _next(self) -> list[_Waiting[Request, Answer]]:
        some: list[_Waiting[Request, Answer]] = []
        size = 0
        while self._queue and len(some) < self._max_requests:
            waiting = next(iter(self._queue))
            size += waiting.size
            if some and size > self._max_size:
                break
            del self._queue[waiting]
            self._queued_size -= waiting.size
            # What is late is told so before long; not to have been sent is the better news.
            if not waiting.answer.done() and waiting.deadline.remaining() > 0:
                waiting.is_sent = True
                some.append(waiting)
        return some

    async def _send(self, some: list[_Waiting[Request, Answer]]) -> None:
        deadline = max((waiting.deadline for waiting in some), key=Deadline.remaining)
        try:
            with self._sharing.sending([each.mark for each in some]) if self._sharing is not None else _ALONE:
                answers = await self._carry_out([waiting.request for waiting in some], deadline)
            pairs = list(zip(some, answers, strict=True))
        except Exception as error:  # noqa: BLE001, whatever it was, nobody may be left to wait
            _log.exception("requests could not be carried out together")
            pairs = [(waiting, error) for waiting in some]
        for waiting, answer in pairs:
            _settle(waiting, answer)
            if waiting.answer.done():
                continue
            if isinstance(answer, Exception):
                waiting.answer.set_exception(answer)
            else:
                waiting.answer.set_result(answer)


def _settle(waiting: _Waiting[Request, Answer], answer: Answer | Exception | None) -> None:
    try:
        waiting.settle(answer)
    except Exception:  # noqa: BLE001, the others have to get their answers all the same
        _log.exception("a request could not be settled")
