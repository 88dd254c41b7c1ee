"""Reading many: pages of operations, and pages of one operation's logs. All pages of a listing are one snapshot."""

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace

from etcd3 import etcdrpc
from etcd3.etcdrpc.kv_pb2 import KeyValue

from operation_service import details, etcd_ops, page_token
from operation_service.clock import Deadline
from operation_service.errors import (
    CorruptRecordError,
    InvalidRequestError,
    NotFoundError,
    PageTokenExpiredError,
    Violation,
)
from operation_service.etcd_client import EtcdClient, RevisionGoneError
from operation_service.etcd_store import EtcdStore, view_of
from operation_service.keys import KeyRange, Keys
from operation_service.model import Log, Record, Resource, Snapshot, State, View, state_of
from operation_service.page_token import LogsToken, OperationsToken
from operation_service.validation import is_name, is_project

_log = logging.getLogger(__name__)

_MAX_PAGE_BYTES = 3 * 1024 * 1024
"""A page ends here, so that it stays below the 4 MiB that gRPC clients accept by default."""
_SCAN = 500
"""How many records to read at once where most may be filtered out."""
DETAILS_AT_ONCE = 50
"""Operations whose details are read in one transaction: two ranges each, of the 128 operations that etcd takes."""
_READ_SECONDS = 10.0
_STOP_SCANNING_SECONDS = 1.0
"""With so much left, or a quarter if that is less, a page ends early and says how to go on, rather than running into
its caller's deadline."""


@dataclass(frozen=True, slots=True)
class OperationsQuery:
    """What to list. An empty project, name_prefix or set of states stands for all."""

    project: str
    name_prefix: str
    states: frozenset[State]

    def __str__(self) -> str:
        return "\n".join((self.project, self.name_prefix, *sorted(self.states)))

    @property
    def leaves_out(self) -> bool:
        """Whether what is scanned may be left out of the listing."""
        return bool(self.states) or (bool(self.name_prefix) and not self.project)

    def is_met_by(self, resource: Resource, state: State) -> bool:
        """Whether an operation is to be listed."""
        return (
            (not self.project or resource.project == self.project)
            and resource.name.startswith(self.name_prefix)
            and (not self.states or state in self.states)
        )


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


class Listing:
    """Reads pages.

    Args:
        etcd: The client.
        keys: Where things lie.
        store: Knows how to read what is found.
    """

    def __init__(self, etcd: EtcdClient, keys: Keys, store: EtcdStore) -> None:
        self._etcd = etcd
        self._keys = keys
        self._store = store

    async def operations(
        self, query: OperationsQuery, page_size: int, token: str, deadline: Deadline
    ) -> tuple[list[View], str]:
        """Read a page of operations, in the order of project and name.

        Returns:
            The page, and the token of the next one (empty: this is the last).

        Raises:
            InvalidRequestError: The token is none of this query's.
            PageTokenExpiredError: The moment of the listing is compacted away.
            StoreError: etcd cannot answer.
        """
        start = self._start(token, query)
        scan = Scan(self._etcd, self._keys, self._store, query, revision=start.revision if start else 0)
        after = Resource(start.after_project, start.after_name) if start else None
        matches: list[Found] = []
        stop_scanning = min(_STOP_SCANNING_SECONDS, deadline.remaining() / 4)
        is_cut = False
        try:
            async for found in scan.run(after, _SCAN if query.leaves_out else page_size + 1, deadline):
                if query.is_met_by(found.resource, found.state):
                    matches.append(found)
                if len(matches) > page_size:
                    break
                after = found.resource
                if deadline.remaining() < stop_scanning:
                    is_cut = True
                    break
            views = await self._views(matches[:page_size], scan.revision, deadline)
        except RevisionGoneError as error:
            raise PageTokenExpiredError from error
        if len(views) < len(matches):
            after, is_cut = views[-1].resource, True
        if not is_cut or after is None:
            return views, ""
        return views, page_token.write(OperationsToken(scan.revision, after.project, after.name, str(query)))

    @staticmethod
    def _start(token: str, query: OperationsQuery) -> OperationsToken | None:
        if not token:
            return None
        start = page_token.read(token, OperationsToken, str(query))
        if not is_project(start.after_project) or not is_name(start.after_name):
            raise InvalidRequestError([Violation("page_token", "must be a next_page_token, unchanged")])
        return start

    async def _views(self, matches: Sequence[Found], revision: int, deadline: Deadline) -> list[View]:
        """Read the details of operations, as many as go into a page."""
        views: list[View] = []
        size = 0
        for first in range(0, len(matches), DETAILS_AT_ONCE):
            for view in await self.views(matches[first : first + DETAILS_AT_ONCE], revision, deadline):
                size += _size(view)
                if views and size > _MAX_PAGE_BYTES:
                    return views
                views.append(view)
        return views

    async def views(self, some: Sequence[Found], revision: int, deadline: Deadline) -> list[View]:
        """Read the details of up to 50 operations, as they were at a revision.

        Raises:
            RevisionGoneError: It is compacted.
            StoreError: etcd cannot answer.
        """
        asks = [ask for found in some for ask in details.ask(self._keys, found.resource, found.record, revision)]
        responses: Iterator[etcdrpc.ResponseOp] = iter(())
        if asks:
            responses = iter((await self._etcd.read(etcdrpc.TxnRequest(success=asks), deadline)).responses)
        return [
            view_of(found.resource, found.snapshot, found.record, details.take(found.record, responses))
            for found in some
        ]

    async def logs(self, resource: Resource, page_size: int, token: str, deadline: Deadline) -> tuple[list[Log], str]:
        """Read a page of the logs of a resource's current operation, oldest first.

        Returns:
            The page, and the token of the next one (empty: this is the last).

        Raises:
            NotFoundError: The resource has no operation.
            InvalidRequestError: The token is none of this resource's.
            PageTokenExpiredError: The operation of the first page has gone.
            StoreError: etcd cannot answer.
        """
        if token:
            at = page_token.read(token, LogsToken, str(resource))
            if at.after >= at.count or not at.operation_id.isalnum():
                raise InvalidRequestError([Violation("page_token", "must be a next_page_token, unchanged")])
        else:
            record = (await self._store.read(resource, "", deadline)).record
            if record is None:
                raise NotFoundError(resource)
            at = LogsToken(record.operation_id, record.log_count, 0, str(resource))
        last = min(at.after + page_size, at.count)
        if last == at.after:
            return [], ""
        keys = details.log_range(self._keys, resource, at.operation_id, at.after + 1, last)
        response = await self._etcd.range(etcdrpc.RangeRequest(key=keys.start, range_end=keys.end), deadline)
        if len(response.kvs) < last - at.after:
            raise PageTokenExpiredError
        logs: list[Log] = []
        size = 0
        for kv in response.kvs:
            size += len(kv.value)
            if logs and size > _MAX_PAGE_BYTES:
                break
            logs.append(details.read_log(kv))
        after = at.after + len(logs)
        return logs, page_token.write(replace(at, after=after)) if after < at.count else ""


