"""Which etcd leases the keys hang on.

A lock key gets a lease of its own for every acquisition and renewal. A record outlives its lock, so that everybody
can see that an operator has died, and hangs on a lease that ends one retention time after the lock or the operation
(rule 14); nobody needs those to the second, so records that end at about the same time share one (ETCD_FACTS, Leases).
"""

import asyncio
import logging
from dataclasses import dataclass

from operation_service.clock import Clock, Deadline
from operation_service.errors import OperationError
from operation_service.etcd_client import EtcdClient, Lease

_log = logging.getLogger(__name__)

_KEYS_PER_LEASE = 1_000
_REVOKE_SECONDS = 5.0
_SLACK = 0.05
"""A shared lease is granted with this share of the retention time to spare, and a second at least. It serves records
that need up to twice that less than what is left of it, so that those of short and of long locks find a common one."""


@dataclass(slots=True)
class _SharedLease:
    id: int
    ends_at: float
    free_places: int


class Leases:
    """Grants and ends leases.

    Args:
        etcd: Where.
        clock: Its monotonic side tells how much of a shared lease is left.
        retention_seconds: How long a record is kept after its operation is over, or its lock has run out.
    """

    def __init__(self, etcd: EtcdClient, clock: Clock, retention_seconds: int) -> None:
        self._etcd = etcd
        self._clock = clock
        self._retention_seconds = retention_seconds
        self._shared: list[_SharedLease] = []
        self._revoking: set[asyncio.Task[None]] = set()

    async def for_lock(self, seconds: int, deadline: Deadline) -> Lease:
        """Grant a lease for a lock key. Raises like `EtcdClient.grant`."""
        return await self._etcd.grant(seconds, deadline)

    async def for_record(self, lock_seconds: int, deadline: Deadline) -> int:
        """Return a lease for a record whose lock ends in so many seconds (0: that is over now).

        If this process sleeps between here and the change, the lease may have ended: etcd then refuses the change,
        and it is made again with another.

        Raises:
            StoreUnavailableError: etcd could not be reached before the deadline.
            StoreOutOfSpaceError: etcd takes no changes.
        """
        now = self._clock.monotonic()
        seconds = lock_seconds + self._retention_seconds
        slack = max(1.0, self._retention_seconds * _SLACK)
        useful_from = now + self._retention_seconds
        self._shared = [shared for shared in self._shared if shared.ends_at >= useful_from and shared.free_places]
        for shared in self._shared:
            if now + seconds <= shared.ends_at <= now + seconds + 2 * slack:
                shared.free_places -= 1
                return shared.id
        lease = await self._etcd.grant(seconds + int(slack), deadline)
        # Measured from before etcd was asked, so that it is never believed to last longer than it does.
        self._shared.append(_SharedLease(lease.id, now + lease.ttl_seconds, _KEYS_PER_LEASE - 1))
        return lease.id

    def forget_shared(self) -> None:
        """Use none of the shared leases any more: one of them has ended."""
        self._shared.clear()

    def revoke_later(self, lease_id: int) -> None:
        """End a lease on which no key hangs any more, in the background. If that fails it ends by its own time."""
        task = asyncio.create_task(self._revoke(lease_id))
        self._revoking.add(task)
        task.add_done_callback(self._revoking.discard)

    async def _revoke(self, lease_id: int) -> None:
        try:
            await self._etcd.revoke(lease_id, Deadline(_REVOKE_SECONDS))
        except OperationError as error:
            _log.debug("lease %d is left to end by itself: %s", lease_id, error)

    async def close(self) -> None:
        """Wait for the leases that are being ended."""
        await asyncio.gather(*self._revoking)
