"""Ranges that are read a stretch of several at a time are told whole and in order, and never much of them at once."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from operation_service.keys import KeyRange
from operation_service.landmarks import Landmarks
from operation_service.stretches import Ask, Seen, Stretches

ALL = KeyRange(b"", b"~")
NO_LANDMARKS = Landmarks()

EndFor = Callable[[bytes, bytes, int], bytes]


def range_of(number: int) -> KeyRange:
    return KeyRange(b"p%04d/" % number, b"p%04d0" % number)


def key(number: int, name: int) -> bytes:
    return range_of(number).start + b"%05d" % name


@dataclass
class There:
    """Keys that are there, and what was asked of them."""

    keys: list[bytes]
    asked: list[list[Ask]] = field(default_factory=list)

    def seen(self, ask: Ask) -> Seen[bytes]:
        first, last = (bisect_left(self.keys, end) for end in (ask.part.start, ask.part.end))
        shown = self.keys[first : min(last, first + ask.limit)]
        return Seen(shown, last - first, shown[-1] + b"\0" if len(shown) < last - first else None)

    def told(
        self, ranges: Iterable[KeyRange], limit: int, end_for: EndFor = NO_LANDMARKS.end_for, most: int = 60
    ) -> Iterator[list[bytes]]:
        """What each read brings in turn, each of them looked at."""
        stretches, kept = Stretches[bytes](ranges, limit), 0
        while asks := stretches.asks(end_for, most):
            self.asked.append(asks)
            seen = [self.seen(ask) for ask in asks]
            come = sum(len(each.records) for each in seen)
            assert len(asks) <= most
            assert come <= limit + len(asks)
            # Before any of it is told: what has waited, and what has come.
            assert kept + come <= 2 * limit + most
            assert all(one.part.end <= other.part.start for one, other in pairwise(asks))
            assert all(ask.part.start < ask.part.end for ask in asks)
            due = stretches.take(seen)
            kept += come - len(due)
            yield due
        assert kept == 0

    @property
    def widths(self) -> list[int]:
        return [len(asks) for asks in self.asked]


def landmarks_at(keys: Sequence[bytes], spacing: int) -> Landmarks:
    landmarks = Landmarks(spacing)
    landmarks.put(ALL, keys)
    return landmarks


def numbered(counts: Sequence[int]) -> list[bytes]:
    return [key(number, name) for number, count in enumerate(counts) for name in range(count)]


@given(
    st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 8, 40]), min_size=1, max_size=80),
    st.integers(1, 40),
    st.sampled_from([1, 2, 7, 60]),
    st.data(),
)
def test_all_is_told_once_and_in_order_whatever_the_landmarks_are(
    counts: list[int], limit: int, most: int, data: st.DataObject
) -> None:
    keys = numbered(counts)
    # Some of them are landmarks, and so are some that have gone.
    gone = [key(number, name) + b"-" for number in range(len(counts)) for name in (0, 5, 6)]
    believed = data.draw(st.lists(st.sampled_from(sorted([*keys, *gone])), unique=True))
    landmarks = landmarks_at(sorted(believed), data.draw(st.integers(1, 8)))
    told = There(keys).told(map(range_of, range(len(counts))), limit, landmarks.end_for, most)
    assert [each for due in told for each in due] == keys


@given(
    st.lists(st.sampled_from([0, 0, 1, 3, 20, 60, 300]), min_size=1, max_size=60),
    st.integers(1, 60),
    st.integers(1, 8),
)
@example([0] * 21 + [300] * 30, 60, 4)
@example([0] * 21 + [8, 300] * 15, 60, 4)
def test_all_is_told_once_and_in_order_where_the_landmarks_are_right(
    counts: list[int], limit: int, spacing: int
) -> None:
    keys = numbered(counts)
    landmarks = landmarks_at(keys[spacing - 1 :: spacing], spacing)
    told = There(keys).told(map(range_of, range(len(counts))), limit, landmarks.end_for)
    assert [each for due in told for each in due] == keys


def test_what_waits_is_bounded_also_where_the_ranges_show_what_they_have_from_the_last_to_the_first() -> None:
    """A gap in front of each, that is passed a key at a time: the longest is in front of the first."""
    gaps = [100 - 2 * number for number in range(40)]
    there = There([key(number, gap + name) for number, gap in enumerate(gaps) for name in range(50)])
    gone = [key(number, name) for number, gap in enumerate(gaps) for name in range(gap)]

    def next_landmark(start: bytes, end: bytes, _wanted: int) -> bytes:
        place = bisect_right(gone, start)
        return min(gone[place], end) if place < len(gone) else end

    assert [each for due in there.told(map(range_of, range(40)), 40, next_landmark) for each in due] == there.keys


def as_one_range(there: There, keys: KeyRange, limit: int, end_for: EndFor) -> Iterator[Ask]:
    """How a range is read that is the only one."""
    start = begun = keys.start
    wanted, reads = limit, 0
    while start < keys.end:
        reach = limit << reads
        reads += 1
        ask = Ask(KeyRange(start, end_for(start, keys.end, reach)), wanted, begun, reach, reads)
        yield ask
        seen = there.seen(ask)
        wanted -= len(seen.records)
        start = seen.rest or ask.part.end
        if wanted <= 0:
            begun, wanted, reads = start, limit, 0


@given(st.integers(0, 120), st.integers(1, 30), st.integers(1, 8), st.data())
def test_a_range_that_is_the_only_one_is_read_as_if_there_were_no_others(
    count: int, limit: int, spacing: int, data: st.DataObject
) -> None:
    there = There([key(0, name) for name in range(count)])
    gone = [key(0, name) + b"-" for name in range(0, 120, 3)]
    landmarks = landmarks_at(
        sorted(data.draw(st.lists(st.sampled_from(sorted([*there.keys, *gone])), unique=True))), spacing
    )
    assert [each for due in there.told([range_of(0)], limit, landmarks.end_for) for each in due] == there.keys
    expected = list(as_one_range(there, range_of(0), limit, landmarks.end_for))
    assert there.asked == [[ask] for ask in expected]


def test_a_thousand_empty_ranges_are_twenty_reads() -> None:
    there = There([])
    assert not any(there.told(map(range_of, range(1_000)), 101))
    assert there.widths == [1, 4, 16, *[60] * 16, 19]


def test_where_the_first_range_has_a_page_no_other_is_read() -> None:
    there = There(numbered([30] * 1_000))
    assert next(there.told(map(range_of, range(1_000)), 21)) == there.keys[:21]
    assert there.asked == [[Ask(range_of(0), 21, range_of(0).start, 21, 1)]]


@pytest.mark.parametrize(("each", "most_reads"), [(1, 5), (3, 6), (10, 6), (40, 4)])
def test_a_page_out_of_many_ranges_takes_few_reads(each: int, most_reads: int) -> None:
    there = There(numbered([each] * 1_000))
    told: list[bytes] = []
    for due in there.told(map(range_of, range(1_000)), 101):
        told += due
        if len(told) >= 101:
            break
    assert told[:101] == there.keys[:101]
    assert len(there.asked) <= most_reads


@pytest.mark.parametrize(("each", "most_reads"), [(1, 26), (3, 32), (10, 50), (40, 160), (100, 1_100)])
def test_going_over_all_takes_little_more_reads_than_what_is_there_fills(each: int, most_reads: int) -> None:
    """Of 500 records. Those with landmarks in them are read alone; one after the other all would be 1,000 and more."""
    there = There(numbered([each] * 1_000))
    landmarks = landmarks_at(there.keys[63::64], 64)
    for _ in there.told(map(range_of, range(1_000)), 500, landmarks.end_for):
        pass
    assert len(there.asked) <= most_reads


def test_where_no_landmarks_are_known_many_large_ranges_are_not_walked_over_at_once() -> None:
    there = There(numbered([11_000] * 10))
    told = 0
    for due in there.told(map(range_of, range(10)), 500):
        told += len(due)
        if told > 45_000:
            break
    assert set(there.widths) == {1}
    # All of them have landmarks: each part ends near.
    there.asked.clear()
    list(there.told(map(range_of, range(10)), 500, landmarks_at(there.keys[63::64], 64).end_for))
    assert max(sum(there.seen(ask).count for ask in asks) for asks in there.asked) < 10_000


def test_where_all_has_gone_but_the_landmarks_the_ranges_are_read_together_all_the_same() -> None:
    there = There([])
    gone = [key(number, name) for number in range(1_000) for name in range(4)]
    assert not any(there.told(map(range_of, range(1_000)), 101, landmarks_at(gone, 64).end_for))
    # Each range has two ends in it, and is read up to the second landmark behind each.
    assert len(there.asked) <= 3 * 20


def test_how_badly_landmarks_serve_is_told_of_each_range_by_itself() -> None:
    there = There([key(2, name) for name in range(30)])
    # The first range had very many once.
    landmarks = landmarks_at([key(0, name) for name in range(100)], 1)
    asks = [ask for _ in there.told(map(range_of, range(10)), 5, landmarks.end_for) for ask in there.asked[-1]]
    first = [ask for ask in asks if ask.begun == range_of(0).start]
    assert [ask.reads for ask in first] == list(range(1, len(first) + 1))
    assert [ask.reach for ask in first] == [5 << number for number in range(len(first))]
    assert {ask.reads for ask in asks if ask not in first} == {1}
