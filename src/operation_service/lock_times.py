"""How long each lock still lasts, measured on this process's monotonic clock wherever it saw the lock taken."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from operation_service.clock import Clock
from operation_service.model import Lock, Resource


@dataclass(frozen=True, slots=True)
class _End:
    """When a lock ends on the monotonic clock, and by what it is recognised."""

    lock_revision: int
    locked_until: datetime
    ends_at: float


class LockTimes:
    """Remembers when the locks that this replica saw taken run out.

    Args:
        clock: Its monotonic side measures; its wall side is the fallback for locks that were there before.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ends: dict[Resource, _End] = {}

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
        end = _End(lock_revision, lock.locked_until, since + lock.ttl_seconds)
        known = self._ends.get(resource)
        # Of the same lock one may hear twice: the earlier end is the one that was measured better.
        if known is None or (known.lock_revision, -known.ends_at) < (lock_revision, -end.ends_at):
            self._ends[resource] = end

    def gone(self, resource: Resource, revision: int) -> None:
        """Note that a lock went at a revision."""
        known = self._ends.get(resource)
        if known is not None and known.lock_revision <= revision:
            del self._ends[resource]

    def clear(self) -> None:
        """Forget all: changes were missed."""
        self._ends.clear()

    def remaining(self, resource: Resource, lock: Lock) -> timedelta:
        """Return how long a lock lasts, between 0 and its granted time.

        For a lock that was taken before this replica looked, this rests on the wall clocks of the two replicas.
        """
        known = self._ends.get(resource)
        if known is not None and known.locked_until == lock.locked_until:
            left = timedelta(seconds=known.ends_at - self._clock.monotonic())
        else:
            left = lock.locked_until - self._clock.now()
        return min(max(left, timedelta()), timedelta(seconds=lock.ttl_seconds))
