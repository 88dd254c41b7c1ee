"""One watch of etcd for all who listen: each change is received, read and rendered once, however many there are.

The newest changes are kept in a bounded buffer with one place in it for each listener, so that a listener costs next to
nothing, and one that does not keep up is told so instead of holding memory.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from operation_service import weights
from operation_service.changes import Changed, Occurrence, by_resource, told
from operation_service.clock import Deadline
from operation_service.codec import decode_lock
from operation_service.errors import (
    CorruptRecordError,
    LayoutError,
    RevisionCompactedError,
    StoreError,
    WatcherTooSlowError,
    WatchInterruptedError,
)
from operation_service.etcd_client import EtcdClient
from operation_service.etcd_store import EtcdStore
from operation_service.etcd_watch import Batch, EtcdWatch
from operation_service.expiry import Expiry
from operation_service.keys import Keys
from operation_service.layout import LaidOut
from operation_service.lock_times import LockTimes
from operation_service.model import Event, Resource, View

_log = logging.getLogger(__name__)

_BUFFERED = 10_000
_BUFFERED_BYTES = 32 * 1024 * 1024
"""A record may be 400 KiB as it is written (an error of 64 KiB and a log of 4 KiB, all of it control characters); usual
ones, with what is beside them 1.1 KB, leave room for three times as many."""
_ENTRY_BYTES = 600
"""About what an entry takes beside its record."""
_BACK_REVISIONS = 5_000
"""So far back a hub begins, if etcd's history is there: when a replica starts again, the watches that come back to it
were somewhere in there, and each that was not would need a watch of etcd of its own, until something happens."""
_VIEWS_KEPT = 200
_VIEWS_BYTES = 32 * 1024 * 1024
"""A view may be 730 KiB (a request of 256 KiB, 100 logs of 4 KiB); for a late listener an older one is read again."""
_READS_AT_ONCE = 32
_READS_AHEAD = 64
"""Changes that are read before a listener asks for them. What happens faster is read by those who want it."""
_READ_SECONDS = 10.0
_BLIND_SECONDS = 10.0
"""After so long without etcd, watches end: staying open would tell the callers that nothing happens."""
_PAUSE_SECONDS = 0.5
_AT_ONCE = 100
_REFUSES_THE_HOLDER = frozenset({Event.CANCELLED, Event.EXPIRED, Event.OPERATOR_DEAD})
"""What a record says of a change that leaves a cancelled peer behind. A lock that has run out leaves its record as it
was: only one that was broken (`break_lock.py`) has written that it ended."""


class Entry:
    """One change in the buffer, with what is told of it, read when the first listener needs it."""

    __slots__ = ("_view", "occurrence", "position", "size")

    def __init__(self, occurrence: Occurrence, position: int) -> None:
        self.occurrence = occurrence
        self.position = position
        self.size = _ENTRY_BYTES + len(occurrence.written or b"")
        self._view: asyncio.Future[View] | None = None

    def view(self, read: Callable[[Occurrence], Awaitable[View]]) -> asyncio.Future[View]:
        """Return the operation after the change; read once for all listeners."""
        if self._view is None or (self._view.done() and self._view.exception()):
            self._view = asyncio.ensure_future(read(self.occurrence))
            # Whoever needs the view gets the error; when nobody does any more, that is no news for asyncio's log.
            self._view.add_done_callback(lambda done: done.cancelled() or done.exception())
        return self._view

    def forget_view(self) -> None:
        """Give the view's memory back."""
        self._view = None


@dataclass(slots=True)
class _Place:
    """Where a listener is: in which run of the hub, at which entry, what it has been told, and since when it is there.

    It came after a read of etcd, so that what the hub had not heard before then does not count against it.
    """

    epoch: int
    position: int
    told_up_to: int
    since: float


class Census(Protocol):
    """Counts what it hears of (`census.py`)."""

    def begin(self) -> None:
        """Note that changes will be told from now on; some before may have been missed."""
        ...

    def note(self, changes: Iterable[Changed], happened: Iterable[Occurrence]) -> None:
        """Hear what a revision changed."""
        ...


