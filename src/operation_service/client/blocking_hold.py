"""A hold as a `with` block, kept by two threads: one renews, one watches."""

import threading
from types import TracebackType

from n0stack.protobuf.operation_pb2 import Operation
from operation_service.client import forks, holding
from operation_service.client.blocking import Channel, Steps
from operation_service.client.claims import Claim
from operation_service.client.errors import LockLostError
from operation_service.client.flows import Answer, Flow
from operation_service.client.held import Held
from operation_service.client.holding import Wanted
from operation_service.client.session import Session
from operation_service.client.tenure import LostCallback, Tenure


class Lost:
    """Tells when a lock is lost; like a threading.Event that only the lock's end can set.

    Args:
        tenure: The lock.
    """

    def __init__(self, tenure: Tenure) -> None:
        self._tenure = tenure
        self._is_over = threading.Event()
        tenure.when_over(self._is_over.set)

    def is_set(self) -> bool:
        """Whether the lock is lost. It looks at the clock: after a sleep past the deadline it is, at once."""
        return self._tenure.lost() is not None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the lock is lost or given back, or the seconds have passed; return whether it is lost."""
        # In a child of the process nobody would set the event.
        if not self.is_set():
            self._is_over.wait(timeout)
        return self.is_set()

    @property
    def error(self) -> LockLostError | None:
        """How the lock was lost, or None while it is not."""
        return self._tenure.lost()


class HeldOperation(Held):
    """An operation that this process holds.

    Attributes:
        lost: An event that is set when the lock is lost.
        proposed: The operation as it was when the lock was taken: with the request to carry out, and with the log of
            whoever held it before and did not finish.
    """

    def __init__(self, tenure: Tenure, proposed: Operation, session: Session, channel: Channel) -> None:
        super().__init__(tenure, proposed)
        self.lost = Lost(tenure)
        self._session = session
        self._channel = channel
        self._renewing = threading.Lock()

    def log(self, message: str) -> None:
        """Add a line to the operation's log.

        Args:
            message: The line, up to 4 KiB.

        Raises:
            LockLostError: The lock is lost; nothing was written.
            OperationServiceError: As the call failed. It is not repeated if its outcome is unknown, as the line could
                then stand there twice.
        """
        Steps(self._channel).run(holding.log(self._tenure, self._session, message))

    def renew(self, *, lock_for: int | None = None, disable_cancel: bool | None = None) -> None:
        """Renew the lock now, and from now on so.

        Args:
            lock_for: For how many seconds. None: as before.
            disable_cancel: Whether nobody may cancel the operation. None: as before.

        Raises:
            LockLostError: The lock is lost.
            OperationServiceError: As the call failed; the lock may last yet.
        """
        with self._renewing:
            terms = self._tenure.terms.changed(lock_for, disable_cancel)
            Steps(self._channel).run(holding.renew(self._tenure, self._session, terms))


class Hold:
    """What `with` takes: see `Client.hold`. It may be entered again, when it was left.

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
        channel: Channel,
        on_lost: LostCallback | None,
        entered: "set[Hold]",
    ) -> None:
        self._wanted = wanted
        self._session = session
        self._channel = channel
        self._on_lost = on_lost
        self._entered = entered
        self._claim: Claim | None = None
        self._tenure: Tenure | None = None
        self._left = threading.Event()
        self._generation = forks.generation()

    def __enter__(self) -> HeldOperation:
        # Of this entry alone: while the block lasts, another thread may try to enter this very hold.
        claim = Claim(self._wanted.terms.resource, self._session)
        answer = self._acquire(claim)
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
            self._hand_back(claim)
            raise
        self._claim, self._tenure, self._left = claim, tenure, threading.Event()
        self._generation = forks.generation()
        self._entered.add(self)
        return held

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tenure, claim, left = self._tenure, self._claim, self._left
        try:
            if tenure is not None:
                self._leave(tenure, error)
        finally:
            self._tenure, self._claim = None, None
            self._entered.discard(self)
            if claim is not None:
                claim.release()
            left.set()

    def give_up(self) -> None:
        """Complete the operation as failed, if it is held: this process is about to let go of everything."""
        tenure, left = self._tenure, self._left
        if tenure is None or self._generation != forks.generation():
            return
        Steps(self._channel).run(holding.give_up(tenure, self._session))
        if tenure.lost() is None:
            # Its block is just ending, in another thread, which needs the connection for that.
            left.wait(self._session.timeout)

    def _leave(self, tenure: Tenure, error: BaseException | None) -> None:
        try:
            Steps(self._channel).run(holding.leave(tenure, self._session, error))
        except BaseException as found:
            # Interrupted in the midst of the completion: whether it got through nobody knows.
            if not isinstance(found, Exception):
                Steps(self._channel).run(holding.hand_back(tenure.terms, self._session))
            raise

    def _acquire(self, claim: Claim) -> Answer[Operation]:
        try:
            return Steps(self._channel).run(holding.acquire(self._wanted, self._session, claim))
        except BaseException as error:
            if holding.may_be_held(error):
                self._hand_back(claim)
            else:
                claim.release()
            raise

    def _hand_back(self, claim: Claim) -> None:
        try:
            # Before the claim was taken nothing was proposed: the lock, if there is one, is another hold's.
            if claim.is_taken:
                Steps(self._channel).run(holding.hand_back(self._wanted.terms, self._session))
        finally:
            claim.release()

    def _keep(self, tenure: Tenure, held: HeldOperation) -> None:
        over = threading.Event()
        tenure.when_over(over.set)
        self._start("renews", holding.keep(tenure, self._session), Steps(self._channel, over.wait, held.renew))
        watching = Steps(self._channel, over.wait)
        tenure.when_over(watching.stream.close)
        self._start("watches", holding.watch_over(tenure), watching)

    def _start(self, what: str, flow: Flow[None], steps: Steps) -> None:
        name = f"{what} {self._wanted.terms.resource}"
        threading.Thread(target=steps.run, args=(flow,), name=name, daemon=True).start()
