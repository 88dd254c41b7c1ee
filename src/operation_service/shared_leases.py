"""Leases that keys share which end at about the same time: one grant for many of them, instead of one for each.

A lease for every key is dear, and too many keys on one lease are as well (ETCD_FACTS, Leases). So each lease here takes
a bounded number of keys, and only such as need to last until shortly before it ends. A key never ends before its time:
what is shared is always the later end.

Keys are counted as they come and go. A lease that holds none any more, and is not given out again, is ended; one of
which that is not certain (an answer was lost, another replica took the key away) is left to end by its own time.
"""

import asyncio
import functools
import heapq
import logging
import math
from collections import defaultdict, deque
from dataclasses import dataclass

from msgspec import Struct

from operation_service.clock import Clock, Deadline
from operation_service.errors import OperationError, StoreError, StoreUnavailableError, again
from operation_service.etcd_client import EtcdClient

_log = logging.getLogger(__name__)

_KEYS_PER_LEASE = 1_000
_STALE = 1_000
_GRANT_SECONDS = 10.0
_REVOKE_SECONDS = 5.0


@dataclass(slots=True)
class _SharedLease:
    id: int
    ends_at: float
    used_at: float
    keys: int = 0
    is_noted: bool = False


class Place(Struct, frozen=True, gc=False):
    """A place for one key on a lease.

    Attributes:
        lease_id: The lease.
        taken_at: The monotonic time at which it was asked for.
        seconds: From then on the lease lasts for so long, and no less; rounded down to milliseconds.
    """

    lease_id: int
    taken_at: float
    seconds: float


@dataclass(slots=True)
class _Grant:
    """A lease that has been asked for; those who need about the same wait for it together."""

    ends_at: float
    waiting: int
    granting: "asyncio.Task[_SharedLease]"