class WatchHub:
    """Receives every change of every operation.

    Args:
        etcd: The client.
        keys: Where things lie.
        store: Reads what is told of a change.
        times: Is told of every lock that is taken and every one that goes.
        expiry: Looks at all locks whenever changes may have been missed.
        on_record_gone: Is told of every record that leaves etcd.
        census: Is told of every change, if there is one.
    """

    def __init__(
        self,
        etcd: EtcdClient,
        keys: Keys,
        store: EtcdStore,
        times: LockTimes,
        *,
        expiry: Expiry,
        on_record_gone: Callable[[Resource], None],
        census: Census | None = None,
    ) -> None:
        self._etcd = etcd
        self._keys = keys
        self._store = store
        self._times = times
        self._expiry = expiry
        self._on_record_gone = on_record_gone
        self._census = census
        self._buffer: deque[Entry] = deque()
        self._buffer_bytes = 0
        self._viewed: deque[tuple[Entry, int]] = deque()
        self._viewed_bytes = 0
        self._end = 0
        self._epoch = 0
        self._refused: tuple[int, LayoutError] | None = None
        self._complete_from: int | None = None
        self._seen_up_to = 0
        self._news = asyncio.Event()
        self._watch: EtcdWatch | None = None
        self._is_stopping = False
        self._listeners = 0
        self._reads_ahead = 0
        self._reading = asyncio.Semaphore(_READS_AT_ONCE)

    @property
    def interrupted_seconds(self) -> float:
        """For how long etcd's changes have not been heard. 0: they are."""
        return self._watch.interrupted_seconds if self._watch else 0.0

    async def run(self) -> None:
        """Receive changes until cancelled; begin anew when etcd has compacted away what was missed.

        Under another version's layout nothing is received: it begins anew once the layout is this version's again.
        """
        while True:
            try:
                laid_out = await self._store.laid_out(Deadline(_READ_SECONDS))
                self._seen_up_to = laid_out.revision
                start = await self._start(laid_out)
                self._begin(start)
                await self._expiry.look()
                if self._census is not None:
                    self._census.begin()
                watch = self._watch = EtcdWatch(self._etcd, self._keys.watched, start)
                async with contextlib.aclosing(watch.batches()) as batches:
                    async for batch in batches:
                        self._receive(batch)
            except RevisionCompactedError as error:
                _log.warning("changes up to revision %d were missed: etcd has compacted them", error.compact_revision)
            except LayoutError as error:
                self._refuse(error)
                await asyncio.sleep(_PAUSE_SECONDS)
            except StoreError:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _start(self, now: LaidOut) -> int:
        """Return from where to hear: from a while ago, or as far as etcd's history goes, and is of this layout."""
        start, end = max(1, now.revision + 1 - _BACK_REVISIONS, now.since + 1), now.revision + 1
        middle = start
        while start < end:
            # etcd does not tell which revision it has compacted, only that one is gone.
            if await self._etcd.is_kept(self._keys.watched.start, max(1, middle - 1), Deadline(_READ_SECONDS)):
                end = middle
            else:
                start = middle + 1
            middle = (start + end) // 2
        return end

    def stop(self) -> None:
        """End all listeners: the service is stopping."""
        self._is_stopping = True
        self._wake()

    def covers(self, after: int) -> bool:
        """Whether every change after a revision is in the buffer, or yet to come."""
        return self._complete_from is not None and after + 1 >= self._complete_from

    async def follow(self, after: int) -> AsyncGenerator[Entry, None]:
        """Yield every change after a revision that the hub covers, in order, for ever.

        Raises:
            WatcherTooSlowError: The caller has fallen behind further than the buffer reaches.
            WatchInterruptedError: The service is stopping, or has not heard of all that etcd did.
            LayoutError: The layout has become another version's.
        """
        if not self.covers(after):
            # Between the caller's own look and here the hub may have begun anew, or let go of what is needed.
            raise WatchInterruptedError("the service has missed changes meanwhile", after + 1)
        place = _Place(
            epoch=self._epoch,
            position=next((each.position for each in self._buffer if each.occurrence.revision > after), self._end),
            told_up_to=after,
            since=asyncio.get_running_loop().time(),
        )
        self._listeners += 1
        try:
            while True:
                for entry in await self._next(place):
                    place.position = entry.position + 1
                    # The hub may lag behind what the caller has read of etcd itself.
                    if entry.occurrence.revision > after:
                        yield entry
                        place.told_up_to = entry.occurrence.told_up_to()
        finally:
            self._listeners -= 1

    async def view(self, entry: Entry) -> View:
        """Return the operation after a change.

        Raises:
            OperationError: It cannot be read.
        """
        if entry.position < self._end - _VIEWS_KEPT:
            return await self._read(entry.occurrence)
        return await asyncio.shield(entry.view(self._read_and_keep(entry)))

    async def _next(self, place: "_Place") -> list[Entry]:
        """Return some entries from a place on, once there are any."""
        while True:
            resume = place.told_up_to + 1
            if self._is_stopping:
                raise WatchInterruptedError("the service is stopping", resume)
            if self._refused is not None and self._refused[0] == place.epoch:
                raise self._refused[1].again()
            if place.epoch != self._epoch:
                raise WatchInterruptedError("the service has missed changes, which etcd has compacted away", resume)
            if self._blind_seconds(place) > _BLIND_SECONDS:
                raise WatchInterruptedError("etcd cannot be reached", resume)
            skip = place.position - (self._end - len(self._buffer))
            if skip < 0:
                if not self.covers(place.told_up_to):
                    raise WatcherTooSlowError(resume)
                # What went was older than what it listens for: the hub hears of the past, too, when it begins.
                place.position, skip = place.position - skip, 0
            if place.position < self._end:
                return list(islice(self._buffer, skip, skip + _AT_ONCE))
            # Waking up now and then is for the sake of `interrupted_seconds`. Not with asyncio.wait_for: before Python
            # 3.12 that swallows a cancellation which comes with the news, and gRPC cancels a call only once.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._news.wait()

    def _blind_seconds(self, place: "_Place") -> float:
        listened = asyncio.get_running_loop().time() - place.since
        return min(listened, self._watch.interrupted_seconds) if self._watch else listened

    def _begin(self, revision: int) -> None:
        """Begin, or begin anew with a gap behind: whoever listened across it has to be told."""
        self._epoch += 1
        self._buffer.clear()
        self._buffer_bytes = 0
        self._complete_from = revision
        self._wake()

    def _refuse(self, error: LayoutError) -> None:
        """End all listeners: what happens from now on is not told."""
        if self._complete_from is None:
            return
        _log.warning("changes are not told any more: %s", error.why)
        self._refused = (self._epoch, error)
        self._epoch += 1
        self._buffer.clear()
        self._buffer_bytes = 0
        self._complete_from = None
        self._wake()

    def _receive(self, batch: Batch) -> None:
        changes = by_resource(batch, self._keys)
        happened = told(changes, batch.revision)
        if batch.revision > self._seen_up_to:
            self._note(batch.revision, changes, happened)
        for occurrence in happened:
            entry = Entry(occurrence, self._end)
            self._end += 1
            self._buffer.append(entry)
            if self._listeners and self._reads_ahead < _READS_AHEAD:
                self._reads_ahead += 1
                entry.view(self._read_and_keep(entry)).add_done_callback(self._has_read_ahead)
            self._buffer_bytes += entry.size
            while len(self._buffer) > _BUFFERED or self._buffer_bytes > _BUFFERED_BYTES:
                oldest = self._buffer.popleft()
                self._buffer_bytes -= oldest.size
                self._complete_from = oldest.occurrence.revision + 1
        self._forget_views()
        self._wake()

    def _note(self, revision: int, changes: Sequence[Changed], happened: Sequence[Occurrence]) -> None:
        """Pass on what others have to know of locks and records."""
        if self._census is not None:
            self._census.note(changes, happened)
        for occurrence in happened:
            if occurrence.event in _REFUSES_THE_HOLDER and (record := occurrence.record()) and record.lock:
                self._times.cancelled(occurrence.resource, revision, record.lock)
        for changed in changes:
            if changed.is_record_deleted:
                self._on_record_gone(changed.resource)
            if changed.is_lock_deleted:
                self._times.gone(changed.resource, revision)
            elif changed.lock is not None and not self._times.knows(changed.resource, revision):
                with contextlib.suppress(CorruptRecordError):
                    lock = decode_lock(self._keys.lock(changed.resource), changed.lock)
                    self._times.taken(changed.resource, revision, lock)

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _read(self, occurrence: Occurrence) -> View:
        async with self._reading:
            return await self._store.view_after(occurrence, Deadline(_READ_SECONDS))

    def _read_and_keep(self, entry: Entry) -> Callable[[Occurrence], Awaitable[View]]:
        async def read(occurrence: Occurrence) -> View:
            view = await self._read(occurrence)
            size = weights.of_view(view)
            self._viewed.append((entry, size))
            self._viewed_bytes += size
            self._forget_views()
            return view

        return read

    def _has_read_ahead(self, _view: object) -> None:
        self._reads_ahead -= 1

    def _forget_views(self) -> None:
        while self._viewed and (
            self._viewed_bytes > _VIEWS_BYTES or self._viewed[0][0].position < self._end - _VIEWS_KEPT
        ):
            entry, size = self._viewed.popleft()
            self._viewed_bytes -= size
            entry.forget_view()
