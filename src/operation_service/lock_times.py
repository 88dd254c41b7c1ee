"""When each lock ends, measured on this process's monotonic clock wherever it saw the lock taken.

etcd gives every lease its full time again when it restarts or changes its leader. So each replica keeps its own
account, from which it tells callers how long a lock lasts, and knows which locks have outlived their time (rule 12).
No end here is ever too early: a lock is measured from before its lease was asked for, or from later.
"""

import heapq
import itertools
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from operation_service.clock import Clock
from operation_service.model import Lock, Resource

_STALE = 1_000
_AGAIN_SECONDS = 1.0
"""After this, what has outlived its time is named again, unless its end was heard of meanwhile."""

_Held = tuple[Resource, str]
"""What has an end: a resource's lock (with an empty token), or a cancelled peer of the resource (with its token)."""


class _End(Struct, frozen=True, gc=False):
    """When something ends on the monotonic clock, and by what it is recognised.

    Attributes:
        revision: The key's mod_revision.
        locked_until: The lock's, by a replica's wall clock.
        ends_at: The monotonic time; later than the true end by the delay of the news, never earlier.
        is_measured: Whether that delay is short; otherwise the lock was found, and `ends_at` is the latest it can be.
        look: The count of looks (`look_again`) at which it was last known to be there.
        is_disabled_cancel: Whether it is a lock that nobody may cancel.
    """

    revision: int
    locked_until: datetime
    ends_at: float
    is_measured: bool
    look: int
    is_disabled_cancel: bool


class Outlived(Struct, frozen=True, gc=False):
    """A key that is still there although its time has passed.

    Attributes:
        resource: Whose.
        token: The cancelled peer's, if the key stands for one; empty: it is the lock.
        revision: The key's mod_revision: a later one has time of its own.
    """

    resource: Resource
    token: str
    revision: int


