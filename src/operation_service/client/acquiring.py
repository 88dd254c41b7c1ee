"""How a lock is acquired, and let go if nobody knows whether it was; apart from I/O: flows (see `flows.py`)."""

import logging
import math
from dataclasses import dataclass

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import Operation
from operation_service.client import requests
from operation_service.client.claims import Claim
from operation_service.client.errors import (
    FencingTokenMismatchError,
    LockedError,
    NotFoundError,
    OperationCancelledError,
    OperationServiceError,
)
from operation_service.client.flows import Answer, Await, Flow, Open, Patience, Read, Rest, backoff, exchange
from operation_service.client.rpcs import GET, PROPOSE, WATCH
from operation_service.client.session import Session
from operation_service.client.terms import Terms

_log = logging.getLogger(__name__)

_SLACK_SECONDS = 2.5
"""After its time a lock may last so long yet (CONTRACT rule 12)."""
LAST_WORDS_SECONDS = 2.0
"""How long a lock that nobody knows to have is looked for, to be given back."""


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

    def __post_init__(self) -> None:
        if self.wait is not None and not self.wait >= 0:
            raise ValueError(f"wait must be 0 seconds or more, or None for ever, not {self.wait}")


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
    while not session.is_closing:
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
    raise OperationServiceError(f"this client was closed while it waited for {terms.resource}")


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
    patience = Patience(session.clock, session.clock() + LAST_WORDS_SECONDS, 1.0)
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
