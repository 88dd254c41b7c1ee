"""How a lock is kept: renewed, watched over, and lost; apart from I/O: flows (see `flows.py`)."""

import math

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import Operation
from operation_service.client import requests
from operation_service.client.errors import (
    FencingTokenMismatchError,
    LockedError,
    LockLostError,
    Loss,
    OperationCancelledError,
    OperationServiceError,
)
from operation_service.client.flows import (
    ATTEMPT_SECONDS,
    Answer,
    Flow,
    Open,
    Patience,
    Read,
    Renew,
    Rest,
    Send,
    backoff,
    exchange,
)
from operation_service.client.rpcs import APPEND, GET, PROPOSE, WATCH
from operation_service.client.session import Session
from operation_service.client.tenure import Tenure
from operation_service.client.terms import Terms

_LONGEST_REST_SECONDS = 5.0
_ASK_SECONDS = 1.0

_LOSSES = {
    # A new operation: the one of the lock is over, or there would be none.
    pb.OPERATION_STATE_PENDING: Loss.EXPIRED,
    pb.OPERATION_STATE_EXPIRED: Loss.EXPIRED,
    pb.OPERATION_STATE_OPERATOR_DEAD: Loss.EXPIRED,
    pb.OPERATION_STATE_SUCCEEDED: Loss.COMPLETED,
    pb.OPERATION_STATE_FAILED: Loss.COMPLETED,
    pb.OPERATION_STATE_CANCELLED: Loss.CANCELLED,
}


def renew(tenure: Tenure, session: Session, terms: Terms) -> Flow[Answer[Operation]]:
    """Renew the lock, with its fencing token as the precondition.

    Args:
        tenure: The lock.
        session: Whose it is.
        terms: For how long from now on, and whether it may be cancelled.

    Raises:
        LockLostError: It is not this lock any more that the resource is locked with.
        OperationServiceError: As the proposal failed, for as long as the lock lasted; it may last yet.
    """
    tenure.check()
    # First of all, as it raises if the terms are no numbers that can be sent.
    request = requests.propose(session.token, terms)
    tenure.renewing(terms)
    # A renewal that takes a quarter of the lock's time has failed: there must be time for others.
    attempt = max(min(terms.lock_for / 4, ATTEMPT_SECONDS), 0.25)
    patience = Patience(session.clock, tenure.deadline, attempt)
    try:
        answer = yield from exchange(PROPOSE, request, patience, tenure.fencing_token)
    except (FencingTokenMismatchError, LockedError, OperationCancelledError) as error:
        raise tenure.lose((yield from how_lost(tenure)), error) from error
    tenure.renewed(answer.sent_at, terms)
    return answer


def keep(tenure: Tenure, session: Session) -> Flow[None]:
    """Renew the lock at a third of its time, again and again, until it is given back or lost."""
    failures, again_at = 0, -math.inf
    while not tenure.is_over:
        left = min(max(tenure.renew_at, again_at), tenure.deadline) - session.clock()
        if left > 0:
            # Waits do not count the time that the machine was suspended; this clock does.
            yield Rest(min(left, _LONGEST_REST_SECONDS))
            continue
        try:
            yield Renew()
        except LockLostError:
            return
        except OperationServiceError as error:
            # Whatever it was, etcd without space say: the lock lasts until its deadline, and others may mend it.
            tenure.renewal_failed(error)
            failures += 1
            again_at = session.clock() + backoff(failures, error.retry_after or 0.0)
        else:
            failures = 0


def watch_over(tenure: Tenure) -> Flow[None]:
    """Watch the resource for as long as the lock lasts, and note the loss of the lock as soon as it is told."""
    request = pb.WatchOperationsRequest(project=tenure.terms.project, name_prefix=tenure.terms.name)
    failures = 0
    while not tenure.is_over:
        try:
            yield Open(WATCH, request, None)
            while not tenure.is_over:
                told: pb.WatchOperationsResponse = yield Read()
                failures = 0
                if told.operation.name != tenure.terms.name:
                    continue
                if loss := loss_in(told.operation, tenure.fencing_token):
                    tenure.lose(loss)
        except OperationServiceError as error:
            # Without a watch, renewals still find out.
            failures += 1
            if (yield Rest(backoff(failures, error.retry_after or 0.0))):
                return


def log(tenure: Tenure, session: Session, message: str) -> Flow[None]:
    """Add a line to the operation's log.

    Raises:
        LockLostError: The lock is lost.
        OperationServiceError: As the call failed.
    """
    tenure.check()
    request = requests.append(session.token, tenure.terms.project, tenure.terms.name, message)
    try:
        yield from exchange(APPEND, request, session.patience(), tenure.fencing_token)
    except FencingTokenMismatchError as error:
        raise tenure.lose((yield from how_lost(tenure)), error) from error


def how_lost(tenure: Tenure) -> Flow[Loss]:
    """Ask how a lock was lost that the resource is not locked with any more."""
    request = pb.GetOperationRequest(project=tenure.terms.project, name=tenure.terms.name)
    try:
        # Once, and not for long: that the lock is lost has to be said soon, why can be left out.
        answer: Answer[pb.OperationRecord] = yield Send(GET, request, None, _ASK_SECONDS)
    except OperationServiceError:
        return Loss.EXPIRED
    return loss_in(answer.message, tenure.fencing_token) or Loss.EXPIRED


def loss_in(record: pb.OperationRecord, fencing_token: int) -> Loss | None:
    """Return what a record says about a lock: how it was lost, or None if the resource is still locked with it."""
    if record.fencing_token > fencing_token:
        return Loss.TAKEN_OVER
    return _LOSSES.get(record.state)
