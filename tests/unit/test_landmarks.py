"""Landmarks say where a read may end: behind its start, near it where they are right, and never what there is."""

from hypothesis import example, given
from hypothesis import strategies as st

from operation_service.keys import KeyRange
from operation_service.landmarks import Landmarks

EVERYTHING = KeyRange(b"", b"~")
keys = st.binary(max_size=3).filter(lambda key: b"" < key < b"~")


def numbered(*numbers: int) -> list[bytes]:
    return [b"%06d" % number for number in numbers]


def key(number: int) -> bytes:
    return numbered(number)[0]


def every(spacing: int, count: int) -> list[bytes]:
    """The last of each so many of the keys number 0 up to a count."""
    return numbered(*range(spacing - 1, count, spacing))


def learned(count: int, spacing: int = 10, most: int = 1_000) -> Landmarks:
    """Landmarks of the keys number 0 up to a count."""
    landmarks = Landmarks(spacing, most)
    landmarks.put(EVERYTHING, every(spacing, count))
    return landmarks


@given(st.sets(keys), st.integers(1, 5), keys, keys, st.integers(1, 10_000))
def test_an_end_lies_behind_the_start_and_not_behind_the_ranges(
    sample: set[bytes], spacing: int, start: bytes, further: bytes, wanted: int
) -> None:
    landmarks = Landmarks(spacing)
    landmarks.put(EVERYTHING, sorted(sample))
    range_end = start + further
    assert start < landmarks.end_for(start, range_end, wanted) <= range_end


@given(st.integers(0, 999), st.integers(1, 300))
@example(0, 1)
@example(9, 10)
def test_an_end_is_far_enough_for_what_is_wanted_and_not_much_further(first: int, wanted: int) -> None:
    end = learned(1_000).end_for(key(first), b"~", wanted)
    count = sum(each < end for each in numbered(*range(first, 1_000)))
    assert count >= min(wanted, 1_000 - first)
    assert count <= wanted + wanted // 4 + 2 * 10
    assert not learned(1_000).are_thin(count, wanted)


def test_where_no_landmarks_are_known_the_end_is_the_ranges() -> None:
    assert Landmarks().end_for(b"a", b"b", 1) == b"b"
    assert learned(100).end_for(key(95), b"~", 1) == b"~"


def test_they_are_thin_where_more_than_three_times_what_was_to_be_there_was_there() -> None:
    landmarks = learned(100)
    assert not landmarks.are_thin(60, wanted=10)
    assert landmarks.are_thin(61, wanted=10)


def test_they_fit_half_or_twice_as_many_keys_as_they_stand_for() -> None:
    landmarks, part = learned(1_000), KeyRange(key(200), key(600))
    assert landmarks.fit(part, 400)
    assert landmarks.fit(part, 200)
    assert landmarks.fit(part, 800)
    assert not landmarks.fit(part, 180)
    assert not landmarks.fit(part, 900)
    assert Landmarks(spacing=10).fit(EVERYTHING, 0)
    assert not Landmarks(spacing=10).fit(EVERYTHING, 100)


def test_what_is_learned_takes_the_place_of_what_was_known_of_that_range_alone() -> None:
    landmarks = learned(100)
    landmarks.put(KeyRange(key(30), key(60)), numbered(33, 58))
    ends, start = [], b"0"
    while (start := landmarks.end_for(start, b"~", 1)) != b"~":
        ends.append(start)
    # One is skipped each time: the end is the second behind the start.
    assert ends == numbered(19, 33, 69, 89)


def test_there_are_never_more_than_so_many_and_they_cover_as_many_keys() -> None:
    landmarks = learned(100_000, spacing=10, most=100)
    assert len(landmarks) <= 100
    assert landmarks.spacing == 1_280
    end = landmarks.end_for(key(50_000), b"~", 100)
    assert b"051280" < end <= b"052660"


def test_when_most_have_gone_they_come_closer_again() -> None:
    landmarks = learned(100_000, spacing=10, most=100)
    for _ in range(10):
        landmarks.put(EVERYTHING, every(landmarks.spacing, 300))
    assert landmarks.spacing == 10
    assert len(landmarks) == 30