class Scan:
    """Goes over the records of a query, with their locks, at one revision.

    Args:
        etcd: The client.
        keys: Where things lie.
        store: Knows how to read what is found.
        query: Says where; whether what is found meets it is for the caller to see.
        revision: The revision. 0: that of the first read, which is linearizable.
    """

    def __init__(
        self, etcd: EtcdClient, keys: Keys, store: EtcdStore, query: OperationsQuery, *, revision: int = 0
    ) -> None:
        self._etcd = etcd
        self._keys = keys
        self._store = store
        self._query = query
        self.revision = revision

    async def run(self, after: Resource | None, limit: int, deadline: Deadline | None = None) -> AsyncIterator[Found]:
        """Yield what is there, in the order of the keys.

        Args:
            after: Begin behind this one. None: with the first.
            limit: How many to read at once.
            deadline: For all of it. None: a generous one for each read.

        Raises:
            RevisionGoneError: The revision is compacted.
            StoreError: etcd cannot answer.
        """
        records = self._keys.records(self._query.project, self._query.name_prefix)
        locks = self._keys.locks(self._query.project, self._query.name_prefix)
        start = self._keys.record(after) if after is not None else None
        while True:
            if start is not None:
                records = KeyRange(start + b"\0", records.end)
                locks = KeyRange(self._keys.lock_beside(start) + b"\0", locks.end)
            # Each lock has its record, so the first locks reach at least as far as as many records.
            asks = [etcd_ops.get_range(part, limit=limit, revision=self.revision) for part in (records, locks)]
            response = await self._etcd.read(etcdrpc.TxnRequest(success=asks), deadline or Deadline(_READ_SECONDS))
            self.revision = self.revision or response.header.revision
            found_records, found_locks = (answer.response_range for answer in response.responses)
            if not found_records.kvs:
                return
            start = found_records.kvs[-1].key
            locks_found = {kv.key: kv for kv in found_locks.kvs}
            if found_locks.more:
                rest = KeyRange(found_locks.kvs[-1].key + b"\0", self._keys.lock_beside(start) + b"\0")
                locks_found |= await self._rest_of_locks(rest, deadline)
            for kv in found_records.kvs:
                found = self._found(kv, locks_found)
                if found is not None:
                    yield found
            if not found_records.more:
                return

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
            lock = locks.get(self._keys.lock(resource))
            snapshot = self._store.snapshot(resource, [kv], [lock] if lock else [], self.revision)
        except (ValueError, CorruptRecordError) as error:
            _log.error("%r is not listed: %s", kv.key, error)
            return None
        return Found(resource, snapshot.record, snapshot) if snapshot.record is not None else None


def _size(view: View) -> int:
    """Return about how many bytes an operation takes in a response."""
    logs = sum(len(log.message.encode()) + 32 for log in view.logs)
    failure = view.record.failure
    error = len(failure.message.encode()) + sum(map(len, failure.details)) if failure else 0
    return len(view.request or b"") + logs + error + 2_048
