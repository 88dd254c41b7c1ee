"""Which etcd leases the keys hang on: places on shared ones, for locks and for records.

A lock key ends with its lock: a second more is granted with it, and told to its holder (rule 1). A record outlives its
lock, so that everybody can see that an operator has died, and hangs on a lease that ends one retention time after the
lock or the operation (rule 14); nobody needs that to the second.
"""

import asyncio

from operation_service.clock import Clock, Deadline
from operation_service.etcd_client import EtcdClient
from operation_service.shared_leases import Place, SharedLeases

_LOCK_TOLERANCE_SECONDS = 1.0
_RECORD_TOLERANCE = 0.1
"""Of the retention time, and two seconds at least: so the records of short and of long locks find a common lease."""


class Leases:
    """Gives keys their leases.

    Args:
        etcd: Where they are granted.
        clock: Its monotonic side measures them.
        retention_seconds: How long a record is kept after its operation is over, or its lock has run out.
    """

    def __init__(self, etcd: EtcdClient, clock: Clock, retention_seconds: int) -> None:
        self._retention_seconds = retention_seconds
        self._locks = SharedLeases(etcd, clock, _LOCK_TOLERANCE_SECONDS, is_exact_when_alone=True)
        self._records = SharedLeases(etcd, clock, max(2.0, retention_seconds * _RECORD_TOLERANCE))

    def for_lock_at_once(self, seconds: int) -> Place | None:
        """Take a place for a lock key that is to last so many seconds. None: it has to be waited for (`for_lock`)."""
        return self._locks.take_at_once(seconds)

    def for_record_at_once(self, lock_seconds: int) -> Place | None:
        """Take a place for a record whose lock ends in so many seconds. None: as above (`for_record`)."""
        return self._records.take_at_once(lock_seconds + self._retention_seconds)

    async def for_lock(self, seconds: int, deadline: Deadline) -> Place:
        """Take a place for a lock key that is to last so many seconds. Raises like `SharedLeases.take`."""
        return await self._locks.take(seconds, deadline)

    async def for_record(self, lock_seconds: int, deadline: Deadline) -> Place:
        """Take a place for a record whose lock ends in so many seconds (0: that is over now). Raises like that, too."""
        return await self._records.take(lock_seconds + self._retention_seconds, deadline)

    def leave(self, *lease_ids: int) -> None:
        """Give back the places of keys that are certain not to hang on these leases (any more)."""
        for lease_id in lease_ids:
            self._locks.leave(lease_id)
            self._records.leave(lease_id)

    def forget(self, *lease_ids: int) -> None:
        """Use some leases no more: one of them has ended."""
        for lease_id in lease_ids:
            self._locks.forget(lease_id)
            self._records.forget(lease_id)

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(self._locks.close(), self._records.close())
