"""What to read next of some ranges, so that all that is in them can be told in the order of their keys. Pure.

Whoever may read a thousand projects has a thousand ranges, most of them with little in them or nothing, and one after
the other would be a thousand reads. So stretches of several are read at once. Of a range that nothing is known of a few
records are read; with them etcd tells how many there are, so that it is known which others to read next, and how many.

What is read is bounded by what is wanted, not by how many ranges there are. A read brings no more records than are
wanted, and one of each of its ranges: all reads are at one revision, so what was counted is what comes. Together with
those that wait for their turn they are never more than twice as many as are wanted, and one of each range.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from operation_service.keys import KeyRange

T = TypeVar("T")

_WIDER = 4
"""So many times the ranges of the read before. A page that the first ranges fill costs what it did alone, and a
thousand empty ranges take 20 reads instead of 17."""
_LONG_WALK = 10_000
"""Keys in the parts of a read: more than there are where the landmarks are right, and no further apart than they stand
up to 1,280,000 operations. etcd walks over them in 4 ms, and as long again over their locks."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What to read of a range.

    Attributes:
        part: Where.
        limit: How many records.
        begun: Where the reads began that were to find as many.
        reach: For how many records the part's end was chosen.
        reads: How many reads these are by now.
    """

    part: KeyRange
    limit: int
    begun: bytes
    reach: int
    reads: int


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """What a part had.

    Attributes:
        records: The first ones, as many as were asked for if there are so many.
        count: How many there are.
        rest: Where the others begin. None: there are no others.
    """

    records: Sequence[T]
    count: int
    rest: bytes | None


class _Stretch(Generic[T]):
    """What is yet to be told of a range: what has been read of it, and behind that what has not."""

    __slots__ = ("base", "begun", "end", "is_long", "left", "reads", "start", "waiting")

    def __init__(self, keys: KeyRange) -> None:
        self.start = self.begun = keys.start
        self.end = keys.end
        self.waiting: list[T] = []
        self.left: int | None = None
        """How many records are left to be read. None: that is not known."""
        self.is_long = False
        """Whether there are still more than `left`: what was counted had an end before that of the range."""
        self.base = self.reads = 0

    @property
    def is_read(self) -> bool:
        return self.start >= self.end

    def take(self, ask: Ask, seen: Seen[T]) -> None:
        self.waiting.extend(seen.records)
        if seen.rest is None:
            self.start, self.left, self.is_long = ask.part.end, None, False
        else:
            self.start, self.left = seen.rest, seen.count - len(seen.records)
            self.is_long = ask.part.end < self.end
        if len(seen.records) >= ask.limit:
            self.begun, self.base, self.reads = self.start, 0, 0
        else:
            self.base, self.reads = max(self.base, ask.limit), ask.reads


class Stretches(Generic[T]):
    """Goes over some ranges.

    Args:
        ranges: The ranges, in the order of their keys.
        limit: How many records are wanted. Whoever has taken as many and goes on is taken to want as many again.
    """

    def __init__(self, ranges: Iterable[KeyRange], limit: int) -> None:
        self._untouched = iter(ranges)
        self._stretches: deque[_Stretch[T]] = deque()
        self._limit = self._wanted = limit
        self._width = self._most = 1
        self._waiting = 0
        self._asked: list[tuple[Ask, _Stretch[T]]] = []

    def asks(self, end_for: Callable[[bytes, bytes, int], bytes], most: int) -> list[Ask]:
        """Return what to read next, all of it at once; nothing once all has been read.

        Args:
            end_for: Says where a read may end that begins at a key, and wants some records before another key.
            most: How many parts may be read at once.
        """
        self._most = most
        planned: list[tuple[_Stretch[T], int | None]] = []
        budget = max(1, min(self._wanted, 2 * self._limit - self._waiting))
        expected = unknown = 0
        for stretch in self._in_order():
            expected += len(stretch.waiting)
            if expected >= budget or len(planned) >= most:
                break
            if stretch.is_read:
                continue
            if stretch.left is None:
                if unknown >= self._width:
                    break
                unknown += 1
                planned.append((stretch, None))
            elif not stretch.is_long:
                planned.append((stretch, budget - expected))
                expected += stretch.left
            else:
                # It has landmarks in it, and so about as many records as make a read of its own worth while.
                if not planned:
                    planned.append((stretch, budget))
                break
        share = max(1, (budget - expected) // max(1, unknown))
        self._asked = [(self._ask(stretch, limit or share, end_for), stretch) for stretch, limit in planned]
        return [ask for ask, _ in self._asked]

    def _in_order(self) -> Iterator[_Stretch[T]]:
        yield from tuple(self._stretches)
        # Most pages are full before most ranges are looked at, and a thousand of them take 2 ms to make.
        for keys in self._untouched:
            stretch = _Stretch[T](keys)
            self._stretches.append(stretch)
            yield stretch

    @staticmethod
    def _ask(stretch: _Stretch[T], limit: int, end_for: Callable[[bytes, bytes, int], bytes]) -> Ask:
        # Its end is a hint. If what is wanted is not all there, the next part is twice as long, so that a gap of any
        # length takes few reads.
        reach = max(stretch.base, limit) << stretch.reads
        part = KeyRange(stretch.start, end_for(stretch.start, stretch.end, reach))
        return Ask(part, limit, stretch.begun, reach, stretch.reads + 1)

    def take(self, seen: Sequence[Seen[T]]) -> list[T]:
        """Take what was read, for each of `asks` in their order; return the records whose turn it is."""
        of_unknown = any(stretch.left is None for _, stretch in self._asked)
        for (ask, stretch), each in zip(self._asked, seen, strict=True):
            stretch.take(ask, each)
            self._waiting += len(each.records)
        # Where the landmarks are not right, many ranges at once might be a walk over all that there is; and large ones
        # are better read one by one.
        is_long_walk = sum(each.count for each in seen) > _LONG_WALK
        if is_long_walk or (of_unknown and any(stretch.is_long for _, stretch in self._asked)):
            self._width = max(1, self._width // _WIDER)
        elif of_unknown:
            self._width = min(self._width * _WIDER, self._most)
        due = list(self._due())
        self._waiting -= len(due)
        self._wanted -= len(due)
        if self._wanted <= 0:
            self._wanted = self._limit
        return due

    def _due(self) -> Iterator[T]:
        while self._stretches:
            first = self._stretches[0]
            yield from first.waiting
            first.waiting = []
            if not first.is_read:
                break
            self._stretches.popleft()
