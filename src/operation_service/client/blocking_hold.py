"""A hold as a `with` block, kept by two threads: one renews, one watches."""

import threading
from collections.abc import Callable
from types import TracebackType

from operation_service.client import acquiring, forks, keeping, leaving
from operation_service.client.acquiring import Wanted
from operation_service.client.blocking import Channel, Steps
from operation_service.client.blocking_held import HeldOperation
from operation_service.client.claims import Claim
from operation_service.client.flows import Flow
from operation_service.client.session import Session
from operation_service.client.tenure import LostCallback, Tenure


class Entry:
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
        channel: Channel,
        on_lost: LostCallback | None,
        entries: "set[Entry]",
    ) -> None:
        self._wanted = wanted
        self._session = session
        self._channel = channel
        self._on_lost = on_lost
        # Of this entry alone: while the block lasts, another thread may try to enter the very same hold.
        self._claim = Claim(wanted.terms.resource, session)
        self._acquiring = Steps(channel)
        self._tenure: Tenure | None = None
        self._is_settled = threading.Event()
        self._has_left = threading.Event()
        self._generation = forks.generation()
        self._entries = entries
        entries.add(self)

    def begin(self) -> HeldOperation:
        """Take the lock, and begin to keep it.

        Raises:
            OperationServiceError: It was not to be had.
        """
        try:
            held = self._acquire()
        except BaseException as error:
            self._undo(error)
            raise
        self._is_settled.set()
        return held

    def leave(self, error: BaseException | None) -> None:
        """Complete the operation.

        Args:
            error: What ended the block.

        Raises:
            LockLostError: The lock was lost, and nothing else ended the block.
            OperationServiceError: The operation could not be completed, and nothing else ended the block.
        """
        tenure = self._tenure
        if tenure is None:
            return
        try:
            Steps(self._channel).run(leaving.leave(tenure, self._session, error))
        except BaseException as found:
            # Interrupted in the midst of the completion: whether it got through nobody knows.
            if not isinstance(found, Exception):
                Steps(self._channel).run(acquiring.hand_back(tenure.terms, self._session))
            raise
        finally:
            self._claim.release()
            self._has_left.set()
            self._entries.discard(self)

    def give_up(self) -> None:
        """Complete the operation as failed, if it is held: this process is about to let go of everything."""
        if self._generation != forks.generation():
            return
        if self._acquiring.is_sending:
            # A proposal is under way: with its answer it is known what there is to give up.
            self._is_settled.wait(acquiring.LAST_WORDS_SECONDS)
        tenure = self._tenure
        if tenure is None:
            return
        Steps(self._channel).run(leaving.give_up(tenure, self._session))
        if tenure.lost() is None:
            # Its block is just ending, in another thread, which needs the connection for that.
            self._has_left.wait(self._session.timeout)

    def _acquire(self) -> HeldOperation:
        answer = self._acquiring.run(acquiring.acquire(self._wanted, self._session, self._claim))
        tenure = Tenure(
            self._wanted.terms,
            answer.fencing_token,
            answer.sent_at,
            clock=self._session.clock,
            on_lost=self._on_lost,
        )
        held = HeldOperation(tenure, answer.message, self._session, self._channel)
        try:
            self._keep(tenure, held)
        except BaseException:
            # No thread is to be had, say: one alone would renew for ever what nobody has.
            tenure.end()
            Steps(self._channel).run(acquiring.hand_back(tenure.terms, self._session))
            raise
        self._tenure = tenure
        return held

    def _undo(self, error: BaseException) -> None:
        try:
            # Before the claim was taken nothing was proposed: the lock, if there is one, is another hold's.
            if self._claim.is_taken and acquiring.may_be_held(error):
                Steps(self._channel).run(acquiring.hand_back(self._wanted.terms, self._session))
        finally:
            self._claim.release()
            self._is_settled.set()
            self._entries.discard(self)

    def _keep(self, tenure: Tenure, held: HeldOperation) -> None:
        over = threading.Event()
        tenure.when_over(over.set)
        self._start("renews", keeping.keep(tenure, self._session), Steps(self._channel, over.wait, held.renew))
        watching = Steps(self._channel, over.wait)
        tenure.when_over(watching.stream.close)
        self._start("watches", keeping.watch_over(tenure), watching)

    def _start(self, what: str, flow: Flow[None], steps: Steps) -> None:
        name = f"{what} {self._wanted.terms.resource}"
        threading.Thread(target=steps.run, args=(flow,), name=name, daemon=True).start()


class Hold:
    """What `with` takes: see `Client.hold`. It may be entered again, when it was left.

    Args:
        enter: Makes an entry.
    """

    def __init__(self, enter: Callable[[], Entry]) -> None:
        self._enter = enter
        self._entry: Entry | None = None

    def __enter__(self) -> HeldOperation:
        entry = self._enter()
        held = entry.begin()
        self._entry = entry
        return held

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entry, self._entry = self._entry, None
        if entry is not None:
            entry.leave(error)
