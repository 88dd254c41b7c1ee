"""How an operation ends with its block: completed or given up; apart from I/O: flows (see `flows.py`)."""

import logging

from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status

from n0stack.protobuf.operation_pb2 import Operation
from operation_service.client import requests
from operation_service.client.errors import FencingTokenMismatchError, LockLostError, Loss, OperationServiceError
from operation_service.client.flows import Answer, Flow, exchange
from operation_service.client.keeping import how_lost
from operation_service.client.rpcs import COMPLETE
from operation_service.client.session import Session
from operation_service.client.tenure import Tenure

_log = logging.getLogger(__name__)

_LONGEST_TEXT = 4096
"""How much of an exception's text becomes the operation's error, in characters."""
_GIVEN_UP = Status(code=Code.CANCELLED, message="its process let go of it before it was done")


def leave(tenure: Tenure, session: Session, error: BaseException | None) -> Flow[None]:
    """End a block that holds: complete the operation, as succeeded or as failed.

    Args:
        tenure: The lock.
        session: Whose it is.
        error: What ended the block, and goes on its way afterwards. None: its own end.

    Raises:
        LockLostError: The lock was lost, and nothing else ended the block.
        OperationServiceError: The operation could not be completed, and nothing else ended the block.
    """
    failure = failure_of(error)
    try:
        tenure.check()
        tenure.end()
        yield from complete(tenure, session, failure)
    except OperationServiceError as found:
        if error is None:
            raise
        # What ended the block is what its caller has to know; this comes after it.
        if not isinstance(error, LockLostError):
            error.add_note(f"the operation could not be completed: {found}")


def give_up(tenure: Tenure, session: Session) -> Flow[None]:
    """Complete an operation as failed whose block has not ended: its process is about to let go of everything."""
    if tenure.is_over:
        return
    tenure.lose(Loss.GIVEN_UP)
    try:
        yield from complete(tenure, session, _GIVEN_UP)
    except OperationServiceError as error:
        _log.warning(
            "%s could not be completed, and stays locked until its time is over: %s", tenure.terms.resource, error
        )


def complete(
    tenure: Tenure, session: Session, failure: Status | None = None, log_message: str = ""
) -> Flow[Answer[Operation]]:
    """Complete the operation, and give the lock back.

    Raises:
        LockLostError: The lock was lost before.
        OperationServiceError: As the call failed; the lock then lasts until its time is over.
    """
    terms = tenure.terms
    request = requests.complete(session.token, terms.project, terms.name, error=failure, log_message=log_message)
    try:
        return (yield from exchange(COMPLETE, request, session.patience(), tenure.fencing_token))
    except FencingTokenMismatchError as error:
        # Not for a completion that was carried out and not answered, which the service knows again (ADR 7); unless
        # somebody has taken over since.
        lost = tenure.lose((yield from how_lost(tenure)), error)
        lost.may_have_been_carried_out = error.may_have_been_carried_out
        raise lost from error


def failure_of(error: BaseException | None) -> Status | None:
    """Return how an operation failed, of what ended the block that carried it out; None: it succeeded."""
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return None
    try:
        text = str(error)
    except Exception:  # noqa: BLE001, a caller's exception may do anything, and the lock has to be given back
        text = ""
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    # An exception's text may hold anything, also what is no Unicode.
    message = message[:_LONGEST_TEXT].encode(errors="replace").decode()
    is_stopped = not isinstance(error, Exception)
    return Status(code=Code.CANCELLED if is_stopped else Code.UNKNOWN, message=message)
