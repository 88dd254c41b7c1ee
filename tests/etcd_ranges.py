"""An etcd in memory that answers ranges, as far as lists and surveys ask for them, and counts what they walked over."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from types import SimpleNamespace

from etcd3 import etcdrpc
from etcd3.etcdrpc.kv_pb2 import KeyValue

from operation_service.clock import Deadline

REVISION = 7


class EtcdRanges:
    """Keys with values, all of one revision.

    Attributes:
        members: What the client tells of its members.
        entries: The keys and their values.
        counts: Of every range asked for, how many keys it had: what etcd walks over.
        reads: Of every transaction, how many ranges it asked for, single keys apart: the layout's number is one.
    """

    def __init__(self, entries: Mapping[bytes, bytes]) -> None:
        self.members = SimpleNamespace(reads_at_once=True)
        self._keys = sorted(entries)
        self.entries = dict(entries)
        self.counts: list[int] = []
        self.reads: list[int] = []

    def remove(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            del self.entries[key]
        self._keys = sorted(self.entries)

    async def range(self, request: etcdrpc.RangeRequest, _deadline: Deadline) -> etcdrpc.RangeResponse:
        end = request.range_end or request.key + b"\0"
        assert request.key < end
        first, last = (bisect_left(self._keys, key) for key in (request.key, end))
        if request.range_end:
            self.counts.append(last - first)
        shown = self._keys[first : min(last, first + request.limit) if request.limit else last]
        kvs = [
            KeyValue(key=key, value=b"" if request.keys_only else self.entries[key], mod_revision=2, create_revision=2)
            for key in shown
        ]
        answer = etcdrpc.RangeResponse(kvs=kvs, count=last - first, more=len(kvs) < last - first)
        answer.header.revision = REVISION
        return answer

    async def read(self, request: etcdrpc.TxnRequest, deadline: Deadline) -> etcdrpc.TxnResponse:
        self.reads.append(sum(bool(op.request_range.range_end) for op in request.success))
        answer = etcdrpc.TxnResponse(succeeded=True)
        answer.header.revision = REVISION
        for op in request.success:
            found = await self.range(op.request_range, deadline)
            answer.responses.add().response_range.CopyFrom(found)
        return answer
