"""Removes what etcd cannot remove by itself: the request and logs of operations whose records have gone (rule 14).

A record leaves with its lease. Its details hang on none, since an operation may be held for longer than any lease that
a log could have been given when it was written. Every replica hears of a record that goes and removes what it left;
that is guarded, so it does not matter how many do. What an operation leaves behind when a new one takes its place goes
here too, and not within the change itself: the cost of a proposal must not grow with the logs that were there.

What no replica heard of is found by looking, now and then: etcd may drop a DELETE event (ETCD_FACTS, Watches), and all
replicas may have been down.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from etcd3 import etcdrpc
from etcd3.etcdrpc.kv_pb2 import KeyValue

from operation_service import etcd_ops
from operation_service.clock import Deadline
from operation_service.codec import decode_record
from operation_service.errors import CorruptRecordError, StoreError
from operation_service.etcd_client import EtcdClient
from operation_service.keys import KeyRange, Keys
from operation_service.landmarks import Landmarks
from operation_service.layout import Layout
from operation_service.model import Resource

_log = logging.getLogger(__name__)

_SECONDS = 10.0
_SWEEP_SECONDS = 3600.0
_KEYS_AT_ONCE = 1_000
_RECORDS_AT_ONCE = 100
"""etcd takes 128 operations in a transaction."""
_MAX_NOTED = 100_000
"""About 30 MiB. More is left to the next sweep."""


class Janitor:
    """Cleans up behind records.

    Args:
        etcd: The client.
        keys: Where things lie.
        landmarks: Where reads may end.
    """

    def __init__(self, etcd: EtcdClient, keys: Keys, landmarks: Landmarks) -> None:
        self._etcd = etcd
        self._layout = Layout(etcd, keys)
        self._keys = keys
        self._landmarks = landmarks
        self._todo: dict[tuple[Resource, str], None] = {}
        self._news = asyncio.Event()

    def record_gone(self, resource: Resource) -> None:
        """Note that a record has left etcd."""
        self._note(resource, "")

    def operation_replaced(self, resource: Resource, operation_id: str) -> None:
        """Note that a new operation has taken the place of an earlier one."""
        self._note(resource, operation_id)

    def _note(self, resource: Resource, operation_id: str) -> None:
        if len(self._todo) < _MAX_NOTED:
            self._todo[resource, operation_id] = None
        self._news.set()

    async def run(self) -> None:
        """Clean up until cancelled."""
        while True:
            try:
                await self.sweep()
                async with asyncio.timeout(_SWEEP_SECONDS):
                    while True:
                        await self._news.wait()
                        self._news.clear()
                        await self._clean_up()
            except TimeoutError:
                continue
            except StoreError as error:
                _log.debug("cleaning up has to wait: %s", error)
                await asyncio.sleep(_SECONDS)

    async def _clean_up(self) -> None:
        while self._todo:
            resource, operation_id = todo = next(iter(self._todo))
            # First: what is noted of the same meanwhile is news. If etcd does not answer, the next sweep finds it.
            del self._todo[todo]
            if operation_id:
                # Its id is never used again: nothing of it can come back, whatever happens meanwhile.
                await self._remove(self._keys.operation_details(resource, operation_id))
            else:
                # Guarded: another operation may have begun, and be writing details of its own.
                guard = etcd_ops.unchanged(self._keys.record(resource), 0)
                await self._remove(self._keys.details(resource), guard)

    async def _remove(self, keys: KeyRange, *guards: etcdrpc.Compare) -> None:
        """Delete a range, some keys at a time: etcd does nothing else while it deletes."""
        while True:
            ask = etcdrpc.RangeRequest(key=keys.start, range_end=keys.end, limit=_KEYS_AT_ONCE, keys_only=True)
            found = await self._etcd.range(ask, Deadline(_SECONDS))
            if not found.kvs:
                return
            some = KeyRange(keys.start, found.kvs[-1].key + b"\0")
            request = etcdrpc.TxnRequest(compare=guards, success=[etcd_ops.delete_range(some)])
            response = await self._layout.write(request, Deadline(_SECONDS))
            if not response.succeeded or not found.more:
                return

    async def sweep(self) -> None:
        """Look at the details of all operations, and remove those of which there is no record.

        Raises:
            StoreError: etcd cannot answer; the rest is left for the next time.
        """
        records, reach = self._keys.records("", ""), _KEYS_AT_ONCE
        start, loop = records.start, asyncio.get_running_loop()
        while start < records.end:
            began = loop.time()
            # Their order is that of the records, so what is known of these says where a read may end.
            stop = self._landmarks.end_for(start, records.end, reach)
            keys = self._keys.details_beside(KeyRange(start, stop))
            request = etcdrpc.RangeRequest(key=keys.start, range_end=keys.end, limit=_KEYS_AT_ONCE, keys_only=True)
            found = await self._etcd.range(request, Deadline(_SECONDS))
            operations = self._operations(found)
            for first in range(0, len(operations), _RECORDS_AT_ONCE):
                await self._remove_unless_current(operations[first : first + _RECORDS_AT_ONCE])
            start, reach = (self._behind(found.kvs[-1].key), _KEYS_AT_ONCE) if found.more else (stop, 2 * reach)
            # Half of the time is left to others.
            await asyncio.sleep(loop.time() - began)

    def _operations(self, found: etcdrpc.RangeResponse) -> list[tuple[Resource, str]]:
        """Return of which operations these are details, each once."""
        operations: dict[tuple[Resource, str], None] = {}
        for kv in found.kvs:
            try:
                operations[self._keys.operation_of(kv.key)] = None
            except ValueError:
                _log.warning("the key %r is none of the service's", kv.key)
        return list(operations)

    def _behind(self, detail: bytes) -> bytes:
        """Return where, among the records, what follows a detail's operation stands."""
        try:
            return self._keys.record_beside(self._keys.operation_details(*self._keys.operation_of(detail)).end)
        except ValueError:
            return self._keys.record_beside(detail + b"\0")

    async def _remove_unless_current(self, operations: Sequence[tuple[Resource, str]]) -> None:
        asks = [etcd_ops.get(self._keys.record(resource)) for resource, _ in operations]
        response = await self._etcd.read(etcdrpc.TxnRequest(success=asks), Deadline(_SECONDS))
        for (resource, operation_id), answer in zip(operations, response.responses, strict=True):
            kv = next(iter(answer.response_range.kvs), None)
            if kv is None or _is_of_another(kv, operation_id):
                guard = etcd_ops.unchanged(self._keys.record(resource), kv.mod_revision if kv else 0)
                await self._remove(self._keys.operation_details(resource, operation_id), guard)


def _is_of_another(record: KeyValue, operation_id: str) -> bool:
    """Whether a record is that of another operation; of one that was spoilt by hand nobody knows."""
    with contextlib.suppress(CorruptRecordError):
        return decode_record(record.key, record.value).operation_id != operation_id
    return False
