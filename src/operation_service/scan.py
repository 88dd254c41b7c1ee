"""Goes over the records of a query, from range to range, all at one revision."""

import logging
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass

from etcd3 import etcdrpc
from etcd3.etcdrpc.kv_pb2 import KeyValue

from operation_service import etcd_ops
from operation_service.clock import Deadline
from operation_service.errors import CorruptRecordError
from operation_service.etcd_client import EtcdClient
from operation_service.etcd_store import EtcdStore
from operation_service.keys import KeyRange, Keys
from operation_service.model import Record, Resource, Snapshot, State, state_of
from operation_service.survey import Survey

_log = logging.getLogger(__name__)

_READ_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class OperationsQuery:
    """What to list. An empty project, name_prefix or set of states stands for all.

    Attributes:
        project: Of which project.
        name_prefix: What names begin with.
        states: In which states.
        projects: Where `project` is empty: of these projects alone, in the order of their keys. None: of all.
    """

    project: str
    name_prefix: str
    states: frozenset[State]
    projects: Collection[str] | None = None

    def __str__(self) -> str:
        # Not `projects`: that is who asks, not what is asked, and may change from page to page.
        return "\n".join((self.project, self.name_prefix, *sorted(self.states)))

    @property
    def leaves_out(self) -> bool:
        """Whether what is scanned may be left out of the listing."""
        return bool(self.states) or (bool(self.name_prefix) and not self.project and self.projects is None)

    def is_met_by(self, resource: Resource, state: State) -> bool:
        """Whether an operation is to be listed."""
        return (
            (resource.project == self.project if self.project else self._may_have(resource.project))
            and resource.name.startswith(self.name_prefix)
            and (not self.states or state in self.states)
        )

    def _may_have(self, project: str) -> bool:
        return self.projects is None or project in self.projects

    def ranges(self, keys: Keys) -> list[KeyRange]:
        """Return the ranges of the records to list, in the order of their keys: what is not asked for is not read."""
        if self.project or self.projects is None:
            return [keys.records(self.project, self.name_prefix)]
        return [keys.records(project, self.name_prefix) for project in self.projects]


EVERYTHING = OperationsQuery("", "", frozenset())


@dataclass(frozen=True, slots=True)
class Found:
    """An operation that a scan has come across."""

    resource: Resource
    record: Record
    snapshot: Snapshot

    @property
    def state(self) -> State:
        """Where the operation stands."""
        return state_of(self.record, is_locked=self.snapshot.lock is not None)


class Scan:
    """Goes over the records of a query, with their locks, at one revision.

    Args:
        etcd: The client.
        keys: Where things lie.
        store: Knows how to read what is found.
        survey: Knows where reads may end, and is told when that was not so.
        query: Says where; whether what is found meets it is for the caller to see.
        revision: The revision. 0: that of the first read, which is linearizable.
    """

    def __init__(
        self,
        etcd: EtcdClient,
        keys: Keys,
        store: EtcdStore,
        survey: Survey,
        query: OperationsQuery,
        *,
        revision: int = 0,
    ) -> None:
        self._etcd = etcd
        self._keys = keys
        self._store = store
        self._survey = survey
        self._query = query
        self.revision = revision

    async def run(
        self, after: Resource | None, limit: int, deadline: Deadline | None = None
    ) -> AsyncGenerator[Found, None]:
        """Yield what is there, in the order of the keys.

        Args:
            after: Begin behind this one. None: with the first.
            limit: How many to read at once.
            deadline: For all of it. None: a generous one for each read.

        Raises:
            RevisionGoneError: The revision is compacted.
            StoreError: etcd cannot answer.
        """
        behind = self._keys.record(after) + b"\0" if after is not None else b""
        for records in self._query.ranges(self._keys):
            if behind < records.end:
                async for found in self._run(KeyRange(max(behind, records.start), records.end), limit, deadline):
                    yield found

    async def _run(self, records: KeyRange, limit: int, deadline: Deadline | None) -> AsyncGenerator[Found, None]:
        landmarks, start = self._survey.landmarks, records.start
        begun, wanted, ranges = start, limit, 0
        while start < records.end:
            # Its end is a hint. If what is wanted is not all there, the next range is twice as long, so that a gap of
            # any length takes few reads.
            reach = limit << ranges
            part = KeyRange(start, landmarks.end_for(start, records.end, reach))
            found_records, locks = await self._read(part, wanted, deadline)
            ranges += 1
            self._survey.note(begun, found_records.count, reach, ranges)
            for kv in found_records.kvs:
                found = self._found(kv, locks)
                if found is not None:
                    yield found
            wanted -= len(found_records.kvs)
            start = found_records.kvs[-1].key + b"\0" if found_records.more else part.end
            if wanted <= 0:
                begun, wanted, ranges = start, limit, 0

    async def _read(
        self, part: KeyRange, limit: int, deadline: Deadline | None
    ) -> tuple[etcdrpc.RangeResponse, dict[bytes, KeyValue]]:
        """Read the first records of a range, and the locks of these."""
        # Each lock has its record, so the first locks reach at least as far as as many records.
        parts = (part, self._keys.locks_beside(part))
        asks = [etcd_ops.get_range(keys, limit=limit, revision=self.revision) for keys in parts]
        response = await self._store.ranges(asks, deadline or Deadline(_READ_SECONDS))
        self.revision = self.revision or response.header.revision
        records, found_locks = (answer.response_range for answer in response.responses)
        locks = {kv.key: kv for kv in found_locks.kvs}
        if found_locks.more and records.kvs:
            last = self._keys.lock_beside(records.kvs[-1].key)
            locks |= await self._rest_of_locks(KeyRange(found_locks.kvs[-1].key + b"\0", last + b"\0"), deadline)
        return records, locks

    async def _rest_of_locks(self, rest: KeyRange, deadline: Deadline | None) -> dict[bytes, KeyValue]:
        """Read the locks up to the last record read; only locks without records, made by hand, leave any over."""
        if rest.start >= rest.end:
            return {}
        ask = etcdrpc.RangeRequest(key=rest.start, range_end=rest.end, revision=self.revision)
        return {kv.key: kv for kv in (await self._etcd.range(ask, deadline or Deadline(_READ_SECONDS))).kvs}

    def _found(self, kv: KeyValue, locks: dict[bytes, KeyValue]) -> Found | None:
        """Read a record; None if it is none: what was spoilt by hand must not hide all the others. Get tells of it."""
        try:
            resource = self._keys.resource_of(kv.key)
            lock = locks.get(self._keys.lock_beside(kv.key))
            snapshot = self._store.snapshot(resource, [kv], [lock] if lock else [], self.revision)
        except (ValueError, CorruptRecordError) as error:
            _log.error("%r is not listed: %s", kv.key, error)
            return None
        return Found(resource, snapshot.record, snapshot) if snapshot.record is not None else None
