"""Some of the keys that are there, a sample in their order: where a read of a range may end. Pure.

etcd walks its index over the whole of a range, whatever the limit is, since it counts the keys: some 0.4 us for each.
So what reads a little of much has to end near where it begins. A landmark is a hint and nothing else: a key that has
gone ends a range as well as any other, and whoever reads on from one end to the next finds everything.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from operation_service.keys import KeyRange

SPACING = 64
"""Keys from one landmark to the next. Walking over as many more than are wanted costs etcd some 0.02 ms."""
MAX_LANDMARKS = 20_000
"""Enough for 1,280,000 keys at that spacing. Beyond it every other one goes, as often as it takes."""
_THIN = 3
"""So many times the keys that a range was to have at the most: few enough that a walk over them is not felt, and more
than come between two looks."""


class Landmarks:
    """A bounded sample of keys in their order, and about how many keys lie from one to the next.

    20,000 landmarks, the most that are kept, take 2 MiB if keys have 60 bytes, as usual ones do, and 7.5 MiB if they
    have 350, as the longest do.

    Args:
        spacing: How many keys, about, from one landmark to the next, as long as there are few enough of them.
        most: How many landmarks are kept.

    Attributes:
        spacing: How many keys, about, lie from one landmark to the next by now.
    """

    def __init__(self, spacing: int = SPACING, most: int = MAX_LANDMARKS) -> None:
        self.spacing = self._least_spacing = spacing
        self._most = most
        self._keys: list[bytes] = []

    def __len__(self) -> int:
        return len(self._keys)

    def end_for(self, start: bytes, range_end: bytes, wanted: int) -> bytes:
        """Return where a read may end that begins at a key and wants some keys of a range.

        There are about as many as are wanted up to there, and up to a quarter and two spacings more, as far as the
        landmarks are right. It is behind `start`, and `range_end` where there are no landmarks.
        """
        place = bisect_right(self._keys, start) + (wanted + wanted // 4) // self.spacing + 1
        return min(self._keys[place], range_end) if place < len(self._keys) else range_end

    def are_thin(self, count: int, wanted: int) -> bool:
        """Whether far more keys were there, up to where a read that wanted some was told to end, than had to be."""
        return count > _THIN * (wanted + self.spacing)

    def fit(self, keys: KeyRange, count: int) -> bool:
        """Whether there are about as many landmarks in a range, half or twice, as so many keys ought to have."""
        first, last = self._places(keys)
        estimated = (last - first) * self.spacing
        return count / 2 - self.spacing <= estimated <= count * 2 + self.spacing

    def put(self, keys: KeyRange, sample: Sequence[bytes]) -> None:
        """Take a sample of the keys in a range, in their order, for what was known of that range."""
        first, last = self._places(keys)
        self._keys[first:last] = sample
        while len(self._keys) > self._most:
            self._keys = self._keys[1::2]
            self.spacing *= 2
        # Those that are there stay further apart for now: ranges that end at them are twice as long as they have to be.
        if len(self._keys) < self._most // 4 and self.spacing > self._least_spacing:
            self.spacing //= 2

    def _places(self, keys: KeyRange) -> tuple[int, int]:
        return bisect_left(self._keys, keys.start), bisect_left(self._keys, keys.end)
