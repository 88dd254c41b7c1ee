"""A survey learns where the keys are, from as few walks over them as it can, whatever it believed before."""

import asyncio
from collections.abc import Iterator
from typing import Any, cast
from unittest.mock import patch

import pytest
from etcd_ranges import EtcdRanges
from hypothesis import example, given
from hypothesis import strategies as st
from unit_support import turns_until

from operation_service import survey as survey_module
from operation_service.errors import StoreUnavailableError
from operation_service.keys import KeyRange, Keys
from operation_service.landmarks import Landmarks
from operation_service.survey import Survey

KEYS = Keys("/p/")
RECORDS = KEYS.records("", "")
EVERYTHING = KeyRange(b"", b"\xff")
SPACING = 4


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """Sixty keys at once stand for ten thousand."""
    with patch.object(survey_module, "_KEYS_AT_ONCE", 60):
        yield


def survey_of(etcd: EtcdRanges, landmarks: Landmarks) -> Survey:
    return Survey(cast("Any", etcd), KEYS, landmarks)


def keys_of(*names: str) -> list[bytes]:
    return [RECORDS.start + name.encode() for name in names]


def held(count: int) -> list[bytes]:
    return keys_of(*(f"held/{number:04}" for number in range(count)))


def known(landmarks: Landmarks) -> list[bytes]:
    return landmarks._keys  # noqa: SLF001


names = st.text("ab/\u00ff", min_size=1, max_size=6)


@given(st.sets(names, max_size=300))
@example({f"held/{number:03}" for number in range(300)})
@example({f"{'long-and-the-same/' * 3}{number:03}" for number in range(200)} | {"a/b"})
async def test_what_is_learned_is_every_key_so_far_behind_the_one_before(there: set[str]) -> None:
    keys = sorted(keys_of(*there))
    landmarks = Landmarks(SPACING)
    await survey_of(EtcdRanges(dict.fromkeys(keys, b"")), landmarks).learn(RECORDS.start)
    assert known(landmarks) == keys[SPACING - 1 :: SPACING]


@given(st.sets(names, max_size=60), st.sets(st.binary(max_size=4), max_size=30))
async def test_whatever_was_believed_it_comes_to_an_end(there: set[str], believed: set[bytes]) -> None:
    landmarks = Landmarks(SPACING)
    landmarks.put(EVERYTHING, sorted(RECORDS.start + key for key in believed))
    etcd = EtcdRanges(dict.fromkeys(keys_of(*there), b""))
    await survey_of(etcd, landmarks).learn(RECORDS.start)
    assert len(etcd.counts) < 100


async def test_a_survey_of_many_walks_over_them_few_times() -> None:
    etcd = EtcdRanges(dict.fromkeys(held(4_000), b""))
    await survey_of(etcd, Landmarks(SPACING)).learn(RECORDS.start)
    # Without knowing what comes next each of the 67 looks would walk over half of them, 33 times 4,000.
    assert sum(etcd.counts) < 10 * 4_000


async def test_a_survey_of_what_is_known_ends_at_once() -> None:
    etcd = EtcdRanges(dict.fromkeys(held(400), b""))
    survey = survey_of(etcd, Landmarks(SPACING))
    await survey.learn(RECORDS.start)
    etcd.counts.clear()
    await survey.learn(RECORDS.start)
    assert len(etcd.counts) == 1
    assert etcd.counts[0] < 2 * 60


async def test_a_survey_goes_on_for_as_long_as_there_are_more_than_were_known() -> None:
    landmarks = Landmarks(SPACING)
    await survey_of(EtcdRanges(dict.fromkeys(held(1_000), b"")), landmarks).learn(RECORDS.start)
    grown = sorted([*held(1_000), *(key + b"-%d" % number for key in held(500) for number in range(4))])
    etcd = EtcdRanges(dict.fromkeys(grown, b""))
    await survey_of(etcd, landmarks).learn(RECORDS.start)
    known_now = known(landmarks)
    # 2,500 keys are where 500 were; of the 500 behind them it has looked at the first, and found them known.
    assert known_now[:625] == grown[SPACING - 1 : 2_500 : SPACING]
    assert known_now[-100:] == held(1_000)[SPACING - 1 :: SPACING][-100:]
    assert len(etcd.counts) < 2 * 2_500 / 60


async def test_landmarks_of_what_has_gone_are_forgotten() -> None:
    etcd = EtcdRanges(dict.fromkeys(held(4_000), b""))
    landmarks = Landmarks(SPACING)
    await survey_of(etcd, landmarks).learn(RECORDS.start)
    etcd.remove(held(4_000)[3:-3])
    etcd.counts.clear()
    await survey_of(etcd, landmarks).learn(RECORDS.start)
    assert len(landmarks) == 1
    assert len(etcd.counts) < 12


async def test_more_than_are_kept_are_spaced_out() -> None:
    etcd = EtcdRanges(dict.fromkeys(held(4_000), b""))
    landmarks = Landmarks(SPACING, most=400)
    await survey_of(etcd, landmarks).learn(RECORDS.start)
    assert landmarks.spacing == 4 * SPACING
    assert len(landmarks) == pytest.approx(4_000 / landmarks.spacing, abs=2)


class Unsteady(EtcdRanges):
    """Cannot be reached the first time."""

    async def range(self, request: Any, deadline: Any) -> Any:
        if not self.counts:
            self.counts.append(0)
            raise StoreUnavailableError("it cannot be reached")
        return await super().range(request, deadline)


async def test_it_learns_by_itself_and_again_when_a_read_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey_module, "_REST_SECONDS", 0.0)
    landmarks = Landmarks(SPACING)
    survey = survey_of(Unsteady(dict.fromkeys(held(40), b"")), landmarks)
    working = asyncio.create_task(survey.run())
    try:
        await turns_until(lambda: survey._etcd.counts)  # type: ignore[attr-defined]  # noqa: SLF001
        assert known(landmarks) == []
        survey.note(RECORDS.start, count=7, wanted=1, ranges=1)
        for _ in range(100):
            await asyncio.sleep(0)
        assert known(landmarks) == []
        survey.note(RECORDS.start, count=40, wanted=1, ranges=1)
        await turns_until(lambda: len(landmarks) == 10)
        landmarks.put(EVERYTHING, [])
        survey.note(RECORDS.start, count=0, wanted=16, ranges=5)
        await turns_until(lambda: len(landmarks) == 10)
    finally:
        working.cancel()
        await asyncio.wait({working})
