"""Learns landmarks: looks, in the background, over the records where reads have found that the landmarks are not right.

Each replica learns for itself, from where a read wanted it on and for as long as what it finds is unknown to it. What
it learns may be old, or lost, at any moment: it is worth time, never an answer.
"""

import asyncio
import logging

from etcd3 import etcdrpc

from operation_service.clock import Deadline
from operation_service.errors import StoreError
from operation_service.etcd_client import EtcdClient
from operation_service.keys import KeyRange, Keys, prefix_range
from operation_service.landmarks import Landmarks

_log = logging.getLogger(__name__)

_KEYS_AT_ONCE = 10_000
"""About 1 MiB, and 20 ms of etcd's time besides its walk."""
_MANY_RANGES = 4
"""So many ranges in a row, each twice as long as the one before, are 15 times the keys that were wanted."""
_READ_SECONDS = 10.0
_REST_SECONDS = 1.0
"""Between two looks, however many reads would want one."""


class Survey:
    """Knows landmarks, and learns them where it is told that they are not right.

    Args:
        etcd: The client.
        keys: Where things lie.
        landmarks: What is known.
    """

    def __init__(self, etcd: EtcdClient, keys: Keys, landmarks: Landmarks) -> None:
        self._etcd = etcd
        self._records = keys.records("", "")
        self.landmarks = landmarks
        self._wanted: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1)

    def note(self, start: bytes, count: int, wanted: int, ranges: int) -> None:
        """Note what a read has found; if the landmarks served it badly they are learned anew from there on.

        Args:
            start: Where it began.
            count: How many keys the range had, up to the end that it was told.
            wanted: For how many keys it was told that end.
            ranges: How many ranges it has read so far to find what it was to find.
        """
        if (self.landmarks.are_thin(count, wanted) or ranges >= _MANY_RANGES) and self._wanted.empty():
            self._wanted.put_nowait(start)

    async def run(self) -> None:
        """Learn everything, and then what is wanted, one after the other, until cancelled."""
        start = self._records.start
        while True:
            try:
                await self.learn(start)
            except StoreError as error:
                _log.debug("landmarks are not learned now: %s", error)
            await asyncio.sleep(_REST_SECONDS)
            start = await self._wanted.get()

    async def learn(self, start: bytes) -> None:
        """Look over the records from a key on, until the landmarks are those that there ought to be, or to the end.

        Raises:
            StoreError: etcd cannot answer; what was learned before is kept.
        """
        loop = asyncio.get_running_loop()
        unsampled, reach, nearby = 0, _KEYS_AT_ONCE, _Nearby(self._records)
        while start < self._records.end:
            began = loop.time()
            end = min(nearby.end, self.landmarks.end_for(start, self._records.end, reach))
            # What is old is as good, and any member may tell it.
            request = etcdrpc.RangeRequest(
                key=start, range_end=end, limit=_KEYS_AT_ONCE, keys_only=True, serializable=True
            )
            found = await self._etcd.range(request, Deadline(_READ_SECONDS))
            count, spacing = len(found.kvs), self.landmarks.spacing
            seen = KeyRange(start, found.kvs[-1].key + b"\0" if found.more else end)
            was_right = found.more and self.landmarks.fit(seen, count)
            sample = [found.kvs[place].key for place in range(spacing - 1 - unsampled % spacing, count, spacing)]
            self.landmarks.put(seen, sample)
            if was_right:
                return
            unsampled = (unsampled + count) % spacing
            start = seen.end
            if found.more:
                nearby.goes_on(found.kvs[count // 2].key, found.kvs[-1].key)
                reach = _KEYS_AT_ONCE
            else:
                nearby.is_done()
                reach *= 2
            # Half of the time is left to others.
            await asyncio.sleep(loop.time() - began)


class _Nearby:
    """Where a look may end where no landmarks are known: what comes next begins like what came last.

    Without it each look would walk over all that is left: over a million keys in 0.8 s, a hundred times.

    Args:
        keys: Where the looks go.

    Attributes:
        end: Where the next one may end.
    """

    def __init__(self, keys: KeyRange) -> None:
        self._keys = keys
        self._shared = b""
        self._drop = 1
        self.end = keys.end

    def goes_on(self, one: bytes, last: bytes) -> None:
        """Note two keys, thousands apart, the second the last that was seen: as much as they share is not done yet."""
        differ = (place for place, (left, right) in enumerate(zip(one, last, strict=False)) if left != right)
        self._share(last[: next(differ, len(one))])
        self._drop = 1

    def is_done(self) -> None:
        """Note that all was seen that begins so: go on with what shares less, and with still less each further time."""
        self._share(self._shared[: -self._drop])
        self._drop *= 2

    def _share(self, shared: bytes) -> None:
        # A key that was made by hand may have bytes that cannot be counted up.
        self._shared = shared.rstrip(b"\xff")
        is_within = self._shared.startswith(self._keys.start)
        self.end = prefix_range(self._shared).end if is_within else self._keys.end
