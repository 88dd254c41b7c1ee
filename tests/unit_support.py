"""Words for the unit tests: what is known of a resource, what is asked for, and clocks that move only when pushed."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from operation_service.model import (
    Append,
    Caller,
    Cancel,
    Command,
    Complete,
    Create,
    Event,
    Lock,
    Log,
    Phase,
    Propose,
    Record,
    Resource,
    Snapshot,
)

RESOURCE = Resource("project", "virtual_machines/web-1")
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
"""When what is asked for is decided."""
SINCE = NOW - timedelta(seconds=20)
UNTIL = NOW + timedelta(seconds=40)
REMAINING = timedelta(seconds=39)
"""Not UNTIL - NOW: the time left is measured, and the policy must not work it out from a wall clock."""
SELF, OTHER = "peer-self", "peer-other"
HOLDER = "192.0.2.1:51234"
"""Who SELF was when it took the lock."""
CALLER = "192.0.2.7:40000"
"""Who calls now; a peer that has connected anew has another address."""
FENCE = 41
NEWEST_LOG = Log(SINCE, "the newest log")


async def turns_until(is_true: Callable[[], object]) -> None:
    """Let the event loop turn until something is true; the turn is what counts."""
    for _ in range(10_000):
        if is_true():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never comes true")


class FakeClock:
    """Clocks that stand still until they are pushed, each by itself."""

    def __init__(self) -> None:
        self.wall = NOW
        self.seconds = 1_000.0

    def push(self, *, wall: float = 0.0, monotonic: float = 0.0) -> None:
        """Push them by seconds, the wall clock backwards too."""
        self.wall += timedelta(seconds=wall)
        self.seconds += monotonic

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds


def a_lock(**changes: Any) -> Lock:
    """SELF's lock, with changes."""
    lock = Lock(
        token=SELF, holder=HOLDER, locked_since=SINCE, locked_until=UNTIL, ttl_seconds=60, is_disabled_cancel=False
    )
    return replace(lock, **changes)


def a_record(**changes: Any) -> Record:
    """An operation that SELF created and took up, with changes."""
    record = Record(
        operation_id="operation-1",
        phase=Phase.PROPOSED,
        event=Event.LOGGED,
        change_id="change-1",
        lock=a_lock(),
        fencing_token=FENCE,
        creator=HOLDER,
        creator_token=SELF,
        request_digest="digest",
        log_count=2,
        last_log=NEWEST_LOG,
    )
    return replace(record, **changes)


NEVER = Snapshot(revision=50, is_confirmed=True)
"""There is nothing."""


def pending(**changes: Any) -> Snapshot:
    """SELF has created an operation; nobody has proposed."""
    record = a_record(phase=Phase.PENDING, event=Event.CREATED, lock=None, fencing_token=0)
    return replace(NEVER, record=replace(record, **changes), record_revision=45)


def locked(*, is_disabled_cancel: bool = False, **changes: Any) -> Snapshot:
    """SELF holds the lock."""
    lock = a_lock(is_disabled_cancel=is_disabled_cancel)
    return replace(
        NEVER,
        record=a_record(lock=lock, **changes),
        record_revision=45,
        lock=lock,
        lock_revision=44,
        lock_lease=7,
        fencing_token=FENCE,
        remaining=REMAINING,
    )


def expired(*, is_disabled_cancel: bool = False, **changes: Any) -> Snapshot:
    """SELF's lock has run out."""
    record = a_record(lock=a_lock(is_disabled_cancel=is_disabled_cancel), **changes)
    return replace(NEVER, record=record, record_revision=45)


def over(phase: Phase, **changes: Any) -> Snapshot:
    """SELF's operation is over."""
    record = a_record(phase=phase, event=Event(phase.value), **changes)
    return replace(NEVER, record=record, record_revision=45)


def without_record() -> Snapshot:
    """SELF holds the lock, and somebody has deleted the record by hand."""
    return replace(locked(), record=None, record_revision=0)


def cancelled_peer(snapshot: Snapshot) -> Snapshot:
    """The same to a caller whose lock was cancelled, and whose time has not passed."""
    return replace(snapshot, cancelled_lock=a_lock())


SITUATIONS: dict[str, Snapshot] = {
    "never": NEVER,
    "pending": pending(),
    "locked": locked(),
    "locked, disabled": locked(is_disabled_cancel=True),
    "expired": expired(),
    "expired, disabled": expired(is_disabled_cancel=True),
    "succeeded": over(Phase.SUCCEEDED),
    "failed": over(Phase.FAILED),
    "cancelled": over(Phase.CANCELLED),
    "lock without record": without_record(),
}


def _caller(token: str, fence: int | None) -> Caller:
    return Caller(token, CALLER, fence)


def create(token: str = SELF, fence: int | None = None, **fields: Any) -> Create:
    """CreateOperation, with the request of `a_record`."""
    return replace(Create(RESOURCE, _caller(token, fence), request=b"request", request_digest="digest"), **fields)


def propose(token: str = SELF, fence: int | None = None, **fields: Any) -> Propose:
    """ProposeOperation."""
    return replace(Propose(RESOURCE, _caller(token, fence), lock_for_seconds=30), **fields)


def append(token: str = SELF, fence: int | None = None, **fields: Any) -> Append:
    """AppendOperationLog."""
    return replace(Append(RESOURCE, _caller(token, fence), "a step"), **fields)


def complete(token: str = SELF, fence: int | None = None, **fields: Any) -> Complete:
    """CompleteOperation."""
    return replace(Complete(RESOURCE, _caller(token, fence)), **fields)


def cancel(token: str = SELF, fence: int | None = None, **fields: Any) -> Cancel:
    """CancelOperation."""
    return replace(Cancel(RESOURCE, _caller(token, fence)), **fields)


COMMANDS: dict[str, Callable[..., Command]] = {
    "create": create,
    "propose": propose,
    "append": append,
    "complete": complete,
    "cancel": cancel,
}
