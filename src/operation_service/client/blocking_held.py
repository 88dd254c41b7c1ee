"""What a holder has in its hands in a `with` block."""

import threading

from n0stack.protobuf.operation_pb2 import Operation
from operation_service.client import keeping
from operation_service.client.blocking import Channel, Steps
from operation_service.client.held import Held, LostSign
from operation_service.client.session import Session
from operation_service.client.tenure import Tenure


class Lost(LostSign):
    """Tells when a lock is lost; like a threading.Event that only the lock's end can set.

    Args:
        tenure: The lock.
    """

    def __init__(self, tenure: Tenure) -> None:
        super().__init__(tenure)
        self._is_over = threading.Event()
        tenure.when_over(self._is_over.set)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the lock is lost or given back, or the seconds have passed; return whether it is lost."""
        # In a child of the process nobody would set the event.
        if not self.is_set():
            self._is_over.wait(timeout)
        return self.is_set()


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
        Steps(self._channel).run(keeping.log(self._tenure, self._session, message))

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
            Steps(self._channel).run(keeping.renew(self._tenure, self._session, terms))
