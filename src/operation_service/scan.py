"""Goes over the records of a query, several ranges at a time, all at one revision."""

import logging
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
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
from operation_service.stretches import Ask, Seen, Stretches
from operation_service.survey import Survey

_log = logging.getLogger(__name__)

_READ_SECONDS = 10.0
_RANGES_AT_ONCE = 60
"""Each is a read of records and one of locks, and etcd takes 128 operations in a transaction."""

_Read = tuple[KeyValue, Mapping[bytes, KeyValue]]
"""A record, and locks among which its own is, if it has one."""


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

    def ranges(self, keys: Keys) -> Iterator[KeyRange]:
        """Yield the ranges of the records to list, in the order of their keys: what is not asked for is not read."""
        if self.project or self.projects is None:
            yield keys.records(self.project, self.name_prefix)
        else:
            yield from (keys.records(project, self.name_prefix) for project in self.projects)


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

    Attributes:
        is_cut: Whether `run` has ended before it was through, because its time was nearly over.
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
        self.is_cut = False

    async def run(
        self, after: Resource | None, limit: int, deadline: Deadline | None = None, *, spare_seconds: float = 0.0
    ) -> AsyncGenerator[Found, None]:
        """Yield what is there, in the order of the keys.

        Args:
            after: Begin behind this one. None: with the first.
            limit: How many are wanted, and so are read at once.
            deadline: For all of it. None: a generous one for each read.
            spare_seconds: With less left until the deadline, and something found, nothing more is read: `is_cut`.

        Raises:
            RevisionGoneError: The revision is compacted.
            StoreError: etcd cannot answer.
        """
        behind = self._keys.record(after) + b"\0" if after is not None else b""
        stretches = Stretches[_Read](
            (
                KeyRange(max(behind, keys.start), keys.end)
                for keys in self._query.ranges(self._keys)
                if behind < keys.end
            ),
            limit,
        )
        has_found, landmarks = False, self._survey.landmarks
        # Where it is one range after the other anyway, what is read ahead in others would only be waited for.
        while asks := stretches.asks(landmarks.end_for, _RANGES_AT_ONCE if self._etcd.members.reads_at_once else 1):
            if has_found and deadline is not None and deadline.remaining() < spare_seconds:
                self.is_cut = True
                return
            seen = await self._read(asks, deadline)
            for ask, each in zip(asks, seen, strict=True):
                self._survey.note(ask.begun, each.count, ask.reach, ask.reads)
            for kv, locks in stretches.take(seen):
                found = self._found(kv, locks)
                if found is not None:
                    has_found = True
                    yield found

    async def _read(self, asks: Sequence[Ask], deadline: Deadline | None) -> list[Seen[_Read]]:
        """Read the first records of some parts of ranges, and the locks of these."""
        # Each lock has its record, so the first locks reach at least as far as as many records.
        reads = [
            etcd_ops.get_range(keys, limit=ask.limit, revision=self.revision)
            for ask in asks
            for keys in (ask.part, self._keys.locks_beside(ask.part))
        ]
        response = await self._store.ranges(reads, deadline or Deadline(_READ_SECONDS))
        self.revision = self.revision or response.header.revision
        answers = [answer.response_range for answer in response.responses]
        seen: list[Seen[_Read]] = []
        for records, found_locks in zip(answers[::2], answers[1::2], strict=True):
            locks = {kv.key: kv for kv in found_locks.kvs}
            if found_locks.more and records.kvs:
                last = self._keys.lock_beside(records.kvs[-1].key)
                locks |= await self._rest_of_locks(KeyRange(found_locks.kvs[-1].key + b"\0", last + b"\0"), deadline)
            rest = records.kvs[-1].key + b"\0" if records.more else None
            seen.append(Seen([(kv, locks) for kv in records.kvs], records.count, rest))
        return seen

    async def _rest_of_locks(self, rest: KeyRange, deadline: Deadline | None) -> dict[bytes, KeyValue]:
        """Read the locks up to the last record read; only locks without records, made by hand, leave any over."""
        if rest.start >= rest.end:
            return {}
        ask = etcdrpc.RangeRequest(key=rest.start, range_end=rest.end, revision=self.revision)
        return {kv.key: kv for kv in (await self._etcd.range(ask, deadline or Deadline(_READ_SECONDS))).kvs}

    def _found(self, kv: KeyValue, locks: Mapping[bytes, KeyValue]) -> Found | None:
        """Read a record; None if it is none: what was spoilt by hand must not hide all the others. Get tells of it."""
        try:
            resource = self._keys.resource_of(kv.key)
            lock = locks.get(self._keys.lock_beside(kv.key))
            snapshot = self._store.snapshot(resource, [kv], [lock] if lock else [], self.revision)
        except (ValueError, CorruptRecordError) as error:
            _log.error("%r is not listed: %s", kv.key, error)
            return None
        return Found(resource, snapshot.record, snapshot) if snapshot.record is not None else None
