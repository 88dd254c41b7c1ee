"""Ends what has outlived its time (rule 12): etcd stretches every lease when it restarts or changes its leader.

Whoever saw a lock taken knows on its own monotonic clock when it ends (`lock_times`). What is still there a moment
later is deleted, if it is still the very key that was seen: guarded by its mod_revision, so that a renewal that came in
between, by way of whichever replica, keeps its lock. To everybody who watches this is an expiry like any other.

Every replica does so for every lock that it knows of; it does not matter which is first, and no wall clock is asked.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from etcd3 import etcdrpc
from etcd3.etcdrpc.kv_pb2 import KeyValue

from operation_service import etcd_ops
from operation_service.clock import Deadline
from operation_service.codec import decode_lock
from operation_service.errors import CorruptRecordError, StoreError
from operation_service.etcd_client import EtcdClient
from operation_service.keys import KeyRange, Keys
from operation_service.layout import Layout
from operation_service.lock_times import LockTimes, Outlived

_log = logging.getLogger(__name__)

_GRACE_SECONDS = 1.0
"""etcd itself ends a lease up to 0.5 s after its time (ETCD_FACTS, Leases), and the news of it takes its way."""
_EVERY_SECONDS = 0.2
_AT_ONCE = 60
"""etcd takes 128 operations in a transaction."""
_SECONDS = 5.0
_KEYS_AT_ONCE = 1_000


class Expiry:
    """Deletes lock keys, and those of cancelled peers, that etcd should have deleted.

    Args:
        etcd: The client.
        keys: Where things lie.
        times: When they end.
        on_lock_ended: Is called for each lock that it has ended.
    """

    def __init__(
        self, etcd: EtcdClient, keys: Keys, times: LockTimes, on_lock_ended: Callable[[], None] | None = None
    ) -> None:
        self._etcd = etcd
        self._layout = Layout(etcd, keys)
        self._keys = keys
        self._times = times
        self._on_lock_ended = on_lock_ended

    async def run(self) -> None:
        """Look for what has outlived its time until cancelled."""
        while True:
            while outlived := self._times.outlived(_GRACE_SECONDS, _AT_ONCE):
                try:
                    await self.end(outlived)
                except StoreError as error:
                    # Whatever became of it: what is still there is named again in a second.
                    _log.debug("ending what has outlived its time has to wait: %s", error)
                    break
            await asyncio.sleep(_EVERY_SECONDS)

    async def look(self) -> None:
        """Look at all locks that are there, so that those taken before now are not stretched without a bound either.

        Not all is read at one revision: what changes meanwhile is told by the watch, which begins at an earlier one.

        Raises:
            StoreError: etcd cannot answer.
        """
        self._times.look_again()
        async for kv in self._all(self._keys.all_locks()):
            # What is none of ours, or was spoilt by hand, is for its reader to complain about.
            with contextlib.suppress(ValueError, CorruptRecordError):
                self._times.found(self._keys.resource_of(kv.key), kv.mod_revision, decode_lock(kv.key, kv.value))
        async for kv in self._all(self._keys.all_cancelled()):
            with contextlib.suppress(ValueError, CorruptRecordError):
                lock, resource = decode_lock(kv.key, kv.value), self._keys.resource_of_cancelled(kv.key)
                self._times.found(resource, kv.mod_revision, lock, token=lock.token)
        self._times.looked()

    async def _all(self, keys: KeyRange) -> AsyncIterator[KeyValue]:
        todo: KeyRange | None = keys
        while todo:
            ask = etcdrpc.RangeRequest(key=todo.start, range_end=todo.end, limit=_KEYS_AT_ONCE)
            page = await self._etcd.range(ask, Deadline(_SECONDS))
            for kv in page.kvs:
                yield kv
            todo = KeyRange(page.kvs[-1].key + b"\0", keys.end) if page.more else None

    async def end(self, outlived: list[Outlived]) -> None:
        """Delete each that is still as it was seen. Sent again after a lost answer it finds nothing to delete.

        Raises:
            StoreError: etcd cannot do it now; what became of it is unknown.
        """
        request = etcdrpc.TxnRequest(success=[etcd_ops.nested(self._delete(each)) for each in outlived])
        response = await self._layout.write(request, Deadline(_SECONDS))
        for each, answer in zip(outlived, response.responses, strict=True):
            if answer.response_txn.succeeded:
                what = (
                    f"the time of a cancelled peer of {each.resource}" if each.token else f"the lock of {each.resource}"
                )
                _log.info("%s has been ended: etcd kept it for longer than it was granted", what)
                if self._on_lock_ended is not None and not each.token:
                    self._on_lock_ended()
            self._times.settled(each)

    def _delete(self, outlived: Outlived) -> etcdrpc.TxnRequest:
        resource, token = outlived.resource, outlived.token
        key = self._keys.cancelled(resource, token) if token else self._keys.lock(resource)
        return etcdrpc.TxnRequest(compare=[etcd_ops.unchanged(key, outlived.revision)], success=[etcd_ops.delete(key)])
