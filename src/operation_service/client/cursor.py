"""Where a watch stands, so that it can be resumed."""

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.client.errors import (
    OperationServiceError,
    OverloadedError,
    UnavailableError,
    WatchEndedError,
)
from operation_service.client.flows import backoff
from operation_service.client.session import Session


class Cursor:
    """Knows from which revision on a watch has to go on, and whether it can.

    Args:
        request: What is watched, and from which revision on at first.
        session: Whose watch it is: one that cannot be begun is given up after its timeout; one that stood once goes on
            until its reader ends it, however long the service is away.
    """

    def __init__(self, request: pb.WatchOperationsRequest, session: Session) -> None:
        self._request = request
        self._patience = session.patience()
        self._has_stood = False
        self._failures = 0

    def request(self) -> pb.WatchOperationsRequest:
        """Return what to ask for now."""
        return self._request

    def stands(self) -> None:
        """Note that the service has taken on the watch."""
        self._has_stood = True

    def saw(self, told: pb.WatchOperationsResponse) -> None:
        """Note a message: everything up to its revision has been told with it."""
        self._has_stood = True
        self._failures = 0
        # While a watch that begins with what is there tells of it, revision 0 says that nothing is told in full yet.
        if told.revision:
            self._request.start_revision = told.revision + 1

    def pause_after(self, error: OperationServiceError) -> float:
        """Return after how many seconds to go on.

        Args:
            error: What ended the stream.

        Raises:
            OperationServiceError: The error itself, if going on makes no sense.
        """
        if not isinstance(error, UnavailableError | OverloadedError | WatchEndedError):
            raise error
        self._failures += 1
        pause = backoff(self._failures, error.retry_after or 0.0)
        if not self._has_stood and pause >= self._patience.left():
            raise error
        if isinstance(error, WatchEndedError) and error.resume_revision:
            self._request.start_revision = error.resume_revision
        return pause