class SharedLeases:
    """Leases with one tolerance.

    Args:
        etcd: Where they are granted.
        clock: Its monotonic side tells how much of each is left.
        tolerance_seconds: How much longer than it needs a key may last.
        is_exact_when_alone: Whether a key that has no neighbours gets just the time it needs. Otherwise every lease
            is granted with half the tolerance to spare.
    """

    def __init__(
        self, etcd: EtcdClient, clock: Clock, tolerance_seconds: float, *, is_exact_when_alone: bool = False
    ) -> None:
        self._etcd = etcd
        self._clock = clock
        self._tolerance = tolerance_seconds
        self._is_exact_when_alone = is_exact_when_alone
        self._by_id: dict[int, _SharedLease] = {}
        self._by_end: defaultdict[int, list[_SharedLease]] = defaultdict(list)
        self._grants: list[_Grant] = []
        self._ends: list[tuple[float, int]] = []
        self._emptied: deque[tuple[float, int]] = deque()
        self._revoking: set[asyncio.Task[None]] = set()
        self._tidying: asyncio.TimerHandle | None = None
        self._is_closed = False

    def take_at_once(self, seconds: int) -> Place | None:
        """Take a place as `take` does, on a lease that is there already. None: there is none that fits."""
        now = self._clock.monotonic()
        self._tidy(now)
        lease = self._fitting(now + seconds)
        return self._place(lease, now, seconds) if lease is not None else None

    async def take(self, seconds: int, deadline: Deadline) -> Place:
        """Take a place on a lease that lasts for at least so many seconds from now on.

        If this process sleeps between here and the change that uses the place, the lease may have ended: etcd then
        refuses the change, and nothing was changed.

        Raises:
            StoreUnavailableError: etcd could not be reached before the deadline.
            StoreOutOfSpaceError: etcd takes no changes.
        """
        self._tidy(self._clock.monotonic())
        may_join = True
        while True:
            now = self._clock.monotonic()
            needed = now + seconds
            lease = self._fitting(needed)
            if lease is None:
                joined = self._grant_for(needed) if may_join else None
                lease = await self._answered(joined or self._ask(seconds, needed), deadline)
                if joined and lease.ends_at > self._clock.monotonic() + seconds + self._tolerance:
                    # It had to be asked for again at another member, and ends later than was promised.
                    may_join = False
                    continue
            # So many may have waited for it that it is full by now; after a sleep of this process it may be one that
            # held nothing for so long that it was ended.
            if lease.keys < _KEYS_PER_LEASE and lease.id in self._by_id:
                break
        return self._place(lease, now, seconds)

    def _place(self, lease: _SharedLease, now: float, seconds: int) -> Place:
        """Return a place on a lease that was found to last for so many seconds from now on."""
        lease.keys += 1
        lease.used_at = now
        if lease.keys >= _KEYS_PER_LEASE:
            self._close(lease)
        return Place(lease.id, now, max(float(seconds), math.floor((lease.ends_at - now) * 1000) / 1000))

    def leave(self, lease_id: int) -> None:
        """Give a place back: the key is certain not to hang on the lease (any more). Other leases are none of ours."""
        lease = self._by_id.get(lease_id)
        if lease is not None:
            lease.keys -= 1
            if not lease.keys:
                self._note_empty(lease, self._clock.monotonic())

    def forget(self, lease_id: int) -> None:
        """Use a lease no more, and do not end it either: it has ended, or nobody knows what hangs on it."""
        lease = self._by_id.pop(lease_id, None)
        if lease is not None:
            self._close(lease)

    async def close(self) -> None:
        """End the leases that hold nothing, and wait for what is under way."""
        self._is_closed = True
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        for lease in [lease for lease in self._by_id.values() if not lease.keys]:
            self._end(lease.id)
        await asyncio.gather(*(grant.granting for grant in self._grants), *self._revoking, return_exceptions=True)

    def _bucket(self, ends_at: float) -> int:
        return int(ends_at // self._tolerance)

    def _fitting(self, needed: float) -> _SharedLease | None:
        first = self._bucket(needed)
        for bucket in (first, first + 1):
            for lease in self._by_end.get(bucket, ()):
                if needed <= lease.ends_at <= needed + self._tolerance:
                    return lease
        return None

    def _ask(self, seconds: int, needed: float) -> _Grant:
        """Ask for a lease, on which others may join in."""
        extra = self._extra(needed)
        granting = asyncio.create_task(self._grant(seconds + extra))
        grant = _Grant(needed + extra, 0, granting)
        self._grants.append(grant)
        granting.add_done_callback(functools.partial(self._has_granted, grant))
        return grant

    async def _answered(self, grant: _Grant, deadline: Deadline) -> _SharedLease:
        grant.waiting += 1
        try:
            async with asyncio.timeout(deadline.remaining()):
                # All of them wait for one grant: who leaves must not end it for the others.
                return await asyncio.shield(grant.granting)
        except TimeoutError as error:
            raise StoreUnavailableError("no answer in time") from error
        except StoreError as error:
            # Each gets an error of its own: what raises one adds to its traceback.
            raise again(error) from error

    def _has_granted(self, grant: _Grant, done: "asyncio.Task[_SharedLease]") -> None:
        self._grants.remove(grant)
        if not done.cancelled():
            # When all who waited have gone, its error is no news for asyncio's log.
            done.exception()

    def _grant_for(self, needed: float) -> _Grant | None:
        for grant in self._grants:
            if needed <= grant.ends_at <= needed + self._tolerance and grant.waiting < _KEYS_PER_LEASE:
                return grant
        return None

    def _extra(self, needed: float) -> int:
        """Return how many seconds a lease is granted for beyond what the first of its keys needs."""
        spare = math.ceil(self._tolerance / 2) if not self._is_exact_when_alone else int(self._tolerance)
        if not self._is_exact_when_alone or self._has_neighbours(needed):
            return spare
        return 0

    def _has_neighbours(self, needed: float) -> bool:
        """Whether something was granted shortly before that would have done, had it been granted with time to spare."""
        since = needed - self._tolerance
        last = self._bucket(needed)
        return any(since <= grant.ends_at <= needed for grant in self._grants) or any(
            since <= lease.ends_at <= needed for bucket in (last - 1, last) for lease in self._by_end.get(bucket, ())
        )

    async def _grant(self, seconds: int) -> _SharedLease:
        granted = await self._etcd.grant(seconds, Deadline(_GRANT_SECONDS))
        # Measured from before etcd was asked, so that it is never believed to last longer than it does.
        lease = _SharedLease(granted.id, granted.asked_at + granted.ttl_seconds, self._clock.monotonic())
        self._by_id[lease.id] = lease
        self._by_end[self._bucket(lease.ends_at)].append(lease)
        heapq.heappush(self._ends, (lease.ends_at, lease.id))
        if len(self._ends) > 2 * len(self._by_id) + _STALE:
            # What was ended early is still in there, a day long perhaps.
            self._ends = [(each.ends_at, each.id) for each in self._by_id.values()]
            heapq.heapify(self._ends)
        # Should all who waited for it have gone, it is ended before long.
        self._note_empty(lease, lease.used_at)
        return lease

    def _note_empty(self, lease: _SharedLease, now: float) -> None:
        if not lease.is_noted:
            lease.is_noted = True
            self._emptied.append((now, lease.id))
        if self._tidying is None and not self._is_closed:
            # Nobody may ever take a place again.
            self._tidying = asyncio.get_running_loop().call_later(self._tolerance + 0.1, self._tidy_in_time)

    def _tidy_in_time(self) -> None:
        self._tidying = None
        now = self._clock.monotonic()
        self._tidy(now)
        if self._emptied and not self._is_closed:
            self._tidying = asyncio.get_running_loop().call_later(self._tolerance + 0.1, self._tidy_in_time)

    def _tidy(self, now: float) -> None:
        """Forget what has ended, and end what holds nothing."""
        while self._ends and self._ends[0][0] <= now:
            self.forget(heapq.heappop(self._ends)[1])
        idle_since = now - self._tolerance
        while self._emptied and self._emptied[0][0] < idle_since:
            _, lease_id = self._emptied.popleft()
            lease = self._by_id.get(lease_id)
            if lease is None:
                continue
            lease.is_noted = False
            if not lease.keys and lease.used_at >= idle_since:
                self._note_empty(lease, now)
            elif not lease.keys:
                self._end(lease_id)

    def _end(self, lease_id: int) -> None:
        """End a lease that holds nothing, in the background. If that fails it ends by its own time."""
        self.forget(lease_id)
        task = asyncio.create_task(self._revoke(lease_id))
        self._revoking.add(task)
        task.add_done_callback(self._revoking.discard)

    def _close(self, lease: _SharedLease) -> None:
        bucket = self._bucket(lease.ends_at)
        leases = self._by_end.get(bucket, [])
        if lease in leases:
            leases.remove(lease)
        if not leases:
            self._by_end.pop(bucket, None)

    async def _revoke(self, lease_id: int) -> None:
        try:
            await self._etcd.revoke(lease_id, Deadline(_REVOKE_SECONDS))
        except OperationError as error:
            _log.debug("lease %d is left to end by itself: %s", lease_id, error)
