"""Resources in etcd: one read, and one guarded commit, each a single transaction.

`commit(snapshot, change)` makes a change if the resource still is as the snapshot says, and answers otherwise with what
is there now, read in the same transaction. So a decision may rest on a belief, and usually costs one round trip.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from etcd3 import etcdrpc
from etcd3.etcdrpc.kv_pb2 import KeyValue

from operation_service import details, etcd_ops
from operation_service.changes import Occurrence
from operation_service.clock import Clock, Deadline
from operation_service.codec import decode_lock, decode_record, encode
from operation_service.errors import RevisionCompactedError, StoreError, StoreUnavailableError
from operation_service.etcd_client import EtcdClient, Lease, LeaseGoneError, RevisionGoneError
from operation_service.keys import KeyRange, Keys
from operation_service.leases import Leases
from operation_service.lock_times import LockTimes
from operation_service.model import Command, Record, Resource, Snapshot, View
from operation_service.policy import Change, LockAction, granted

_LEASE_ATTEMPTS = 3
_LEASE_SECONDS = 1.0
_ABANDONED_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """A change that is to be made for a command, if the resource still is as the snapshot says."""

    command: Command
    snapshot: Snapshot
    change: Change


@dataclass(frozen=True, slots=True)
class Committed:
    """A change as etcd made it: what to tell, and what is known of the resource now."""

    view: View
    snapshot: Snapshot


class EtcdStore:
    """All resources, in one etcd.

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
        self._abandoned: set[asyncio.Task[Committed | Snapshot] | None] = set()

    async def read(self, resource: Resource, token: str, deadline: Deadline) -> Snapshot:
        """Read what is known of a resource, as seen by the peer with a token (empty: by nobody in particular).

        The read is linearizable: it shows everything that was acknowledged before it began.

        Raises:
            StoreUnavailableError: etcd could not be reached before the deadline.
            CorruptRecordError: A key of the resource cannot be read.
        """
        response = await self._etcd.read(etcdrpc.TxnRequest(success=self._look(resource, token)), deadline)
        return await self._measured(resource, self._looked(resource, response), deadline)

    async def current_revision(self, deadline: Deadline) -> int:
        """Return etcd's revision, no older than anything that was acknowledged before. Raises like `read`."""
        request = etcdrpc.RangeRequest(key=self._keys.watched.start, count_only=True)
        return (await self._etcd.range(request, deadline)).header.revision

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
        try:
            found = await self._details(resource, record, snapshot.revision, deadline)
        except RevisionGoneError:
            found = await self._details(resource, record, 0, deadline)
        return view_of(resource, snapshot, record, found)

    async def _details(self, resource: Resource, record: Record, revision: int, deadline: Deadline) -> details.Details:
        asks = details.ask(self._keys, resource, record, revision)
        if not asks:
            return details.Details()
        response = await self._etcd.read(etcdrpc.TxnRequest(success=asks), deadline)
        return details.take(record, iter(response.responses))

    async def commit(self, attempt: Attempt, deadline: Deadline) -> Committed | Snapshot:
        """Make a change, all of it or nothing.

        Returns:
            The change as it was made; or, if the resource is not as the snapshot says, what is there now.

        Raises:
            StoreUnavailableError: etcd could not be reached; `is_outcome_unknown`: the change may have been made.
                Then its `change_id` in the record tells, as long as no other change has come on top.
            StoreOutOfSpaceError: etcd takes no changes.
            CorruptRecordError: A key of the resource cannot be read.
        """
        committing = asyncio.ensure_future(self._commit_to_the_end(attempt, deadline))
        # When its caller has gone, nobody waits for an error any more, and then it is no news for asyncio's log.
        committing.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await asyncio.shield(committing)
        except asyncio.CancelledError:
            await self._abandon(committing)
            raise

    async def _abandon(self, committing: "asyncio.Task[Committed | Snapshot]") -> None:
        """End what is under way for a caller that has gone, so that a lease granted for it is used, or ended.

        The call keeps its turn and its place meanwhile: who calls and goes, again and again, gains nothing.
        """
        self._abandoned.add(committing)
        try:
            await asyncio.wait({committing}, timeout=_ABANDONED_SECONDS)
        finally:
            committing.cancel()
            self._abandoned.discard(committing)

    async def _commit_to_the_end(self, attempt: Attempt, deadline: Deadline) -> Committed | Snapshot:
        for _ in range(_LEASE_ATTEMPTS):
            try:
                return await self._commit(attempt, deadline)
            except LeaseGoneError:
                # The process slept between grant and change, or somebody revoked a lease: nothing was changed.
                self._leases.forget_shared()
        raise StoreUnavailableError("its leases end before they can be used")

    async def _commit(self, attempt: Attempt, deadline: Deadline) -> Committed | Snapshot:
        lease = None
        if attempt.change.action is LockAction.HOLD:
            lease = await self._leases.for_lock(attempt.change.lock_for_seconds, deadline)
            if asyncio.current_task() in self._abandoned:
                self._leases.revoke_later(lease.id)
                raise StoreUnavailableError("the caller has gone")
            # The wall time before etcd was asked, counted back from now: only the last attempt's counts.
            asked_at = self._clock.now() - timedelta(seconds=self._clock.monotonic() - lease.asked_at)
            attempt = replace(attempt, change=granted(attempt.change, asked_at, lease.ttl_seconds))
        try:
            response = await self._write(attempt, lease.id if lease else 0, deadline)
        except (LeaseGoneError, StoreError) as error:
            if lease and not (isinstance(error, StoreError) and error.is_outcome_unknown):
                self._leases.revoke_later(lease.id)
            raise
        resource = attempt.command.resource
        if not response.succeeded:
            if lease:
                self._leases.revoke_later(lease.id)
            return await self._measured(resource, self._looked(resource, response), deadline)
        if attempt.snapshot.lock_lease and attempt.change.action in {LockAction.HOLD, LockAction.FREE}:
            self._leases.revoke_later(attempt.snapshot.lock_lease)
        if attempt.change.starts_operation and attempt.snapshot.record is not None:
            self._on_operation_replaced(resource, attempt.snapshot.record.operation_id)
        return self._committed(attempt, lease, response)

    async def _write(self, attempt: Attempt, lock_lease: int, deadline: Deadline) -> etcdrpc.TxnResponse:
        record_lease = await self._record_lease(attempt.change, deadline)
        resource = attempt.command.resource
        request = etcdrpc.TxnRequest(
            compare=self._guards(attempt),
            success=[
                *self._writes(attempt, lock_lease, record_lease),
                *details.ask(self._keys, resource, attempt.change.record),
            ],
            failure=self._look(resource, attempt.command.caller.token),
        )
        return await self._etcd.write(request, deadline)

    async def _record_lease(self, change: Change, deadline: Deadline) -> int:
        """Rule 14: PENDING and LOCKED records never go; what is over, or has run out, goes after the retention time.

        A record is renewed with its lock and hangs on a lease that ends one retention time after it, so that it needs
        no replica to see the lock run out.
        """
        if change.record.phase.is_over:
            return await self._leases.for_record(0, deadline)
        if change.record.lock is None:
            return 0
        return await self._leases.for_record(change.record.lock.ttl_seconds, deadline)

    def _look(self, resource: Resource, token: str) -> list[etcd_ops.Op]:
        ops = [etcd_ops.get(self._keys.record(resource)), etcd_ops.get(self._keys.lock(resource))]
        if token:
            ops.append(etcd_ops.get(self._keys.cancelled(resource, token)))
        return ops

    def _guards(self, attempt: Attempt) -> list[etcdrpc.Compare]:
        resource, snapshot = attempt.command.resource, attempt.snapshot
        guards = [
            etcd_ops.unchanged(self._keys.record(resource), snapshot.record_revision),
            etcd_ops.unchanged(self._keys.lock(resource), snapshot.lock_revision),
        ]
        if attempt.change.action is LockAction.HOLD and snapshot.lock is None:
            guards.append(etcd_ops.unchanged(self._keys.cancelled(resource, attempt.command.caller.token), 0))
        return guards

    def _writes(self, attempt: Attempt, lease: int, record_lease: int) -> list[etcd_ops.Op]:
        resource, caller = attempt.command.resource, attempt.command.caller
        snapshot, change = attempt.snapshot, attempt.change
        record, keys = change.record, self._keys
        ops = [etcd_ops.put(keys.record(resource), encode(record), record_lease)]
        if change.action is LockAction.HOLD:
            ops.append(etcd_ops.put(keys.lock(resource), encode(record.lock), lease))
        elif change.action is not LockAction.KEEP and snapshot.lock is not None:
            ops.append(etcd_ops.delete(keys.lock(resource)))
        if change.action is LockAction.CANCEL:
            # On the lease that the lock had, it ends when the cancelled locked_until passes: no clock is asked.
            key = keys.cancelled(resource, caller.token)
            ops.append(etcd_ops.put(key, encode(snapshot.lock), snapshot.lock_lease))
        if change.request is not None:
            ops.append(etcd_ops.put(keys.request(resource, record.operation_id), change.request))
        if change.log is not None:
            ops.append(etcd_ops.put(keys.log(resource, record.operation_id, record.log_count), encode(change.log)))
        return ops

    def _looked(self, resource: Resource, response: etcdrpc.TxnResponse) -> Snapshot:
        """Take the answers to `_look`."""
        records, locks, *cancelled = (answer.response_range.kvs for answer in response.responses)
        snapshot = self.snapshot(resource, records, locks, response.header.revision)
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
        snapshot = Snapshot(revision=revision, is_confirmed=True)
        for kv in records:
            record = decode_record(kv.key, kv.value)
            if record.fencing_token is None:
                record = replace(record, fencing_token=kv.mod_revision)
            snapshot = replace(snapshot, record=record, record_revision=kv.mod_revision)
        for kv in locks:
            lock = decode_lock(kv.key, kv.value)
            snapshot = replace(
                snapshot,
                lock=lock,
                # The lock's own word counts, also where the record was written anew by hand.
                record=replace(snapshot.record, fencing_token=kv.create_revision) if snapshot.record else None,
                lock_revision=kv.mod_revision,
                lock_lease=kv.lease,
                fencing_token=kv.create_revision,
                remaining=self._times.remaining(resource, lock),
            )
        return snapshot

    def _committed(self, attempt: Attempt, lease: Lease | None, response: etcdrpc.TxnResponse) -> Committed:
        resource, before, change = attempt.command.resource, attempt.snapshot, attempt.change
        revision = response.header.revision
        record = change.record
        if record.fencing_token is None:
            record = replace(record, fencing_token=revision)
        after = Snapshot(revision=revision, record=record, record_revision=revision)
        if lease is not None and record.lock is not None:
            self._times.taken(resource, revision, record.lock, lease.asked_at)
            after = replace(
                after,
                lock=record.lock,
                lock_revision=revision,
                lock_lease=lease.id,
                fencing_token=record.fencing_token or 0,
                remaining=self._times.remaining(resource, record.lock),
            )
        elif change.action is LockAction.KEEP and before.lock is not None:
            remaining = self._times.remaining(resource, before.lock)
            after = replace(
                after,
                lock=before.lock,
                lock_revision=before.lock_revision,
                lock_lease=before.lock_lease,
                fencing_token=before.fencing_token,
                remaining=remaining,
            )
        writes = len(response.responses) - len(details.ask(self._keys, resource, record))
        found = details.take(record, iter(response.responses[writes:]))
        return Committed(view_of(resource, after, record, found), after)


def view_of(resource: Resource, snapshot: Snapshot, record: Record, found: details.Details) -> View:
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
