"""What the service knows of a resource, and what it is asked to do to it. Frozen, no I/O, no protobuf.

These are msgspec's structs, which are what frozen dataclasses are, and made in a tenth of the time: a call makes some
twenty of them (docs/adr/0016-the-way-of-a-call.md). `msgspec.structs.replace` changes one into another.

Times are aware datetimes in UTC, durations are timedeltas, both with microseconds.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import overload

from msgspec import Struct, field

LOGS_SHOWN = 100
"""Rule 10: how many of the newest logs an Operation carries."""


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
        return self is Phase.SUCCEEDED or self is Phase.FAILED or self is Phase.CANCELLED


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


class Resource(Struct, frozen=True, order=True, gc=False):
    """What can be operated on: a name within a project."""

    project: str
    name: str

    def __str__(self) -> str:
        return f"{self.project}/{self.name}"


class Log(Struct, frozen=True, gc=False):
    """One line of what was done, stamped with the service's time."""

    ts: datetime
    message: str


class Lock(Struct, frozen=True, gc=False):
    """The facts of one lock; the value of the leased lock key, and kept in the record after that key has gone.

    Attributes:
        token: The holder's proposing_peer_token.
        holder: Who that is: the authenticated identity, else the network address.
        locked_since: When the lock was acquired.
        locked_until: Until when the holder was told to have it.
        ttl_seconds: What was granted at the latest acquisition or renewal.
        is_disabled_cancel: Whether cancelling is refused while the lock lasts.
    """

    token: str
    holder: str
    locked_since: datetime
    locked_until: datetime
    ttl_seconds: float
    is_disabled_cancel: bool


class Failure(Struct, frozen=True, gc=False):
    """A google.rpc.Status that is not OK. `details` are serialized google.protobuf.Any messages."""

    code: int
    message: str
    details: tuple[bytes, ...] = ()


class Record(Struct, frozen=True, gc=False):
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


class Logs(Sequence[Log]):
    """The newest logs of an operation, oldest first. They are told with every change: what is written of one is kept.

    Args:
        logs: Them.

    Attributes:
        size: How many bytes their messages take in memory.
    """

    __slots__ = ("_logs", "_whole", "_written", "size")

    def __init__(self, logs: Iterable[Log] = ()) -> None:
        self._logs = tuple(logs)
        self._written: tuple[bytes, ...] = ()
        self._whole: bytes | None = None
        self.size = sum(map(_size, self._logs))

    def __len__(self) -> int:
        return len(self._logs)

    @overload
    def __getitem__(self, place: int) -> Log: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Log, ...]: ...
    def __getitem__(self, place: int | slice) -> Log | tuple[Log, ...]:
        return self._logs[place]

    def __eq__(self, other: object) -> bool:
        return self._logs == (other._logs if isinstance(other, Logs) else other)

    def __hash__(self) -> int:
        return hash(self._logs)

    def __repr__(self) -> str:
        return repr(self._logs)

    def followed_by(self, log: Log) -> "Logs":
        """Return these and one more; the oldest goes when they become too many."""
        drop = 1 if len(self._logs) >= LOGS_SHOWN else 0
        # What is known of the others is not worked out again: there are a hundred of them.
        logs = Logs()
        logs._logs = (*self._logs[drop:], log)
        logs._written = self._written[drop:]
        logs.size = self.size + _size(log) - sum(map(_size, self._logs[:drop]))
        return logs

    def written(self, write: Callable[[Log], bytes]) -> bytes:
        """Return all of them as a function, always the same one, writes each."""
        if self._whole is None:
            self._written = (*self._written, *map(write, self._logs[len(self._written) :]))
            self._whole = b"".join(self._written)
        return self._whole


def _size(log: Log) -> int:
    # One character from far away makes all of them take four bytes.
    return sys.getsizeof(log.message)


