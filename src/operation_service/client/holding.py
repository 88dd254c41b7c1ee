"""How a lock is acquired, kept, watched over and given back, apart from I/O: flows (see `flows.py`)."""

import logging
import math
from dataclasses import dataclass

from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import Operation
from operation_service.client import requests
from operation_service.client.claims import Claim
from operation_service.client.errors import (
    FencingTokenMismatchError,
    LockedError,
    LockLostError,
    Loss,
    NotFoundError,
    OperationCancelledError,
    OperationServiceError,
)
from operation_service.client.flows import (
    ATTEMPT_SECONDS,
    Answer,
    Await,
    Flow,
    Open,
    Patience,
    Read,
    Renew,
    Rest,
    backoff,
    exchange,
)
from operation_service.client.rpcs import APPEND, COMPLETE, GET, PROPOSE, WATCH
from operation_service.client.session import Session
from operation_service.client.tenure import Tenure
from operation_service.client.terms import Terms

_log = logging.getLogger(__name__)

_SLACK_SECONDS = 2.5
"""After its time a lock may last so long yet (CONTRACT rule 12)."""
_LAST_WORDS_SECONDS = 2.0
"""How long a lock that nobody knows to have is looked for, to be given back."""
_LONGEST_TEXT = 4096
"""How much of an exception's text becomes the operation's error, in characters."""

_GIVEN_UP = Status(code=Code.CANCELLED, message="its process let go of it before it was done")
_LOSSES = {
    # A new operation: the one of the lock is over, or there would be none.
    pb.OPERATION_STATE_PENDING: Loss.EXPIRED,
    pb.OPERATION_STATE_EXPIRED: Loss.EXPIRED,
    pb.OPERATION_STATE_OPERATOR_DEAD: Loss.EXPIRED,
    pb.OPERATION_STATE_SUCCEEDED: Loss.COMPLETED,
    pb.OPERATION_STATE_FAILED: Loss.COMPLETED,
    pb.OPERATION_STATE_CANCELLED: Loss.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """An acquisition.

    Attributes:
        terms: What to ask for.
        wait: For how many seconds to wait for a resource that is locked. None: for ever.
        log_message: The first line of the log. Empty: none.
    """

    terms: Terms
    wait: float | None
    log_message: str


def acquire(wanted: Wanted, session: Session, claim: Claim) -> Flow[Answer[Operation]]:
    """Take the lock; wait for it as long as wanted, woken by a watch.

    Args:
        wanted: What to take, and how long to wait for it.
        session: For whom.
        claim: The resource within this process; it is taken too, and stays so if the acquisition fails.

    Raises:
        HeldHereError: Another hold of this process did not end in time.
        LockedError: The resource did not become free in time.
        OperationServiceError: As the proposal failed.
    """
    clock, terms = session.clock, wanted.terms
    wait_until = math.inf if wanted.wait is None else clock() + wanted.wait
    while (other := claim.try_take()) is not None:
        if clock() >= wait_until:
            raise claim.held_here()
        yield Await(other, wait_until - clock())
    patience = Patience(clock, max(wait_until, clock() + session.timeout))
    while True:
        request = requests.propose(session.token, terms, wanted.log_message)
        try:
            return (yield from exchange(PROPOSE, request, patience))
        except LockedError as error:
            if clock() >= wait_until:
                raise
            yield from _await_free(terms, session, until=wait_until, free_in=error.retry_after or 0.0)
        except OperationCancelledError as error:
            pause = error.retry_after or 1.0
            if clock() + pause >= wait_until:
                raise
            yield Rest(pause)


def _await_free(terms: Terms, session: Session, *, until: float, free_in: float) -> Flow[None]:
    """Wait until the resource is worth another proposal: a watch says that it is free, or the lock's time is over."""
    clock = session.clock
    free_at = clock() + free_in + _SLACK_SECONDS
    request = pb.WatchOperationsRequest(project=terms.project, name_prefix=terms.name)
    while (limit := min(until, free_at)) > clock():
        try:
            # It begins with what is there: nothing that happens after the refusal is missed.
            yield Open(WATCH, request, limit - clock())
            while True:
                told: pb.WatchOperationsResponse = yield Read()
                # The prefix finds longer names too.
                if told.operation.name != terms.name:
                    continue
                if told.operation.state != pb.OPERATION_STATE_LOCKED:
                    return
                free_at = clock() + told.operation.remaining.ToTimedelta().total_seconds() + _SLACK_SECONDS
        except OperationServiceError as error:
            # The stream's own end is the limit. Before it there is no watch to be had just now: then it is asked anew,
            # after a while.
            if (left := limit - clock()) > 0:
                yield Rest(min(left, backoff(4, error.retry_after or 0.0)))
                return


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
        raise tenure.lose((yield from _how_lost(tenure, session)), error) from error
    tenure.renewed(answer.sent_at, terms)
    return answer


def keep(tenure: Tenure, session: Session) -> Flow[None]:
    """Renew the lock at a third of its time, again and again, until it is given back or lost."""
    failures, again_at = 0, -math.inf
    while not tenure.is_over:
        left = min(max(tenure.renew_at, again_at), tenure.deadline) - session.clock()
        if left > 0:
            yield Rest(left)
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


def _how_lost(tenure: Tenure, session: Session) -> Flow[Loss]:
    request = pb.GetOperationRequest(project=tenure.terms.project, name=tenure.terms.name)
    try:
        record = (yield from exchange(GET, request, Patience(session.clock, session.clock(), 1.0))).message
    except OperationServiceError:
        return Loss.EXPIRED
    return loss_in(record, tenure.fencing_token) or Loss.EXPIRED


def loss_in(record: pb.OperationRecord, fencing_token: int) -> Loss | None:
    """Return what a record says about a lock: how it was lost, or None if the resource is still locked with it."""
    if record.fencing_token > fencing_token:
        return Loss.TAKEN_OVER
    return _LOSSES.get(record.state)


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
        # Not for a completion that was carried out and not answered: the service knows it again (ADR 7).
        raise tenure.lose((yield from _how_lost(tenure, session)), error) from error


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
        raise tenure.lose((yield from _how_lost(tenure, session)), error) from error


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


def may_be_held(error: BaseException) -> bool:
    """Return whether an acquisition that failed so may have taken the lock all the same."""
    if isinstance(error, OperationServiceError):
        return error.may_have_been_carried_out
    # An interrupt, or the end of an asyncio task, may come while an answer is on its way.
    return not isinstance(error, Exception)


def hand_back(terms: Terms, session: Session) -> Flow[None]:
    """Let a lock go that a proposal may have taken whose answer nobody has: it runs out within seconds.

    The operation is not completed, as it was never begun: another operator may take over what it was about.
    """
    patience = Patience(session.clock, session.clock() + _LAST_WORDS_SECONDS, 1.0)
    request = pb.GetOperationRequest(project=terms.project, name=terms.name)
    try:
        record = (yield from exchange(GET, request, patience)).message
        is_ours = record.operation.proposing_peer_token == session.token
        if record.state == pb.OPERATION_STATE_LOCKED and is_ours:
            shortest = requests.propose(session.token, terms.changed(lock_for=1, disable_cancel=False))
            yield from exchange(PROPOSE, shortest, patience, record.fencing_token)
    except (NotFoundError, FencingTokenMismatchError):
        # It is gone already: a completion that was under way too got through, say.
        pass
    except OperationServiceError as error:
        _log.warning("%s may stay locked until %d s have passed: %s", terms.resource, terms.lock_for, error)


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
