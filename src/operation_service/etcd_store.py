"""Resources in etcd: reads of one and of some, and commits (`commits.py`) that tell what is there if they fail."""

import contextlib
from collections.abc import Iterable, Sequence

from etcd3 import etcdrpc
from etcd3.etcdrpc.kv_pb2 import KeyValue
from msgspec.structs import replace

from operation_service import details, etcd_ops
from operation_service.changes import Occurrence
from operation_service.clock import Deadline
from operation_service.codec import decode_lock, decode_record
from operation_service.commits import Attempt, Commits, Committed
from operation_service.errors import RevisionCompactedError, StoreError
from operation_service.etcd_client import EtcdClient, RevisionGoneError
from operation_service.group_read import GroupRead
from operation_service.keys import KeyRange, Keys
from operation_service.layout import LaidOut, Layout
from operation_service.lock_times import LockTimes
from operation_service.model import Details, Record, Resource, Snapshot, View, view_of
from operation_service.together import Sharing

_LEASE_SECONDS = 1.0
_RANGES_AT_ONCE = 100
"""etcd takes 128 operations in a transaction."""


class EtcdStore:
    """All resources, in one etcd.

    Attributes:
        revision_seen: etcd's revision is no less.

    Args:
        etcd: The client.
        keys: Where things lie.
        times: How long locks last.
        commits: Makes changes.
        sharing: Sees which reads leave together.
    """

    def __init__(
        self,
        etcd: EtcdClient,
        keys: Keys,
        times: LockTimes,
        commits: Commits,
        *,
        sharing: Sharing | None = None,
    ) -> None:
        self._etcd = etcd
        self._keys = keys
        self._times = times
        self._commits = commits
        self.revision_seen = 0
        self._layout = Layout(etcd, keys)
        self._reads = GroupRead(etcd, self._layout, sharing)

    async def read(self, resource: Resource, token: str, deadline: Deadline) -> Snapshot:
        """Read what is known of a resource, as seen by the peer with a token (empty: by nobody in particular).

        The read is linearizable: it shows everything that was acknowledged before it began.

        Raises:
            StoreUnavailableError: etcd could not be reached before the deadline.
            LayoutError: What is there is laid out by another version.
            CorruptRecordError: A key of the resource cannot be read.
        """
        found = await self._reads.read([etcd_ops.get(key) for key in self._keys.looked_at(resource, token)], deadline)
        self.revision_seen = max(self.revision_seen, found.revision)
        return await self._measured(resource, self._looked(resource, found.revision, found.responses), deadline)

    async def current_revision(self, deadline: Deadline) -> int:
        """Return etcd's revision, no older than anything that was acknowledged before. Raises like `read`."""
        return (await self.laid_out(deadline)).revision

    async def laid_out(self, deadline: Deadline) -> LaidOut:
        """Return the same, and since when the layout has been this version's. Raises like `read`."""
        laid_out = await self._layout.check(deadline)
        self.revision_seen = max(self.revision_seen, laid_out.revision)
        return laid_out

    async def ranges(self, asks: Sequence[etcd_ops.Op], deadline: Deadline) -> etcdrpc.TxnResponse:
        """Read up to 120 ranges, if the layout is this version's now.

        What is read later at the revision of such a read needs no such look: what was there then was in this layout.

        Raises:
            RevisionGoneError: One is to be read at a revision that is compacted.
            StoreUnavailableError: etcd could not be reached before the deadline.
            LayoutError: It is another version's.
        """
        return await self._layout.read(etcdrpc.TxnRequest(success=asks), deadline)

    async def count(self, ranges: Sequence[KeyRange], revision: int, deadline: Deadline) -> int:
        """Return how many keys there were in some ranges at a revision; a hundred ranges at once are one read.

        Raises:
            RevisionGoneError: It is compacted.
            StoreUnavailableError: etcd could not be reached before the deadline.
        """
        count = 0
        for first in range(0, len(ranges), _RANGES_AT_ONCE):
            asks = [etcd_ops.count(keys, revision=revision) for keys in ranges[first : first + _RANGES_AT_ONCE]]
            found = await self._etcd.read(etcdrpc.TxnRequest(success=asks), deadline)
            count += sum(response.response_range.count for response in found.responses)
        return count

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
        resource, record, revision = occurrence.resource, occurrence.record(), occurrence.revision
        lock = record.lock if record is not None and occurrence.leaves_locked else None
        if record is None:
            try:
                (snapshot,) = await self.snapshots([resource], revision, deadline)
            except RevisionGoneError as error:
                raise RevisionCompactedError(revision + 1) from error
            if snapshot.record is None:
                raise RevisionCompactedError(revision + 1)
            record = snapshot.record
        remaining = self._times.remaining(resource, lock) if lock else None
        snapshot = Snapshot(revision=revision, record=record, record_revision=revision, lock=lock, remaining=remaining)
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
        if revision:
            response = await self._etcd.read(etcdrpc.TxnRequest(success=asks), deadline)
        else:
            response = await self.ranges(asks, deadline)
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
        resource = attempt.command.resource
        outcome = await self._commits.commit(attempt, deadline)
        self.revision_seen = max(self.revision_seen, outcome.revision)
        if isinstance(outcome, Committed):
            return outcome
        return await self._measured(resource, self._looked(resource, outcome.revision, outcome.responses), deadline)

    def _looked(self, resource: Resource, revision: int, responses: Iterable[etcdrpc.ResponseOp]) -> Snapshot:
        """Take what was read of the keys that are looked at."""
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
