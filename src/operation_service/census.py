"""How many operators are dead, in all of etcd, as this replica knows it: nothing is read to answer that.

A replica looks over all operations once, in the background, and hears of every change from then on. It looks again
whenever changes may have been missed, and each hour all the same: etcd may drop a DELETE event.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from operation_service.changes import Changed, Occurrence
from operation_service.errors import StoreError
from operation_service.etcd_client import RevisionGoneError
from operation_service.lock_times import LockTimes
from operation_service.model import Event, Resource, State
from operation_service.scan import Scan
from operation_service.tallies import Tallies

_log = logging.getLogger(__name__)

_AGAIN_SECONDS = 3600.0
_PAUSE_SECONDS = 5.0
_AT_ONCE = 500
ENDS = (Event.EXPIRED, Event.OPERATOR_DEAD)
"""What watches tell of a lock that has ended by itself, or was broken."""


class Census:
    """Knows whose operators are dead.

    Args:
        scan: Makes what goes over all operations at one revision, no older than now.
        times: Knows every lock.
        tallies: Counts the expiries that are heard of.

    Attributes:
        is_known: Whether all has been looked over once. Before that it is not known how many there are.
    """

    def __init__(self, scan: Callable[[], Scan], times: LockTimes, tallies: Tallies) -> None:
        self._scan = scan
        self._times = times
        self._tallies = tallies
        self._dead: set[Resource] = set()
        self._changed: set[Resource] | None = None
        self._is_wanted = asyncio.Event()
        self.is_known = False

    @property
    def dead(self) -> int:
        """How many operators are dead."""
        return len(self._dead)

    def begin(self) -> None:
        """Note that changes will be told from now on; some before may have been missed."""
        self._is_wanted.set()

    def note(self, changes: Iterable[Changed], happened: Iterable[Occurrence]) -> None:
        """Hear what a revision changed, before the lock times do: they know whose lock has ended."""
        for occurrence in happened:
            resource = occurrence.resource
            event = occurrence.event
            if event is None:
                # Only a lock went: its operator has died, if nobody could cancel it.
                event = Event.OPERATOR_DEAD if self._times.lock_is_uncancellable(resource) else Event.EXPIRED
            if event in ENDS:
                self._tallies.expiries[event] += 1
            self._set(resource, event is Event.OPERATOR_DEAD)
        for changed in changes:
            if changed.is_record_deleted:
                self._set(changed.resource, False)

    def _set(self, resource: Resource, is_dead: bool) -> None:
        if is_dead:
            self._dead.add(resource)
        else:
            self._dead.discard(resource)
        if self._changed is not None:
            self._changed.add(resource)

    async def run(self) -> None:
        """Look when it is wanted, and each hour, until cancelled."""
        await self._is_wanted.wait()
        while True:
            self._is_wanted.clear()
            try:
                await self.look()
            except (StoreError, RevisionGoneError) as error:
                # What is known is kept; whoever was missed is found a little later.
                _log.debug("dead operators are not counted anew now: %s", error)
                await asyncio.sleep(_PAUSE_SECONDS)
                self._is_wanted.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_SECONDS):
                    await self._is_wanted.wait()

    async def look(self) -> None:
        """Look over all operations.

        What is told of a resource meanwhile says all there is to know of it, and counts for more than what is found:
        the look shows a moment that is no older than all that was told before it began.

        Raises:
            StoreError: etcd cannot answer.
            RevisionGoneError: It took so long that the moment has been compacted away.
        """
        self._changed, found, loop = set(), set[Resource](), asyncio.get_running_loop()
        try:
            count, began = 0, loop.time()
            async with contextlib.aclosing(self._scan().run(None, _AT_ONCE)) as scanned:
                async for each in scanned:
                    if each.state is State.OPERATOR_DEAD:
                        found.add(each.resource)
                    count += 1
                    if count % _AT_ONCE == 0:
                        # Half of the time is left to others.
                        await asyncio.sleep(loop.time() - began)
                        began = loop.time()
            self._dead = (found - self._changed) | (self._dead & self._changed)
            self.is_known = True
        finally:
            self._changed = None