class LockTimes:
    """Remembers when locks run out: one entry for each that is held, and for each peer that was cancelled.

    Args:
        clock: Its monotonic side measures; its wall side is the fallback for locks that were there before.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ends: dict[_Held, _End] = {}
        self._due: list[tuple[float, int, _Held]] = []
        self._due_at: dict[_Held, float] = {}
        self._count = itertools.count()
        self._look = 0
        self._locks = 0

    @property
    def locks(self) -> int:
        """How many locks are known; before the first look (`looked`) there may be others."""
        return self._locks

    def lock_is_uncancellable(self, resource: Resource) -> bool:
        """Whether a resource has a lock, as far as is known, that nobody may cancel."""
        known = self._ends.get((resource, ""))
        return known is not None and known.is_disabled_cancel

    def taken(self, resource: Resource, lock_revision: int, lock: Lock, asked_at: float | None = None) -> None:
        """Note an acquisition or a renewal.

        Args:
            resource: Whose lock.
            lock_revision: The lock key's mod_revision.
            lock: The lock, with the time that etcd granted.
            asked_at: The monotonic time before the lease was asked for, if this process did; otherwise the lock was
                taken before now, and is taken to last its time from now on: too long by the delay of the news.
        """
        since = self._clock.monotonic() if asked_at is None else asked_at
        self._note((resource, ""), self._end(lock_revision, lock, since + lock.ttl_seconds, is_measured=True))

    def knows(self, resource: Resource, lock_revision: int) -> bool:
        """Whether a lock's time was measured already, as by the call that took it."""
        known = self._ends.get((resource, ""))
        return known is not None and known.revision >= lock_revision and known.is_measured

    def found(
        self, resource: Resource, lock_revision: int, lock: Lock, *, token: str = "", left_seconds: float | None = None
    ) -> None:
        """Note a lock, or a cancelled peer, that is there, whenever it was taken.

        Args:
            resource: Whose.
            lock_revision: The key's mod_revision.
            lock: The lock; of a cancelled peer the one that it had.
            token: The cancelled peer's; empty for the lock.
            left_seconds: How long its lease lasts from now on, at the most. None: not known, but no longer than from
                now on its whole time.
        """
        left = lock.ttl_seconds if left_seconds is None else min(left_seconds, lock.ttl_seconds)
        end = self._end(lock_revision, lock, self._clock.monotonic() + left, is_measured=left_seconds is not None)
        self._note((resource, token), end)

    def cancelled(self, resource: Resource, revision: int, lock: Lock) -> None:
        """Note that a lock was cancelled at a revision: its peer is refused until the lock would have ended."""
        known = self._ends.get((resource, ""))
        if known is not None and known.revision < revision and known.locked_until == lock.locked_until:
            self._note((resource, lock.token), replace(known, revision=revision))
        else:
            self.found(resource, revision, lock, token=lock.token)

    def gone(self, resource: Resource, revision: int) -> None:
        """Note that a lock went at a revision."""
        known = self._ends.get((resource, ""))
        if known is not None and known.revision <= revision:
            self._forget((resource, ""))

    def look_again(self) -> None:
        """Begin to look at all that is there, since changes may have been missed."""
        self._look += 1

    def looked(self) -> None:
        """Forget what was neither found nor taken since `look_again`."""
        for held in [held for held, end in self._ends.items() if end.look != self._look]:
            self._forget(held)

    def is_measured(self, resource: Resource, lock: Lock) -> bool:
        """Whether the end of a lock is known well, and not only as the latest that it can be."""
        known = self._ends.get((resource, ""))
        return known is not None and known.is_measured and known.locked_until == lock.locked_until

    def remaining(self, resource: Resource, lock: Lock) -> timedelta:
        """Return how long a lock lasts, between 0 and its granted time.

        For a lock that was taken before this replica looked, and whose lease it has not asked for, this rests on the
        wall clocks of the two replicas.
        """
        left = lock.locked_until - self._clock.now()
        known = self._ends.get((resource, ""))
        if known is not None and known.locked_until == lock.locked_until:
            measured = timedelta(seconds=known.ends_at - self._clock.monotonic())
            left = measured if known.is_measured else min(left, measured)
        return min(max(left, timedelta()), timedelta(seconds=lock.ttl_seconds))

    def outlived(self, grace_seconds: float, limit: int) -> list[Outlived]:
        """Return some of what should have gone more than a grace time ago, each again after a second until it has.

        Args:
            grace_seconds: How long etcd itself may take to end a lease.
            limit: How many at the most.
        """
        now = self._clock.monotonic()
        outlived: list[Outlived] = []
        while self._due and self._due[0][0] <= now - grace_seconds and len(outlived) < limit:
            due_at, _, held = heapq.heappop(self._due)
            if self._due_at.get(held) != due_at:
                continue
            del self._due_at[held]
            if (end := self._ends.get(held)) is None:
                continue
            if end.ends_at > now - grace_seconds:
                # Renewed meanwhile: an entry for each renewal would not be bounded by the number of locks.
                self._schedule(held, end.ends_at)
                continue
            outlived.append(Outlived(*held, end.revision))
            self._schedule(held, now - grace_seconds + _AGAIN_SECONDS)
        return outlived

    def settled(self, outlived: Outlived) -> None:
        """Note that a key is not there any more as it was: forget a cancelled peer, of which nothing else tells.

        The end of a lock is news, of which the watch tells (`gone`). Until then it is remembered: if those are the news
        that it was cancelled, its peer is refused for no longer than the lock would have lasted.
        """
        held = (outlived.resource, outlived.token)
        known = self._ends.get(held)
        if outlived.token and known is not None and known.revision == outlived.revision:
            self._forget(held)

    def _end(self, revision: int, lock: Lock, ends_at: float, *, is_measured: bool) -> _End:
        return _End(revision, lock.locked_until, ends_at, is_measured, self._look, lock.is_disabled_cancel)

    def _note(self, held: _Held, end: _End) -> None:
        known = self._ends.get(held)
        if known is not None and known.revision > end.revision:
            return
        if known is not None and known.revision == end.revision and known.ends_at <= end.ends_at:
            # Of one lock one may hear twice: the earlier end is the one that was measured better.
            end = replace(known, look=self._look, is_measured=known.is_measured or end.is_measured)
        if known is None and not held[1]:
            self._locks += 1
        self._ends[held] = end
        self._schedule(held, end.ends_at)

    def _forget(self, held: _Held) -> None:
        del self._ends[held]
        if not held[1]:
            self._locks -= 1
        self._due_at.pop(held, None)

    def _schedule(self, held: _Held, due_at: float) -> None:
        if due_at >= self._due_at.get(held, float("inf")):
            return
        self._due_at[held] = due_at
        if len(self._due) > 2 * len(self._due_at) + _STALE:
            # What was forgotten, or comes earlier now, is still in there, a day long perhaps.
            self._due = [(due_at, next(self._count), held) for held, due_at in self._due_at.items()]
            heapq.heapify(self._due)
        else:
            heapq.heappush(self._due, (due_at, next(self._count), held))