class Details(Struct, frozen=True, gc=False):
    """A request (a serialized google.protobuf.Any; None: there is none) and the newest logs, oldest first.

    They are written once and never changed: what was read of them holds for as long as the operation does.
    """

    request: bytes | None = None
    logs: Logs = field(default_factory=Logs)


class Snapshot(Struct, frozen=True, gc=False):
    """All that is known of a resource at one revision of etcd, and that a decision may rest on.

    Attributes:
        revision: That revision.
        record: The current operation. None: there is none.
        record_revision: The record's mod_revision. 0: there is none.
        record_lease: The etcd lease that the record hangs on. 0: on none.
        lock: The lock, if its key is there, whatever any clock says.
        lock_revision: The lock key's mod_revision. 0: not locked.
        lock_lease: The etcd lease that the lock key hangs on. 0: not locked.
        fencing_token: The lock key's create_revision: renewals keep it, every acquisition gets a greater one. 0: not
            locked.
        remaining: How long until locked_until. None: not locked.
        cancelled_lock: The lock that the calling peer had, if it was cancelled and its time has not passed (rule 9).
        details: The operation's request and newest logs. None: they are yet to be read.
        is_confirmed: Whether etcd has said so for this very call. If not, it is a belief: good enough to try a change
            that etcd guards, never to refuse one.
    """

    revision: int = 0
    record: Record | None = None
    record_revision: int = 0
    record_lease: int = 0
    lock: Lock | None = None
    lock_revision: int = 0
    lock_lease: int = 0
    fencing_token: int = 0
    remaining: timedelta | None = None
    cancelled_lock: Lock | None = None
    details: Details | None = None
    is_confirmed: bool = False


class View(Struct, frozen=True, gc=False):
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
    logs: Logs

    @property
    def state(self) -> State:
        """Where the operation stands."""
        return state_of(self.record, is_locked=self.lock is not None)


def view_of(resource: Resource, snapshot: Snapshot, record: Record, found: Details) -> View:
    """Put together what is told of an operation."""
    return View(
        resource=resource,
        record=record,
        revision=max(snapshot.record_revision, snapshot.lock_revision),
        lock=snapshot.lock,
        remaining=snapshot.remaining,
        request=found.request,
        logs=found.logs,
    )


def state_of(record: Record, *, is_locked: bool) -> State:
    """Derive the state: the lock key says whether it is held, the record all else."""
    if is_locked:
        return State.LOCKED
    if record.phase is not Phase.PROPOSED:
        return State(record.phase.value)
    if record.lock is not None and record.lock.is_disabled_cancel:
        return State.OPERATOR_DEAD
    return State.EXPIRED


class Caller(Struct, frozen=True, gc=False):
    """Who calls: its token, who that is, and the fencing token that it makes its call depend on (None: none)."""

    token: str
    identity: str
    fencing_token: int | None = None


class Create(Struct, frozen=True, gc=False):
    """CreateOperation. `request` is a serialized google.protobuf.Any, `lock_for_seconds` 0 means: do not lock."""

    resource: Resource
    caller: Caller
    request: bytes | None = None
    request_digest: str = ""
    log_message: str = ""
    lock_for_seconds: int = 0
    is_disabled_cancel: bool = False


class Propose(Struct, frozen=True, gc=False):
    """ProposeOperation."""

    resource: Resource
    caller: Caller
    lock_for_seconds: int
    log_message: str = ""
    is_disabled_cancel: bool = False


class Append(Struct, frozen=True, gc=False):
    """AppendOperationLog."""

    resource: Resource
    caller: Caller
    log_message: str


class Complete(Struct, frozen=True, gc=False):
    """CompleteOperation. No failure: it succeeded."""

    resource: Resource
    caller: Caller
    log_message: str = ""
    failure: Failure | None = None


class Cancel(Struct, frozen=True, gc=False):
    """CancelOperation."""

    resource: Resource
    caller: Caller
    log_message: str = ""


Command = Create | Propose | Append | Complete | Cancel
