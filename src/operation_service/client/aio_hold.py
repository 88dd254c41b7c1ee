"""A hold as an `async with` block, kept by two tasks: one renews, one watches."""

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType

from operation_service.client import acquiring, keeping, leaving
from operation_service.client.acquiring import Wanted
from operation_service.client.aio import AsyncChannel, AsyncSteps
from operation_service.client.aio_held import AsyncHeldOperation
from operation_service.client.claims import Claim
from operation_service.client.loops import in_loop, to_its_end
from operation_service.client.session import Session
from operation_service.client.tenure import LostCallback, Tenure


class AsyncEntry:
    """One entry into a hold, from its first proposal to the end of its block.

    Args:
        wanted: What to acquire.
        session: Whose it is.
        channel: The connection.
        on_lost: Called once with the error if the lock is lost.
        entries: Where this entry is for as long as it lasts.
    """

    def __init__(
        self,
        wanted: Wanted,
        session: Session,
        channel: AsyncChannel,
        on_lost: LostCallback | None,
        entries: "set[AsyncEntry]",
    ) -> None:
        self._wanted = wanted
        self._session = session
        self._channel = channel
        self._on_lost = on_lost
        # Of this entry alone: while the block lasts, another task may try to enter the very same hold.
        self._claim = Claim(wanted.terms.resource, session)
        self._acquiring = AsyncSteps(channel)
        self._tenure: Tenure | None = None
        self._is_settled = asyncio.Event()
        self._has_left = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._entries = entries
        entries.add(self)

    async def begin(self) -> AsyncHeldOperation:
        """Take the lock, and begin to keep it.

        Raises:
            OperationServiceError: It was not to be had.
        """
        try:
            held = await self._acquire()
        except BaseException as error:
            await to_its_end(self._undo(error))
            raise
        self._is_settled.set()
        return held

    async def leave(self, error: BaseException | None) -> None:
        """Complete the operation. Who cancels the task meanwhile does not cancel that.

        Args:
            error: What ended the block.

        Raises:
            LockLostError: The lock was lost, and nothing else ended the block.
            OperationServiceError: The operation could not be completed, and nothing else ended the block.
        """
        if (tenure := self._tenure) is not None:
            await to_its_end(self._leave(tenure, error))

    async def give_up(self) -> None:
        """Complete the operation as failed, if it is held: its client is about to be closed."""
        if self._acquiring.is_sending:
            # A proposal is under way: with its answer it is known what there is to give up.
            await _wait(self._is_settled, acquiring.LAST_WORDS_SECONDS)
        tenure = self._tenure
        if tenure is None:
            return
        await AsyncSteps(self._channel).run(leaving.give_up(tenure, self._session))
        if tenure.lost() is None:
            # Its block is just ending, in another task, which needs the connection for that.
            await _wait(self._has_left, self._session.timeout)

    async def _acquire(self) -> AsyncHeldOperation:
        answer = await self._acquiring.run(acquiring.acquire(self._wanted, self._session, self._claim))
        tenure = Tenure(
            self._wanted.terms,
            answer.fencing_token,
            answer.sent_at,
            clock=self._session.clock,
            on_lost=self._on_lost,
        )
        held = AsyncHeldOperation(tenure, answer.message, self._session, self._channel)
        renewing = AsyncSteps(self._channel, held.renew).run(keeping.keep(tenure, self._session))
        watching = AsyncSteps(self._channel).run(keeping.watch_over(tenure))
        self._tasks = [asyncio.create_task(renewing), asyncio.create_task(watching)]
        for task in self._tasks:
            tenure.when_over(in_loop(task.cancel))
        self._tenure = tenure
        return held

    async def _undo(self, error: BaseException) -> None:
        try:
            # Before the claim was taken nothing was proposed: the lock, if there is one, is another hold's.
            if self._claim.is_taken and acquiring.may_be_held(error):
                await AsyncSteps(self._channel).run(acquiring.hand_back(self._wanted.terms, self._session))
        finally:
            self._claim.release()
            self._is_settled.set()
            self._entries.discard(self)

    async def _leave(self, tenure: Tenure, error: BaseException | None) -> None:
        try:
            await AsyncSteps(self._channel).run(leaving.leave(tenure, self._session, error))
        except asyncio.CancelledError:
            # The event loop is about to end: whether the completion got through nobody knows.
            await AsyncSteps(self._channel).run(acquiring.hand_back(tenure.terms, self._session))
            raise
        finally:
            self._claim.release()
            self._has_left.set()
            self._entries.discard(self)
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)


class AsyncHold:
    """What `async with` takes: see `AsyncClient.hold`. It may be entered again, when it was left.

    Args:
        enter: Makes an entry.
    """

    def __init__(self, enter: Callable[[], AsyncEntry]) -> None:
        self._enter = enter
        self._entry: AsyncEntry | None = None

    async def __aenter__(self) -> AsyncHeldOperation:
        entry = self._enter()
        held = await entry.begin()
        self._entry = entry
        return held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entry, self._entry = self._entry, None
        if entry is not None:
            await entry.leave(error)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
