"""What the service knows of a resource, and what it is asked to do to it. Frozen, no I/O, no protobuf.

Times are aware datetimes in UTC, durations are timedeltas, both with microseconds.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class Phase(StrEnum):
    """How far an operation has come, as far as that can be stored.

    Whether a PROPOSED operation is still held is for its lock key alone to say (CONTRACT section 3: never stored in
    a way that can disagree with the lock).
    """

    PENDING = "PENDING"
    PROPOSED = "PROPOSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_over(self) -> bool:
        """Whether nothing more can be done for the operation."""
        return self in {Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED}


class State(StrEnum):
    """CONTRACT section 3, OperationState."""

    PENDING = "PENDING"
    LOCKED = "LOCKED"
    EXPIRED = "EXPIRED"
    OPERATOR_DEAD = "OPERATOR_DEAD"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Event(StrEnum):
    """CONTRACT section 3, the events of WatchOperationsResponse."""

    CREATED = "CREATED"
    LOCKED = "LOCKED"
    RENEWED = "RENEWED"
    LOGGED = "LOGGED"
    EXPIRED = "EXPIRED"
    OPERATOR_DEAD = "OPERATOR_DEAD"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """What can be operated on: a name within a project."""

    project: str
    name: str

    def __str__(self) -> str:
        return f"{self.project}/{self.name}"


@dataclass(frozen=True, slots=True)
class Log:
    """One line of what was done, stamped with the service's time."""

    ts: datetime
    message: str


@dataclass(frozen=True, slots=True)
class Lock:
    """The facts of one lock; the value of the leased lock key, and kept in the record after that key has gone.

    Attributes:
        token: The holder's proposing_peer_token.
        holder: Who that is: the authenticated identity, else the network address.
        locked_since: When the lock was acquired.
        locked_until: Until when the holder was told to have it.
        ttl_seconds: What etcd granted at the latest acquisition or renewal.
        is_disabled_cancel: Whether cancelling is refused while the lock lasts.
    """

    token: str
    holder: str
    locked_since: datetime
    locked_until: datetime
    ttl_seconds: int
    is_disabled_cancel: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """A google.rpc.Status that is not OK. `details` are serialized google.protobuf.Any messages."""

    code: int
    message: str
    details: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """An operation as it is stored, without its request and logs.

    Attributes:
        operation_id: Tells this operation from earlier and later ones of the same resource.
        phase: How far it has come.
        event: What the latest change did: WatchOperations tells it.
        change_id: Which call made the latest change: how a call whose answer was lost recognises its own work.
        lock: The latest lock, which may have run out. None: nobody has proposed yet.
        fencing_token: The latest lock's. 0: never locked. None: the revision of the very change that this record is
            part of, which nobody can know before etcd has made it.
        creator: Who created it with CreateOperation, and with which token. Empty: it began with a proposal.
        request_digest: Of the operation_request. Empty: there is none.
        log_count: How many logs there are.
        last_log: The newest of them.
        failure: What went wrong, if FAILED.
    """

    operation_id: str
    phase: Phase
    event: Event
    change_id: str
    lock: Lock | None = None
    fencing_token: int | None = 0
    creator: str = ""
    creator_token: str = ""
    request_digest: str = ""
    log_count: int = 0
    last_log: Log | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is known of a resource at one revision of etcd, and that a decision may rest on.

    Attributes:
        revision: That revision.
        record: The current operation. None: there is none.
        record_revision: The record's mod_revision. 0: there is none.
        lock: The lock, if its key is there, whatever any clock says.
        lock_revision: The lock key's mod_revision. 0: not locked.
        lock_lease: The etcd lease that the lock key hangs on. 0: not locked.
        fencing_token: The lock key's create_revision: renewals keep it, every acquisition gets a greater one. 0: not
            locked.
        remaining: How long until locked_until. None: not locked.
        cancelled_lock: The lock that the calling peer had, if it was cancelled and its time has not passed (rule 9).
        is_confirmed: Whether etcd has said so for this very call. If not, it is a belief: good enough to try a change
            that etcd guards, never to refuse one.
    """

    revision: int = 0
    record: Record | None = None
    record_revision: int = 0
    lock: Lock | None = None
    lock_revision: int = 0
    lock_lease: int = 0
    fencing_token: int = 0
    remaining: timedelta | None = None
    cancelled_lock: Lock | None = None
    is_confirmed: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """An operation as it is told to callers.

    Attributes:
        revision: Of the change told.
        lock: The lock, if the resource is locked.
        remaining: How long until locked_until. None: not locked.
        request: The serialized google.protobuf.Any of the request. None: there is none.
        logs: The newest 100, oldest first.
    """

    resource: Resource
    record: Record
    revision: int
    lock: Lock | None
    remaining: timedelta | None
    request: bytes | None
    logs: tuple[Log, ...]

    @property
    def state(self) -> State:
        """Where the operation stands."""
        return state_of(self.record, is_locked=self.lock is not None)


def state_of(record: Record, *, is_locked: bool) -> State:
    """Derive the state: the lock key says whether it is held, the record all else."""
    if is_locked:
        return State.LOCKED
    if record.phase is not Phase.PROPOSED:
        return State(record.phase.value)
    if record.lock is not None and record.lock.is_disabled_cancel:
        return State.OPERATOR_DEAD
    return State.EXPIRED


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: its token, who that is, and the fencing token that it makes its call depend on (None: none)."""

    token: str
    identity: str
    fencing_token: int | None = None


@dataclass(frozen=True, slots=True)
class Create:
    """CreateOperation. `request` is a serialized google.protobuf.Any, `lock_for_seconds` 0 means: do not lock."""

    resource: Resource
    caller: Caller
    request: bytes | None = None
    request_digest: str = ""
    log_message: str = ""
    lock_for_seconds: int = 0
    is_disabled_cancel: bool = False


@dataclass(frozen=True, slots=True)
class Propose:
    """ProposeOperation."""

    resource: Resource
    caller: Caller
    lock_for_seconds: int
    log_message: str = ""
    is_disabled_cancel: bool = False


@dataclass(frozen=True, slots=True)
class Append:
    """AppendOperationLog."""

    resource: Resource
    caller: Caller
    log_message: str


@dataclass(frozen=True, slots=True)
class Complete:
    """CompleteOperation. No failure: it succeeded."""

    resource: Resource
    caller: Caller
    log_message: str = ""
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """CancelOperation."""

    resource: Resource
    caller: Caller
    log_message: str = ""


Command = Create | Propose | Append | Complete | Cancel
