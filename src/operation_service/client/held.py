"""What a holder has in its hands, whichever way it calls."""

from collections.abc import Sequence

from google.protobuf.any_pb2 import Any as AnyMessage

from n0stack.protobuf.operation_pb2 import Operation
from operation_service.client.errors import LockLostError
from operation_service.client.tenure import Tenure


class LostSign:
    """Says whether a lock is lost; how to wait for that is each client's own.

    Args:
        tenure: The lock.
    """

    def __init__(self, tenure: Tenure) -> None:
        self._tenure = tenure

    def is_set(self) -> bool:
        """Whether the lock is lost. It looks at the clock: after a sleep past the deadline it is, at once."""
        return self._tenure.lost() is not None

    @property
    def error(self) -> LockLostError | None:
        """How the lock was lost, or None while it is not."""
        return self._tenure.lost()


class Held:
    """An operation that this process holds.

    Attributes:
        proposed: The operation as it was when the lock was taken: with the request to carry out, and with the log of
            whoever held it before and did not finish.
    """

    def __init__(self, tenure: Tenure, proposed: Operation) -> None:
        self.proposed = proposed
        self._tenure = tenure

    @property
    def project(self) -> str:
        """The project of the resource."""
        return self._tenure.terms.project

    @property
    def name(self) -> str:
        """The name of the resource within its project."""
        return self._tenure.terms.name

    @property
    def operation_request(self) -> AnyMessage | None:
        """The request to carry out, if one was recorded."""
        return self.proposed.operation_request if self.proposed.HasField("operation_request") else None

    @property
    def logs(self) -> Sequence[Operation.Log]:
        """The newest 100 lines of the log, as they were when the lock was taken."""
        return self.proposed.logs

    @property
    def fencing_token(self) -> int:
        """The lock's fencing token, to be passed on to the resource with everything that is done to it.

        Raises:
            LockLostError: The lock is lost, or was given back; the error has the token.
        """
        self._tenure.check()
        return self._tenure.fencing_token

    @property
    def remaining(self) -> float:
        """How many seconds the lock lasts yet if it is not renewed, by this process's own clock; 0 if it is gone."""
        return self._tenure.remaining

    def check(self) -> None:
        """Raise if the lock is lost: for the moments before something that cannot be undone.

        Raises:
            LockLostError: It is, or was given back at the end of its block.
        """
        self._tenure.check()
