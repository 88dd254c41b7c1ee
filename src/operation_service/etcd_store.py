"""Resources in etcd: one read, and one guarded commit, each a single transaction.

`commit(snapshot, change)` makes a change if the resource still is as the snapshot says, and answers otherwise with what
is there now, read in the same transaction. So a decision may rest on a belief, and usually costs one round trip.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

from etcd3 import etcdrpc
from etcd3.etcdrpc.kv_pb2 import KeyValue
from msgspec import Struct
from msgspec.structs import replace

from operation_service import details, etcd_ops
from operation_service.changes import Occurrence
from operation_service.clock import Clock, Deadline
from operation_service.codec import decode_lock, decode_record, encode
from operation_service.errors import RevisionCompactedError, StoreError, StoreUnavailableError
from operation_service.etcd_client import EtcdClient, LeaseGoneError, RevisionGoneError
from operation_service.etcd_ops import Guard, Put, Transaction
from operation_service.group_commit import GroupCommit, Outcome
from operation_service.group_read import GroupRead
from operation_service.keys import KeyRange, Keys
from operation_service.leases import Leases
from operation_service.lock_times import LockTimes
from operation_service.model import Command, Details, Record, Resource, Snapshot, View
from operation_service.policy import Change, LockAction, details_after, granted
from operation_service.shared_leases import Place

_LEASE_ATTEMPTS = 3
_LEASE_SECONDS = 1.0


class Attempt(Struct, frozen=True):
    """A change that is to be made for a command, if the resource still is as the snapshot says."""

    command: Command
    snapshot: Snapshot
    change: Change


class Committed(Struct, frozen=True):
    """A change as etcd made it: what to tell, and what is known of the resource now."""

    view: View
    snapshot: Snapshot


class _Places(Struct, frozen=True):
    """On which leases a change puts the lock and the record, if on any."""

    lock: Place | None = None
    record: Place | None = None

    @property
    def ids(self) -> list[int]:
        """The leases."""
        return [place.lease_id for place in (self.lock, self.record) if place is not None]


class EtcdStore:
    """All resources, in one etcd.

    Attributes:
        revision_seen: etcd's revision is no less.

    Args:
        etcd: The client.
        keys: Where things lie.
        leases: What they hang on.
        times: How long locks last.
        clock: The service's time.
        on_operation_replaced: Is told of every operation, by resource and id, that a new one has taken the place of.
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
    ) -> None:
        self._etcd = etcd
        self._keys = keys
        self._leases = leases
        self._times = times
        self._clock = clock
        self._on_operation_replaced = on_operation_replaced
        self.revision_seen = 0
        self._commits = GroupCommit(etcd)
        self._reads = GroupRead(etcd)

    async def read(self, resource: Resource, token: str, deadline: Deadline) -> Snapshot:
        """Read what is known of a resource, as seen by the peer with a token (empty: by nobody in particular).

        The read is linearizable: it shows everything that was acknowledged before it began.

        Raises:
            StoreUnavailableError: etcd could not be reached before the deadline.
            CorruptRecordError: A key of the resource cannot be read.
        """
        found = await self._reads.read(self._look(resource, token), deadline)
        self.revision_seen = max(self.revision_seen, found.revision)
        return await self._measured(resource, self._looked(resource, found.revision, found.responses), deadline)

    async def current_revision(self, deadline: Deadline) -> int:
        """Return etcd's revision, no older than anything that was acknowledged before. Raises like `read`."""
        request = etcdrpc.RangeRequest(key=self._keys.watched.start, count_only=True)
        revision = (await self._etcd.range(request, deadline)).header.revision
        self.revision_seen = max(self.revision_seen, revision)
        return revision

    async def count(self, keys: KeyRange, revision: int, deadline: Deadline) -> int:
        """Return how many keys there were in a range at a revision.

        Raises:
            RevisionGoneError: It is compacted.
            StoreUnavailableError: etcd could not be reached before the deadline.
        """
        ask = etcdrpc.RangeRequest(key=keys.start, range_end=keys.end, count_only=True, revision=revision)
        return (await self._etcd.range(ask, deadline)).count

    async def snapshots(self, resources: Sequence[Resource], revision: int, deadline: Deadline) -> list[Snapshot]:
        """Read what was known of up to 60 resources at a revision.

        Raises:
            RevisionGoneError: It is compacted.
            StoreUnavailableError: etcd could not be reached before the deadline.
            CorruptRecordError: A key cannot be read.
        """
        asks = [
            etcd_ops.get(key, revision=revision)
            for resource in resources
            for key in (self._keys.record(resource), self._keys.lock(resource))
        ]
        response = await self._etcd.read(etcdrpc.TxnRequest(success=asks), deadline)
        found = [answer.response_range.kvs for answer in response.responses]
        return [
            self.snapshot(resource, records, locks, revision)
            for resource, records, locks in zip(resources, found[::2], found[1::2], strict=True)
        ]

    async def view_after(self, occurrence: Occurrence, deadline: Deadline) -> View:
        """Read what is to be told of a change.

        Raises:
            RevisionCompactedError: What it was is compacted by now.
            StoreUnavailableError: etcd could not be reached before the deadline.
            CorruptRecordError: A key of the resource cannot be read.
        """
        resource, record, revision = occurrence.resource, occurrence.record, occurrence.revision
        if record is None:
            try:
                (snapshot,) = await self.snapshots([resource], revision, deadline)
            except RevisionGoneError as error:
                raise RevisionCompactedError(revision + 1) from error
            if snapshot.record is None:
                raise RevisionCompactedError(revision + 1)
            record = snapshot.record
        remaining = self._times.remaining(resource, occurrence.lock) if occurrence.lock else None
        snapshot = Snapshot(
            revision=revision, record=record, record_revision=revision, lock=occurrence.lock, remaining=remaining
        )
        try:
            found = await self._details(resource, record, revision, deadline)
        except RevisionGoneError as error:
            found = await self._details(resource, record, 0, deadline)
            if not details.is_whole(record, found):
                # The operation has gone since, and its details with it.
                raise RevisionCompactedError(revision + 1) from error
        return view_of(resource, snapshot, record, found)

    async def view(self, resource: Resource, snapshot: Snapshot, record: Record, deadline: Deadline) -> View:
        """Read the details of what a snapshot shows, and put together what is told of it. Raises like `read`.

        They are read as they were at the snapshot, unless that is compacted by now: then as they are, which differs
        only if the operation has gone since.
        """
        found = snapshot.details
        if found is None:
            try:
                found = await self._details(resource, record, snapshot.revision, deadline)
            except RevisionGoneError:
                found = await self._details(resource, record, 0, deadline)
        return view_of(resource, snapshot, record, found)

    async def _details(self, resource: Resource, record: Record, revision: int, deadline: Deadline) -> Details:
        asks = details.ask(self._keys, resource, record, revision)
        if not asks:
            return Details()
        response = await self._etcd.read(etcdrpc.TxnRequest(success=asks), deadline)
        return details.take(record, iter(response.responses))

    async def commit(self, attempt: Attempt, deadline: Deadline) -> Committed | Snapshot:
        """Make a change, all of it or nothing.

        If the caller goes meanwhile, the change may be made all the same.

        Returns:
            The change as it was made; or, if the resource is not as the snapshot says, what is there now.

        Raises:
            StoreUnavailableError: etcd could not be reached; `is_outcome_unknown`: the change may have been made.
                Then its `change_id` in the record tells, as long as no other change has come on top.
            StoreOutOfSpaceError: etcd takes no changes.
            CorruptRecordError: A key of the resource cannot be read.
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
        record, lock = change.record, None
        if not record.phase.is_over and record.lock is None:
            return _Places()
        if change.action is LockAction.HOLD:
            lock = await self._leases.for_lock(change.lock_for_seconds, deadline)
        try:
            lock_seconds = lock.seconds if lock else record.lock.ttl_seconds if record.lock else 0.0
            kept_seconds = 0 if record.phase.is_over else math.ceil(lock_seconds)
            return _Places(lock, await self._leases.for_record(kept_seconds, deadline))
        except BaseException:
            self._leases.leave(*_Places(lock).ids)
            raise

    async def _commit(self, attempt: Attempt, places: _Places, deadline: Deadline) -> Committed | Snapshot:
        if places.lock is not None:
            # The wall time before etcd was asked, counted back from now. In this order: a sleep between the two
            # readings makes it earlier, never later.
            asked_at = self._clock.now() - timedelta(seconds=self._clock.monotonic() - places.lock.taken_at)
            attempt = replace(attempt, change=granted(attempt.change, asked_at, places.lock.seconds))
        resource, before, change = attempt.command.resource, attempt.snapshot, attempt.change
        known = details_after(change, before.details)
        reads = details.ask(self._keys, resource, change.record) if known is None else []
        transaction = Transaction(
            guards=self._guards(attempt),
            puts=self._puts(attempt, places),
            deletes=[self._keys.lock(resource)] if _frees(attempt) else (),
            reads=reads,
            reads_otherwise=self._looked_at(resource, attempt.command.caller.token),
        )

        outcome = await self._commits.write(transaction, deadline, functools.partial(self._settle, attempt, places))
        self.revision_seen = max(self.revision_seen, outcome.revision)
        response = outcome.response
        if not response.succeeded:
            there = self._looked(resource, outcome.revision, response.responses)
            return await self._measured(resource, there, deadline)
        if known is None:
            known = details.take(change.record, iter(response.responses[len(response.responses) - len(reads) :]))
        return self._committed(attempt, places, known, outcome.revision)

    def _settle(self, attempt: Attempt, places: _Places, outcome: Outcome | Exception | None) -> None:
        """Account for what became of a change, whether or not its caller still waits.

        Of an unknown outcome both the new leases and the old ones may be the ones that the keys hang on: none is left.
        """
        if not isinstance(outcome, Outcome) or not outcome.response.succeeded:
            if _is_not_made(outcome):
                self._leases.leave(*places.ids)
            return
        resource, before, change = attempt.command.resource, attempt.snapshot, attempt.change
        self._leases.leave(before.record_lease)
        if change.action is LockAction.HOLD or change.action is LockAction.FREE:
            self._leases.leave(before.lock_lease)
        if change.record.lock is not None and places.lock is not None:
            self._times.taken(resource, outcome.revision, change.record.lock, places.lock.taken_at)
        if change.starts_operation and before.record is not None:
            self._on_operation_replaced(resource, before.record.operation_id)

    def _look(self, resource: Resource, token: str) -> list[etcd_ops.Op]:
        return [etcd_ops.get(key) for key in self._looked_at(resource, token)]

    def _looked_at(self, resource: Resource, token: str) -> list[bytes]:
        keys = [self._keys.record(resource), self._keys.lock(resource)]
        if token:
            keys.append(self._keys.cancelled(resource, token))
        return keys

    def _guards(self, attempt: Attempt) -> list[Guard]:
        resource, snapshot = attempt.command.resource, attempt.snapshot
        guards = [
            Guard(self._keys.record(resource), snapshot.record_revision),
            Guard(self._keys.lock(resource), snapshot.lock_revision),
        ]
        if attempt.change.action is LockAction.HOLD and snapshot.lock is None:
            guards.append(Guard(self._keys.cancelled(resource, attempt.command.caller.token), 0))
        return guards

    def _puts(self, attempt: Attempt, places: _Places) -> list[Put]:
        resource, caller = attempt.command.resource, attempt.command.caller
        snapshot, change = attempt.snapshot, attempt.change
        record, keys = change.record, self._keys
        puts = [Put(keys.record(resource), encode(record), places.record.lease_id if places.record else 0)]
        if places.lock is not None:
            puts.append(Put(keys.lock(resource), encode(record.lock), places.lock.lease_id))
        if change.action is LockAction.CANCEL:
            # On the lease that the lock had, it ends when the cancelled locked_until passes: no clock is asked.
            puts.append(Put(keys.cancelled(resource, caller.token), encode(snapshot.lock), snapshot.lock_lease))
        if change.request is not None:
            puts.append(Put(keys.request(resource, record.operation_id), change.request))
        if change.log is not None:
            puts.append(Put(keys.log(resource, record.operation_id, record.log_count), encode(change.log)))
        return puts

    def _looked(self, resource: Resource, revision: int, responses: Iterable[etcdrpc.ResponseOp]) -> Snapshot:
        """Take the answers to `_look`."""
        records, locks, *cancelled = (answer.response_range.kvs for answer in responses)
        snapshot = self.snapshot(resource, records, locks, revision)
        for kv in (kv for kvs in cancelled for kv in kvs):
            snapshot = replace(snapshot, cancelled_lock=decode_lock(kv.key, kv.value))
        return snapshot

    async def _measured(self, resource: Resource, snapshot: Snapshot, deadline: Deadline) -> Snapshot:
        """Ask etcd how long a lock lasts that was taken before this replica looked, so that no wall clock has to tell.

        If the answer does not come, the wall clocks have to do; if the lock goes meanwhile, the snapshot is no worse.
        """
        lock = snapshot.lock
        if lock is None or self._times.is_measured(resource, lock):
            return snapshot
        with contextlib.suppress(StoreError):
            patience = Deadline(min(_LEASE_SECONDS, deadline.remaining() / 2))
            seconds = await self._etcd.time_to_live(snapshot.lock_lease, patience)
            if seconds >= 0:
                # Rounded up: an end must never be believed to be too early.
                self._times.found(resource, snapshot.lock_revision, lock, left_seconds=seconds + 1)
        return replace(snapshot, remaining=self._times.remaining(resource, lock))

    def snapshot(
        self, resource: Resource, records: Iterable[KeyValue], locks: Iterable[KeyValue], revision: int
    ) -> Snapshot:
        """Return what a resource's keys say, each of them there or not, as read at a revision.

        Raises:
            CorruptRecordError: One cannot be read.
        """
        record, record_revision, record_lease = None, 0, 0
        for kv in records:
            record, record_revision, record_lease = decode_record(kv.key, kv.value), kv.mod_revision, kv.lease
            if record.fencing_token is None:
                record = replace(record, fencing_token=record_revision)
        for kv in locks:
            lock, fencing_token = decode_lock(kv.key, kv.value), kv.create_revision
            if record is not None and record.fencing_token != fencing_token:
                # The lock's own word counts, also where the record was written anew by hand.
                record = replace(record, fencing_token=fencing_token)
            return Snapshot(
                revision=revision,
                record=record,
                record_revision=record_revision,
                record_lease=record_lease,
                lock=lock,
                lock_revision=kv.mod_revision,
                lock_lease=kv.lease,
                fencing_token=fencing_token,
                remaining=self._times.remaining(resource, lock),
                is_confirmed=True,
            )
        return Snapshot(
            revision=revision,
            record=record,
            record_revision=record_revision,
            record_lease=record_lease,
            is_confirmed=True,
        )

    def _committed(self, attempt: Attempt, places: _Places, found: Details, revision: int) -> Committed:
        resource, before, change = attempt.command.resource, attempt.snapshot, attempt.change
        record = change.record
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
            remaining=self._times.remaining(resource, lock) if lock else None,
            details=found,
        )
        return Committed(view_of(resource, after, record, found), after)


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
