"""The rules of CONTRACT section 4, as pure functions: (what is known, the command, now) → a decision, or a refusal.

`decide` is the whole interface. It reads no clock, makes no id and does no I/O, so that its tests are a table.
"""

from datetime import datetime, timedelta
from enum import Enum, auto

from msgspec import Struct
from msgspec.structs import replace

from operation_service.errors import (
    AlreadyExistsError,
    CancelDisabledError,
    FencingTokenMismatchError,
    LockedError,
    NotFoundError,
    NotLockedError,
    OperationCancelledError,
    OperationOverError,
    TokenMismatchError,
)
from operation_service.model import (
    Append,
    Cancel,
    Command,
    Complete,
    Create,
    Details,
    Event,
    Lock,
    Log,
    Phase,
    Propose,
    Record,
    Snapshot,
    State,
    state_of,
)


class LockAction(Enum):
    """What a change does to the lock key."""

    HOLD = auto()
    """Put it, on a lease that ends with it: an acquisition or a renewal."""
    KEEP = auto()
    """Leave it as it is, and insist that it is."""
    FREE = auto()
    """Delete it, if it is there."""
    CANCEL = auto()
    """Delete it, and remember the cancelled peer for as long as the lock would have lasted."""


class Moment(Struct, frozen=True, gc=False):
    """When a change is made, by the service's clock, and the id that it will be recognised by."""

    now: datetime
    change_id: str


class Change(Struct, frozen=True, gc=False):
    """What to write, in one atomic change.

    Attributes:
        record: The record to put.
        action: What becomes of the lock key.
        log: A line to add as number `record.log_count`.
        request: A serialized operation_request to store.
        starts_operation: Whether this is a new operation: what earlier ones left goes.
        lock_for_seconds: How long to lock, for HOLD.
    """

    record: Record
    action: LockAction
    log: Log | None = None
    request: bytes | None = None
    starts_operation: bool = False
    lock_for_seconds: int = 0


class Unchanged(Struct, frozen=True, gc=False):
    """The command was carried out before: answer OK, change nothing (a retry is safe)."""


Decision = Change | Unchanged


def decide(snapshot: Snapshot, command: Command, moment: Moment) -> Decision:
    """Decide a command.

    Args:
        snapshot: What is known of the command's resource.
        command: What is asked for; valid in itself.
        moment: Now, and the change's id.

    Returns:
        What to write, or that nothing is to be done.

    Raises:
        NotFoundError: Rule 8 and 9, if there is no operation.
        RefusedError: What the rules refuse.
    """
    if isinstance(command, Complete) and _is_completed_by(snapshot, command):
        # Before the fencing token: the lock that it names is gone just because the first call succeeded.
        return Unchanged()
    _check_fencing_token(snapshot, command)
    match command:
        case Create():
            return _create(snapshot, command, moment)
        case Propose():
            return _propose(snapshot, command, moment)
        case Append():
            return _append(snapshot, command, moment)
        case Complete():
            return _complete(snapshot, command, moment)
        case Cancel():
            return _cancel(snapshot, command, moment)


def broken(record: Record, lock: Lock, why: Log, change_id: str) -> Change:
    """Return the change that breaks a lock from outside: it ends as if it had run out, and its peer is refused.

    To others the operation is one that they may take over (rule 4). The holder may be at work, so its own proposals
    must not become a new acquisition: it is treated as one that was cancelled (rule 9).

    Args:
        record: The operation, with the fencing token that its lock has.
        lock: The lock to break.
        why: The line that says who broke it, and what for.
        change_id: The change's id.
    """
    event = Event.OPERATOR_DEAD if lock.is_disabled_cancel else Event.EXPIRED
    changed = replace(record, event=event, change_id=change_id, lock=lock, log_count=record.log_count + 1, last_log=why)
    return Change(changed, LockAction.CANCEL, log=why)


