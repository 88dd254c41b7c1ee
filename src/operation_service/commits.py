"""Guarded commits: a change is made if the resource still is as it was when the change was decided, or not at all.

Each is a single transaction, which answers with what is there where its guards fail. So a decision may rest on a
belief, and usually costs one round trip.
"""

import math
from collections.abc import Callable, Sequence
from datetime import timedelta

from etcd3 import etcdrpc
from msgspec import Struct
from msgspec.structs import replace

from operation_service import details
from operation_service.clock import Clock, Deadline
from operation_service.codec import encode
from operation_service.errors import StoreError, StoreUnavailableError
from operation_service.etcd_client import EtcdClient, LeaseGoneError
from operation_service.etcd_ops import Guard, Put, Transaction
from operation_service.group_commit import GroupCommit, Outcome
from operation_service.keys import Keys, ResourceKeys
from operation_service.layout import Layout
from operation_service.leases import Leases
from operation_service.lock_times import LockTimes
from operation_service.model import Command, Details, Record, Resource, Snapshot, View, view_of
from operation_service.policy import Change, LockAction, details_after, granted
from operation_service.shared_leases import Place
from operation_service.together import Sharing

_LEASE_ATTEMPTS = 3


class Attempt(Struct, frozen=True, gc=False):
    """A change that is to be made for a command, if the resource still is as the snapshot says."""

    command: Command
    snapshot: Snapshot
    change: Change


OnOutcome = Callable[[Command, Record | None, Record, int], None]
"""Is told of a change: its command, the record before it (None: there was none, or nobody knows), the record that it
has written, and its revision (0: whether it was made is unknown)."""


class Committed(Struct, frozen=True, gc=False):
    """A change as etcd made it: what to tell, and what is known of the resource now.

    Of neither anybody has asked how much time is `remaining`.
    """

    view: View
    snapshot: Snapshot

    @property
    def revision(self) -> int:
        """That of the change."""
        return self.snapshot.revision


class NotMade(Struct, frozen=True, gc=False):
    """A change that rested on what is not so: what was read instead (`Keys.looked_at`), at which revision."""

    revision: int
    responses: Sequence[etcdrpc.ResponseOp]


class _Places(Struct, frozen=True, gc=False):
    """On which leases a change puts the lock and the record, if on any."""

    lock: Place | None = None
    record: Place | None = None

    @property
    def ids(self) -> list[int]:
        """The leases."""
        return [place.lease_id for place in (self.lock, self.record) if place is not None]


_NOWHERE = _Places()


