"""What WatchOperations tells: what is there, what has happened since a revision, what happens now; without a seam."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Collection, Sequence
from dataclasses import dataclass

from operation_service.budget import Budget
from operation_service.changes import Occurrence, expiry_event, occurrences
from operation_service.clock import Deadline
from operation_service.errors import (
    CorruptRecordError,
    LayoutError,
    OperationError,
    RevisionCompactedError,
    RevisionInFutureError,
    StoreUnavailableError,
    WatchInterruptedError,
)
from operation_service.etcd_client import EtcdClient, RevisionGoneError
from operation_service.etcd_store import EtcdStore
from operation_service.etcd_watch import Batch, EtcdWatch
from operation_service.keys import Keys
from operation_service.layout import Layout
from operation_service.listing import DETAILS_AT_ONCE, Listing
from operation_service.model import Event, Resource, State, View
from operation_service.scan import Found, OperationsQuery
from operation_service.watch_hub import WatchHub

_log = logging.getLogger(__name__)

_READ_SECONDS = 10.0
_BLIND_SECONDS = 10.0
_SCAN = 500
_SNAPSHOTS_AT_ONCE = 4
"""Finding what is there reads all of it; more at once would only be slower."""
_FOUND_AT_ONCE = 500_000
"""Of what is there, how much may be yet to be told, all watches together: about 300 bytes each, 150 MiB."""


@dataclass(frozen=True, slots=True)
class WatchQuery:
    """What to watch. An empty project or name_prefix stands for all, start_revision 0 for what is there first.

    Where project is empty, `projects` are those to watch, in the order of their keys. None: all.
    """

    project: str
    name_prefix: str
    start_revision: int
    projects: Collection[str] | None = None

    @property
    def present(self) -> OperationsQuery:
        """What is there at the beginning."""
        return OperationsQuery(self.project, self.name_prefix, frozenset(), self.projects)

    def is_met_by(self, resource: Resource) -> bool:
        """Whether changes of a resource are to be told."""
        project = resource.project
        is_asked_for = project == self.project if self.project else self.projects is None or project in self.projects
        return is_asked_for and resource.name.startswith(self.name_prefix)


@dataclass(frozen=True, slots=True)
class Told:
    """One message of a watch; `revision` is up to where everything has been told with it."""

    event: Event
    view: View
    revision: int


class Watching:
    """Serves watches.

    Args:
        etcd: The client.
        keys: Where things lie.
        store: Reads what is to be told.
        listing: Reads what is there.
        hub: Hears what happens.
    """

    def __init__(self, etcd: EtcdClient, keys: Keys, store: EtcdStore, listing: Listing, hub: WatchHub) -> None:
        self._etcd = etcd
        self._keys = keys
        self._store = store
        self._listing = listing
        self._hub = hub
        self._layout = Layout(etcd, keys)
        self._snapshots = asyncio.Semaphore(_SNAPSHOTS_AT_ONCE)
        self._found = Budget(_FOUND_AT_ONCE, "operations that other watches are told at their beginning")
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End all watches: the service is stopping."""
        self._stopping.set()
        self._found.open_up()
        self._hub.stop()

    async def begin(self, query: WatchQuery, deadline: Deadline) -> int:
        """Make sure that a watch can begin.

        Args:
            query: What to watch.
            deadline: For etcd's answer, so that a caller learns in time that there is none.

        Returns:
            The current revision, for `watch`.

        Raises:
            RevisionInFutureError: start_revision is yet to come.
            StoreError: etcd cannot answer.
        """
        current = await self._store.current_revision(deadline)
        if query.start_revision > current + 1:
            raise RevisionInFutureError(current)
        return current

    async def watch(self, query: WatchQuery, current: int) -> AsyncGenerator[Told, None]:
        """Tell of changes, for ever.

        Args:
            query: Of which.
            current: The current revision, from `begin`.

        Raises:
            RevisionCompactedError: The history from start_revision on is not kept any more, or is of another layout.
            WatchEndedError: The watch cannot go on; it says from where to resume.
            LayoutError: The layout has become another version's.
            StoreError: etcd cannot answer.
        """
        after = query.start_revision - 1
        if not query.start_revision:
            after = current
            async with contextlib.aclosing(self._present(query, current)) as present:
                async for told in present:
                    yield told
        async with contextlib.aclosing(self._changes(query, after)) as changes:
            async for told in changes:
                yield told

    async def _present(self, query: WatchQuery, revision: int) -> AsyncGenerator[Told, None]:
        """Tell what is there at a revision, in the order of the latest changes.

        So whoever hears only a part of it can resume behind the last one it has heard: nothing that it has not heard
        is older. The very last one stands for the whole revision.
        """
        ranges = list(query.present.ranges(self._keys))
        try:
            count = await self._store.count(ranges, revision, Deadline(_READ_SECONDS))
            async with self._found.share(count), contextlib.aclosing(self._told(query, revision)) as present:
                async for told in present:
                    yield told
        except RevisionGoneError as error:
            raise RevisionCompactedError(revision + 1) from error

    async def _told(self, query: WatchQuery, revision: int) -> AsyncGenerator[Told, None]:
        found: list[tuple[int, Resource]] = []
        async with self._snapshots:
            if not self._stopping.is_set():
                found = await self._in_order_of_change(query, revision)
        told_up_to = -1
        for first in range(0, len(found), DETAILS_AT_ONCE):
            if self._stopping.is_set():
                break
            some = [resource for _, resource in found[first : first + DETAILS_AT_ONCE]]
            try:
                views = await self._views(some, revision)
            except StoreUnavailableError as error:
                raise WatchInterruptedError(f"etcd is not available: {error.why}", told_up_to + 1) from error
            for place, view in enumerate(views, first):
                is_last = place + 1 == len(found)
                is_last_of_revision = is_last or found[place + 1][0] > found[place][0]
                told_up_to = revision if is_last else found[place][0] - (not is_last_of_revision)
                yield Told(_fitting(view.state), view, told_up_to)
        if self._stopping.is_set():
            raise WatchInterruptedError("the service is stopping", told_up_to + 1)

    async def _views(self, resources: Sequence[Resource], revision: int) -> list[View]:
        deadline = Deadline(_READ_SECONDS)
        snapshots = await self._store.snapshots(resources, revision, deadline)
        present = [
            Found(resource, snapshot.record, snapshot)
            for resource, snapshot in zip(resources, snapshots, strict=True)
            if snapshot.record is not None
        ]
        return await self._listing.views(present, revision, deadline)

    async def _in_order_of_change(self, query: WatchQuery, revision: int) -> list[tuple[int, Resource]]:
        scan = self._listing.scan(query.present, revision=revision)
        return sorted(
            [
                (found.snapshot.record_revision, found.resource)
                async for found in scan.run(None, _SCAN)
                if query.is_met_by(found.resource)
            ]
        )

    async def _changes(self, query: WatchQuery, after: int) -> AsyncGenerator[Told, None]:
        """Tell what happened after a revision and happens now: from etcd's history as far back as the hub cannot."""
        if not self._hub.covers(after):
            async with contextlib.aclosing(self._history(after)) as batches:
                async for batch in batches:
                    for occurrence in await self._occurrences(batch):
                        if query.is_met_by(occurrence.resource):
                            reading = self._store.view_after(occurrence, Deadline(_READ_SECONDS))
                            if (view := await self._readable(occurrence, reading, after)) is not None:
                                yield Told(_event(occurrence, view), view, occurrence.told_up_to(query.is_met_by))
                    after = batch.revision
                    if self._hub.covers(after):
                        break
        async with contextlib.aclosing(self._hub.follow(after)) as entries:
            async for entry in entries:
                if query.is_met_by(entry.occurrence.resource):
                    view = await self._readable(entry.occurrence, self._hub.view(entry), after)
                    if view is not None:
                        told_up_to = entry.occurrence.told_up_to(query.is_met_by)
                        yield Told(_event(entry.occurrence, view), view, told_up_to)
                after = entry.occurrence.told_up_to()

    async def _occurrences(self, batch: Batch) -> list[Occurrence]:
        try:
            return occurrences(batch, self._keys)
        except LayoutError as error:
            raise await self._was_another_layout(batch.revision - 1) from error

    async def _was_another_layout(self, after: int) -> OperationError:
        """Return what to tell of a history that was laid out by another version, even if what is there now is not.

        Whoever resumes in there would be told LayoutError for ever, and nothing of what has happened since.
        """
        try:
            laid_out = await self._store.laid_out(Deadline(_READ_SECONDS))
        except StoreUnavailableError as error:
            return WatchInterruptedError(f"etcd is not available: {error.why}", after + 1)
        except LayoutError as error:
            return error.again()
        return RevisionCompactedError(laid_out.since, "that history was laid out by another version of the service")

    @staticmethod
    async def _readable(occurrence: Occurrence, reading: Awaitable[View], after: int) -> View | None:
        """Wait for what is to be told of a change; None, and a line in the log, where it was spoilt by hand."""
        try:
            return await reading
        except CorruptRecordError as error:
            _log.error("a change at revision %d cannot be told: %s", occurrence.revision, error)
            return None
        except StoreUnavailableError as error:
            raise WatchInterruptedError(f"etcd is not available: {error.why}", after + 1) from error

    async def _history(self, after: int) -> AsyncGenerator[Batch, None]:
        """Yield etcd's changes after a revision, until the service stops."""
        watch = EtcdWatch(self._etcd, self._keys.watched, after + 1, patience_seconds=_BLIND_SECONDS)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            # Another layout may have begun before what the watch tells of. What is compacted, the watch finds out.
            with contextlib.suppress(RevisionGoneError):
                await self._layout.check(Deadline(_READ_SECONDS), revision=after)
            async with contextlib.aclosing(watch.batches()) as batches:
                while True:
                    following = asyncio.ensure_future(anext(batches))
                    try:
                        await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        if not following.done():
                            # The generator can only be closed once nobody waits for it any more.
                            following.cancel()
                            await asyncio.wait({following})
                    if stopping.done():
                        raise WatchInterruptedError("the service is stopping", after + 1)
                    batch = following.result()
                    yield batch
                    after = batch.revision
        except LayoutError as error:
            raise await self._was_another_layout(after) from error
        except StoreUnavailableError as error:
            raise WatchInterruptedError("etcd cannot be reached", after + 1) from error
        finally:
            stopping.cancel()


def _fitting(state: State) -> Event:
    """Return the event that fits a state (CONTRACT section 3)."""
    return Event.CREATED if state is State.PENDING else Event(state.value)


def _event(occurrence: Occurrence, view: View) -> Event:
    return occurrence.event or expiry_event(view.record.lock)