def granted(change: Change, asked_at: datetime, ttl_seconds: float) -> Change:
    """Set what only the grant decides (rule 1): locked_until is the time before etcd was asked plus what it granted."""
    lock = change.record.lock
    if change.action is not LockAction.HOLD or lock is None:
        return change
    lock = replace(lock, locked_until=asked_at + timedelta(seconds=ttl_seconds), ttl_seconds=ttl_seconds)
    return replace(change, record=replace(change.record, lock=lock))


def details_after(change: Change, before: Details | None) -> Details | None:
    """Return an operation's details after a change, given those before it (None: nobody knows)."""
    if change.starts_operation:
        before = Details(change.request)
    if before is None or change.log is None:
        return before
    return Details(before.request, before.logs.followed_by(change.log))


def _is_completed_by(snapshot: Snapshot, complete: Complete) -> bool:
    """Rule 8: whether this caller has completed the operation already, with the fencing token that it names if any."""
    record, caller = snapshot.record, complete.caller
    return (
        record is not None
        and record.phase in {Phase.SUCCEEDED, Phase.FAILED}
        and record.lock is not None
        and record.lock.token == caller.token
        and caller.fencing_token in {None, record.fencing_token}
    )


def _is_created_by(record: Record, create: Create, snapshot: Snapshot) -> bool:
    """Rule 6: whether this caller has created the operation already, and it is pending or locked by the caller."""
    return (record.creator_token, record.request_digest) == (create.caller.token, create.request_digest) and (
        record.phase is Phase.PENDING or snapshot.lock is not None
    )


def _check_fencing_token(snapshot: Snapshot, command: Command) -> None:
    """Rule 11. Before the peer token is looked at."""
    sent = command.caller.fencing_token
    if sent is not None and (snapshot.lock is None or snapshot.fencing_token != sent):
        raise FencingTokenMismatchError(command.resource, sent, snapshot.fencing_token)


def _create(snapshot: Snapshot, create: Create, moment: Moment) -> Decision:
    if create.lock_for_seconds:
        _refuse_if_cancelled(snapshot, create, moment)
    _refuse_if_locked_by_another(snapshot, create)
    record = snapshot.record
    if record is not None and _is_created_by(record, create, snapshot):
        return Unchanged()
    if record is not None and not record.phase.is_over:
        raise AlreadyExistsError(create.resource, _state(record, snapshot))
    if snapshot.lock is not None:
        # A lock whose record somebody deleted by hand: its holder has to end it before anything new begins.
        raise AlreadyExistsError(create.resource, State.LOCKED)
    new = Record(
        operation_id=moment.change_id,
        phase=Phase.PENDING,
        event=Event.CREATED,
        change_id=moment.change_id,
        creator=create.caller.identity,
        creator_token=create.caller.token,
        request_digest=create.request_digest,
    )
    if create.lock_for_seconds:
        change = _hold(new, snapshot, create, moment)
    else:
        change = _logged(Change(new, LockAction.KEEP), create.log_message, moment)
    return replace(change, request=create.request, starts_operation=True)


def _propose(snapshot: Snapshot, propose: Propose, moment: Moment) -> Change:
    _refuse_if_cancelled(snapshot, propose, moment)
    _refuse_if_locked_by_another(snapshot, propose)
    record = snapshot.record
    if record is not None and (snapshot.lock is not None or not record.phase.is_over):
        return _hold(record, snapshot, propose, moment)
    # Rule 5; or a lock whose record somebody deleted by hand, which its holder renews with a new record.
    new = Record(operation_id=moment.change_id, phase=Phase.PROPOSED, event=Event.LOCKED, change_id=moment.change_id)
    return replace(_hold(new, snapshot, propose, moment), starts_operation=True)


def _append(snapshot: Snapshot, append: Append, moment: Moment) -> Change:
    record = _held_record(snapshot, append)
    changed = replace(record, event=Event.LOGGED, change_id=moment.change_id, fencing_token=snapshot.fencing_token)
    return _logged(Change(changed, LockAction.KEEP), append.log_message, moment)