class Commits:
    """Makes changes.

    Args:
        etcd: The client.
        keys: Where things lie.
        leases: What they hang on.
        times: Is told how long locks last.
        clock: The service's time.
        on_operation_replaced: Is told of every operation, by resource and id, that a new one has taken the place of
            and that has left a request or logs.
    """

    def __init__(
        self,
        etcd: EtcdClient,
        keys: Keys,
        leases: Leases,
        times: LockTimes,
        clock: Clock,
        *,
        on_operation_replaced: Callable[[Resource, str], None] = lambda _resource, _operation_id: None,
        on_batch: Callable[[int], None] | None = None,
        on_outcome: OnOutcome | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        self._keys = keys
        self._leases = leases
        self._times = times
        self._clock = clock
        self._on_operation_replaced = on_operation_replaced
        self._on_outcome = on_outcome
        self._group = GroupCommit(Layout(etcd, keys), on_batch, sharing)

    async def commit(self, attempt: Attempt, deadline: Deadline) -> Committed | NotMade:
        """Make a change, all of it or nothing.

        If the caller goes meanwhile, the change may be made all the same.

        Raises:
            StoreUnavailableError: etcd could not be reached; `is_outcome_unknown`: the change may have been made.
                Then its `change_id` in the record tells, as long as no other change has come on top.
            StoreOutOfSpaceError: etcd takes no changes.
        """
        for _ in range(_LEASE_ATTEMPTS):
            places = await self._places(attempt.change, deadline)
            try:
                return await self._commit(attempt, places, deadline)
            except LeaseGoneError:
                # The process slept between grant and change, or somebody revoked a lease: nothing was changed.
                self._leases.forget(*places.ids)
        raise StoreUnavailableError("its leases end before they can be used")

    async def _places(self, change: Change, deadline: Deadline) -> _Places:
        """Rule 14: PENDING and LOCKED records never go; what is over, or has run out, goes after the retention time.

        A record is renewed with its lock and hangs on a lease that ends one retention time after it, so that it needs
        no replica to see the lock run out.
        """
        record, lock, leases = change.record, None, self._leases
        if not record.phase.is_over and record.lock is None:
            return _NOWHERE
        if change.action is LockAction.HOLD:
            seconds = change.lock_for_seconds
            lock = leases.for_lock_at_once(seconds) or await leases.for_lock(seconds, deadline)
        try:
            lock_seconds = lock.seconds if lock else record.lock.ttl_seconds if record.lock else 0.0
            kept_seconds = 0 if record.phase.is_over else math.ceil(lock_seconds)
            return _Places(
                lock, leases.for_record_at_once(kept_seconds) or await leases.for_record(kept_seconds, deadline)
            )
        except BaseException:
            leases.leave(*_Places(lock).ids)
            raise

    async def _commit(self, attempt: Attempt, places: _Places, deadline: Deadline) -> Committed | NotMade:
        change, before = attempt.change, attempt.snapshot
        if places.lock is not None:
            # The wall time before etcd was asked, counted back from now. In this order: a sleep between the two
            # readings makes it earlier, never later.
            asked_at = self._clock.now() - timedelta(seconds=self._clock.monotonic() - places.lock.taken_at)
            change = granted(change, asked_at, places.lock.seconds)
        resource = attempt.command.resource
        known = details_after(change, before.details)
        reads = details.ask(self._keys, resource, change.record) if known is None else ()

        def settle(outcome: Outcome | Exception | None) -> None:
            self._settle(attempt, change, places, outcome)

        at = self._keys.of(resource)
        transaction = Transaction(
            guards=guards(self._keys, at, attempt),
            puts=puts(
                self._keys,
                resource,
                at,
                change,
                before,
                record_lease=places.record.lease_id if places.record else 0,
                lock_lease=places.lock.lease_id if places.lock else 0,
            ),
            deletes=(at.lock,) if _frees(attempt) else (),
            reads=reads,
            reads_otherwise=self._keys.looked_at(resource, attempt.command.caller.token),
        )
        outcome = await self._group.write(transaction, deadline, settle)
        response = outcome.response
        if not response.succeeded:
            return NotMade(outcome.revision, response.responses)
        if known is None:
            known = details.take(change.record, iter(response.responses[len(response.responses) - len(reads) :]))
        return _after(attempt, change, places, known, outcome.revision)

    def _settle(self, attempt: Attempt, change: Change, places: _Places, outcome: Outcome | Exception | None) -> None:
        """Account for what became of a change, whether or not its caller still waits.

        Of an unknown outcome both the new leases and the old ones may be the ones that the keys hang on: none is left.
        """
        if not isinstance(outcome, Outcome) or not outcome.response.succeeded:
            if _is_not_made(outcome):
                self._leases.leave(*places.ids)
            elif self._on_outcome is not None:
                self._on_outcome(attempt.command, attempt.snapshot.record, change.record, 0)
            return
        if self._on_outcome is not None:
            self._on_outcome(attempt.command, attempt.snapshot.record, change.record, outcome.revision)
        resource, before = attempt.command.resource, attempt.snapshot
        self._leases.leave(before.record_lease)
        if change.action is LockAction.HOLD or change.action is LockAction.FREE:
            self._leases.leave(before.lock_lease)
        if change.record.lock is not None and places.lock is not None:
            self._times.taken(resource, outcome.revision, change.record.lock, places.lock.taken_at)
        if change.starts_operation and before.record is not None and details.reads(before.record):
            self._on_operation_replaced(resource, before.record.operation_id)


def puts(
    keys: Keys,
    resource: Resource,
    at: ResourceKeys,
    change: Change,
    before: Snapshot,
    *,
    record_lease: int,
    lock_lease: int = 0,
) -> list[Put]:
    """Return what a change writes.

    Args:
        keys: Where things lie.
        resource: What is changed.
        at: Where its record and its lock lie.
        change: How it is changed.
        before: What was there.
        record_lease: The lease that the record hangs on. 0: none.
        lock_lease: The lease of the lock that the change takes or renews. 0: it does neither.
    """
    record = change.record
    written = [Put(at.record, encode(record), record_lease)]
    if lock_lease:
        written.append(Put(at.lock, encode(record.lock), lock_lease))
    if change.action is LockAction.CANCEL and before.lock is not None:
        # On the lease that the lock had, it ends when the cancelled locked_until passes: no clock is asked.
        written.append(Put(keys.cancelled(resource, before.lock.token), encode(before.lock), before.lock_lease))
    if change.request is not None:
        written.append(Put(keys.request(resource, record.operation_id), change.request))
    if change.log is not None:
        written.append(Put(keys.log(resource, record.operation_id, record.log_count), encode(change.log)))
    return written


def guards(keys: Keys, at: ResourceKeys, attempt: Attempt) -> list[Guard]:
    """Return what must still be so for a change to be made."""
    snapshot = attempt.snapshot
    unchanged = [Guard(at.record, snapshot.record_revision), Guard(at.lock, snapshot.lock_revision)]
    if attempt.change.action is LockAction.HOLD and snapshot.lock is None:
        unchanged.append(Guard(keys.cancelled(attempt.command.resource, attempt.command.caller.token), 0))
    return unchanged


def _after(attempt: Attempt, change: Change, places: _Places, found: Details, revision: int) -> Committed:
    """Return what is there after a change."""
    record, before = change.record, attempt.snapshot
    if record.fencing_token is None:
        record = replace(record, fencing_token=revision)
    lock, lock_revision, lock_lease = None, 0, 0
    if places.lock is not None:
        lock, lock_revision, lock_lease = record.lock, revision, places.lock.lease_id
    elif change.action is LockAction.KEEP:
        lock, lock_revision, lock_lease = before.lock, before.lock_revision, before.lock_lease
    after = Snapshot(
        revision=revision,
        record=record,
        record_revision=revision,
        record_lease=places.record.lease_id if places.record else 0,
        lock=lock,
        lock_revision=lock_revision,
        lock_lease=lock_lease,
        fencing_token=(record.fencing_token or 0) if lock else 0,
        details=found,
    )
    return Committed(view_of(attempt.command.resource, after, record, found), after)


def _is_not_made(outcome: Outcome | Exception | None) -> bool:
    """Whether it is certain that a change was not made. An error that nobody has foreseen says nothing of it."""
    if isinstance(outcome, Outcome):
        return not outcome.response.succeeded
    if isinstance(outcome, StoreError):
        return not outcome.is_outcome_unknown
    return outcome is None or isinstance(outcome, LeaseGoneError)


def _frees(attempt: Attempt) -> bool:
    """Whether a change deletes the lock key."""
    action = attempt.change.action
    return attempt.snapshot.lock is not None and (action is LockAction.FREE or action is LockAction.CANCEL)
