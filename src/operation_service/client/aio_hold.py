"""A hold as an `async with` block, kept by two tasks: one renews, one watches."""

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType

from n0stack.protobuf.operation_pb2 import Operation
from operation_service.client import holding
from operation_service.client.aio import AsyncChannel, AsyncSteps
from operation_service.client.claims import Claim
from operation_service.client.errors import LockLostError
from operation_service.client.flows import Answer
from operation_service.client.held import Held
from operation_service.client.holding import Wanted
from operation_service.client.session import Session
from operation_service.client.tenure import LostCallback, Tenure


class AsyncLost:
    """Tells when a lock is lost; like an asyncio.Event that only the lock's end can set.

    Args:
        tenure: The lock.
    """

    def __init__(self, tenure: Tenure) -> None:
        self._tenure = tenure
        self._is_over = asyncio.Event()
        tenure.when_over(_in_loop(self._is_over.set))

    def is_set(self) -> bool:
        """Whether the lock is lost. It looks at the clock: after a sleep past the deadline it is, at once."""
        return self._tenure.lost() is not None

    async def wait(self) -> bool:
        """Wait until the lock is lost or given back; return whether it is lost."""
        if not self.is_set():
            await self._is_over.wait()
        return self.is_set()

    @property
    def error(self) -> LockLostError | None:
        """How the lock was lost, or None while it is not."""
        return self._tenure.lost()


class AsyncHeldOperation(Held):
    """An operation that this process holds.

    Attributes:
        lost: An event that is set when the lock is lost.
        proposed: The operation as it was when the lock was taken: with the request to carry out, and with the log of
            whoever held it before and did not finish.
    """

    def __init__(self, tenure: Tenure, proposed: Operation, session: Session, channel: AsyncChannel) -> None:
        super().__init__(tenure, proposed)
        self.lost = AsyncLost(tenure)
        self._session = session
        self._channel = channel
        self._renewing = asyncio.Lock()

    async def log(self, message: str) -> None:
        """Add a line to the operation's log.

        Args:
            message: The line, up to 4 KiB.

        Raises:
            LockLostError: The lock is lost; nothing was written.
            OperationServiceError: As the call failed. It is not repeated if its outcome is unknown, as the line could
                then stand there twice.
        """
        await AsyncSteps(self._channel).run(holding.log(self._tenure, self._session, message))

    async def renew(self, *, lock_for: int | None = None, disable_cancel: bool | None = None) -> None:
        """Renew the lock now, and from now on so.

        Args:
            lock_for: For how many seconds. None: as before.
            disable_cancel: Whether nobody may cancel the operation. None: as before.

        Raises:
            LockLostError: The lock is lost.
            OperationServiceError: As the call failed; the lock may last yet.
        """
        async with self._renewing:
            terms = self._tenure.terms.changed(lock_for, disable_cancel)
            await AsyncSteps(self._channel).run(holding.renew(self._tenure, self._session, terms))


class AsyncHold:
    """What `async with` takes: see `AsyncClient.hold`. It may be entered again, when it was left.

    Args:
        wanted: What to acquire.
        session: Whose it is.
        channel: The connection.
        on_lost: Called once with the error if the lock is lost.
        entered: Where a hold is for as long as its block lasts.
    """

    def __init__(
        self,
        wanted: Wanted,
        session: Session,
        channel: AsyncChannel,
        on_lost: LostCallback | None,
        entered: "set[AsyncHold]",
    ) -> None:
        self._wanted = wanted
        self._session = session
        self._channel = channel
        self._on_lost = on_lost
        self._entered = entered
        self._claim: Claim | None = None
        self._tenure: Tenure | None = None
        self._left = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> AsyncHeldOperation:
        # Of this entry alone: while the block lasts, another task may try to enter this very hold.
        claim = Claim(self._wanted.terms.resource, self._session)
        answer = await self._acquire(claim)
        tenure = Tenure(
            self._wanted.terms,
            answer.fencing_token,
            answer.sent_at,
            clock=self._session.clock,
            on_lost=self._on_lost,
        )
        held = AsyncHeldOperation(tenure, answer.message, self._session, self._channel)
        keeping = AsyncSteps(self._channel, held.renew).run(holding.keep(tenure, self._session))
        watching = AsyncSteps(self._channel).run(holding.watch_over(tenure))
        self._tasks = [asyncio.create_task(keeping), asyncio.create_task(watching)]
        for task in self._tasks:
            tenure.when_over(_in_loop(task.cancel))
        self._claim, self._tenure, self._left = claim, tenure, asyncio.Event()
        self._entered.add(self)
        return held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tenure, claim, left = self._tenure, self._claim, self._left
        tasks, self._tasks = self._tasks, []
        try:
            if tenure is not None:
                await self._leave(tenure, error)
        finally:
            self._tenure, self._claim = None, None
            self._entered.discard(self)
            if claim is not None:
                claim.release()
            left.set()
            await _stop(tasks)

    async def give_up(self) -> None:
        """Complete the operation as failed, if it is held: its client is about to be closed."""
        tenure, left = self._tenure, self._left
        if tenure is None:
            return
        await AsyncSteps(self._channel).run(holding.give_up(tenure, self._session))
        if tenure.lost() is None:
            # Its block is just ending, in another task, which needs the connection for that.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._session.timeout):
                    await left.wait()

    async def _leave(self, tenure: Tenure, error: BaseException | None) -> None:
        try:
            await AsyncSteps(self._channel).run(holding.leave(tenure, self._session, error))
        except asyncio.CancelledError:
            # In the midst of the completion, by a timeout around the block say: whether it got through nobody knows.
            await AsyncSteps(self._channel).run(holding.hand_back(tenure.terms, self._session))
            raise

    async def _acquire(self, claim: Claim) -> Answer[Operation]:
        try:
            return await AsyncSteps(self._channel).run(holding.acquire(self._wanted, self._session, claim))
        except BaseException as error:
            try:
                # Before the claim was taken nothing was proposed: the lock, if there is one, is another hold's.
                if claim.is_taken and holding.may_be_held(error):
                    await AsyncSteps(self._channel).run(holding.hand_back(self._wanted.terms, self._session))
            finally:
                claim.release()
            raise


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _in_loop(action: Callable[[], object]) -> Callable[[], None]:
    """Return what has something done in this event loop, from whichever thread, after what is being done now."""
    loop = asyncio.get_running_loop()

    def soon() -> None:
        # A loop that was closed meanwhile has nobody in it who would want to know.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(action)

    return soon