def _complete(snapshot: Snapshot, complete: Complete, moment: Moment) -> Change:
    record = _held_record(snapshot, complete)
    phase, event = (Phase.FAILED, Event.FAILED) if complete.failure else (Phase.SUCCEEDED, Event.SUCCEEDED)
    changed = replace(
        record,
        phase=phase,
        event=event,
        change_id=moment.change_id,
        fencing_token=snapshot.fencing_token,
        failure=complete.failure,
    )
    return _logged(Change(changed, LockAction.FREE), complete.log_message, moment)


def _cancel(snapshot: Snapshot, cancel: Cancel, moment: Moment) -> Change:
    record, lock = snapshot.record, snapshot.lock
    if record is None:
        raise NotFoundError(cancel.resource)
    if lock is not None:
        _check_token(lock, cancel)
        if lock.is_disabled_cancel:
            raise CancelDisabledError(cancel.resource, lock, snapshot.remaining or timedelta())
    elif record.phase.is_over:
        raise OperationOverError(cancel.resource, _state(record, snapshot))
    changed = replace(
        record,
        phase=Phase.CANCELLED,
        event=Event.CANCELLED,
        change_id=moment.change_id,
        fencing_token=snapshot.fencing_token or record.fencing_token,
    )
    action = LockAction.CANCEL if lock else LockAction.FREE
    return _logged(Change(changed, action), cancel.log_message, moment)


def _hold(record: Record, snapshot: Snapshot, command: Create | Propose, moment: Moment) -> Change:
    """Rules 1, 2 and 4: renew the lock that is there, which is the caller's, or acquire one."""
    current = snapshot.lock
    lock = Lock(
        token=command.caller.token,
        holder=command.caller.identity,
        locked_since=current.locked_since if current else moment.now,
        locked_until=moment.now + timedelta(seconds=command.lock_for_seconds),
        ttl_seconds=command.lock_for_seconds,
        is_disabled_cancel=command.is_disabled_cancel,
    )
    held = replace(
        record,
        phase=Phase.PROPOSED,
        event=Event.RENEWED if current else Event.LOCKED,
        change_id=moment.change_id,
        lock=lock,
        fencing_token=snapshot.fencing_token if current else None,
    )
    change = Change(held, LockAction.HOLD, lock_for_seconds=command.lock_for_seconds)
    return _logged(change, command.log_message, moment)


def _logged(change: Change, message: str, moment: Moment) -> Change:
    """Rule 10: a message that is not empty adds one log, stamped with the service's time."""
    if not message:
        return change
    log = Log(moment.now, message)
    record = replace(change.record, log_count=change.record.log_count + 1, last_log=log)
    return replace(change, record=record, log=log)


def _held_record(snapshot: Snapshot, command: Append | Complete) -> Record:
    """Rules 7 and 8: the record, if the caller holds its lock."""
    if snapshot.record is None:
        raise NotFoundError(command.resource)
    if snapshot.lock is None:
        raise NotLockedError(command.resource, _state(snapshot.record, snapshot))
    _check_token(snapshot.lock, command)
    return snapshot.record


def _check_token(lock: Lock, command: Append | Complete | Cancel) -> None:
    if lock.token != command.caller.token:
        raise TokenMismatchError(command.resource, lock)


def _refuse_if_cancelled(snapshot: Snapshot, command: Create | Propose, moment: Moment) -> None:
    """Rule 9. Before rule 3: the cancelled holder has to learn that, even when somebody else is at work by now."""
    lock = snapshot.cancelled_lock
    if lock is not None:
        raise OperationCancelledError(command.resource, lock, max(lock.locked_until - moment.now, timedelta()))


def _refuse_if_locked_by_another(snapshot: Snapshot, command: Create | Propose) -> None:
    lock = snapshot.lock
    if lock is not None and lock.token != command.caller.token:
        last_log = snapshot.record.last_log if snapshot.record else None
        raise LockedError(command.resource, lock, last_log, snapshot.remaining or timedelta())


def _state(record: Record, snapshot: Snapshot) -> State:
    return state_of(record, is_locked=snapshot.lock is not None)
