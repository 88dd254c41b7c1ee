"""Reading many: pages of operations, and pages of one operation's logs. All pages of a listing are one snapshot."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from etcd3 import etcdrpc

from operation_service import details, etcd_ops, page_token
from operation_service.clock import Deadline
from operation_service.errors import InvalidRequestError, NotFoundError, PageTokenExpiredError, Violation
from operation_service.etcd_client import EtcdClient, RevisionGoneError
from operation_service.etcd_store import EtcdStore
from operation_service.keys import Keys
from operation_service.model import Details, Log, Resource, View, view_of
from operation_service.page_token import LogsToken, OperationsToken
from operation_service.scan import Found, OperationsQuery, Scan
from operation_service.survey import Survey
from operation_service.validation import is_name, is_project

_MAX_PAGE_BYTES = 3 * 1024 * 1024
"""A page ends here, so that it stays below the 4 MiB that gRPC clients accept by default."""
_SCAN = 500
"""How many records to read at once where most may be filtered out."""
_RANGES_AT_ONCE = 100
"""How many ranges are read in one transaction, of the 128 operations that etcd takes."""
DETAILS_AT_ONCE = _RANGES_AT_ONCE // 2
"""Operations whose details are read in one transaction, whatever they are: two ranges each."""
_STOP_SCANNING_SECONDS = 1.0
"""With so much left, or a quarter if that is less, a page ends early and says how to go on, rather than running into
its caller's deadline."""


class Listing:
    """Reads pages.

    Args:
        etcd: The client.
        keys: Where things lie.
        store: Knows how to read what is found.
        survey: Knows where reads may end.
    """

    def __init__(self, etcd: EtcdClient, keys: Keys, store: EtcdStore, survey: Survey) -> None:
        self._etcd = etcd
        self._keys = keys
        self._store = store
        self._survey = survey

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
        scan = self.scan(query, revision=start.revision if start else 0)
        after = Resource(start.after_project, start.after_name) if start else None
        matches: list[Found] = []
        limit = _SCAN if query.leaves_out else page_size + 1
        stop_scanning = min(_STOP_SCANNING_SECONDS, deadline.remaining() / 4)
        is_cut = False
        try:
            async for found in scan.run(after, limit, deadline, spare_seconds=stop_scanning):
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
        if not (is_cut or scan.is_cut) or after is None:
            return views, ""
        return views, page_token.write(OperationsToken(scan.revision, after.project, after.name, str(query)))

    def scan(self, query: OperationsQuery, *, revision: int = 0) -> Scan:
        """Return a scan of the records of a query, at a revision, or (0) at that of its first read."""
        return Scan(self._etcd, self._keys, self._store, self._survey, query, revision=revision)

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
        for some in _portions(matches):
            for view in await self.views(some, revision, deadline):
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
        asks = [
            ask
            for found in some
            if not details.are_in(found.record)
            for ask in details.ask(self._keys, found.resource, found.record, revision)
        ]
        responses: Iterator[etcdrpc.ResponseOp] = iter(())
        if asks:
            responses = iter((await self._etcd.read(etcdrpc.TxnRequest(success=asks), deadline)).responses)
        return [view_of(found.resource, found.snapshot, found.record, _details(found, responses)) for found in some]

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
        found = (await self._store.ranges([etcd_ops.get_range(keys)], deadline)).responses[0].response_range
        if len(found.kvs) < last - at.after:
            raise PageTokenExpiredError
        logs: list[Log] = []
        size = 0
        for kv in found.kvs:
            size += len(kv.value)
            if logs and size > _MAX_PAGE_BYTES:
                break
            logs.append(details.read_log(kv))
        after = at.after + len(logs)
        return logs, page_token.write(replace(at, after=after)) if after < at.count else ""


def _portions(matches: Sequence[Found]) -> Iterator[list[Found]]:
    """Part operations into as many at a time as can have their details read in one transaction."""
    some: list[Found] = []
    ranges = 0
    for found in matches:
        more = 0 if details.are_in(found.record) else details.reads(found.record)
        if ranges + more > _RANGES_AT_ONCE:
            yield some
            some, ranges = [], 0
        some.append(found)
        ranges += more
    if some:
        yield some


def _details(found: Found, responses: Iterator[etcdrpc.ResponseOp]) -> Details:
    return details.told_by(found.record) if details.are_in(found.record) else details.take(found.record, responses)


def _size(view: View) -> int:
    """Return about how many bytes an operation takes in a response."""
    logs = sum(len(log.message.encode()) + 32 for log in view.logs)
    failure = view.record.failure
    error = len(failure.message.encode()) + sum(map(len, failure.details)) if failure else 0
    return len(view.request or b"") + logs + error + 2_048
