"""Pages put together are what is there, each once and in order, wherever the landmarks say that reads may end."""

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Any, TypeVar, cast
from unittest.mock import patch

import pytest
from etcd3.etcdrpc import TxnRequest, TxnResponse
from etcd_ranges import EtcdRanges
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from stores import a_store
from unit_support import NOW, UNTIL, FakeClock

from operation_service import listing as listing_module
from operation_service.clock import Deadline
from operation_service.codec import encode
from operation_service.errors import StoreUnavailableError
from operation_service.keys import KeyRange, Keys
from operation_service.landmarks import Landmarks
from operation_service.listing import Listing
from operation_service.model import Event, Lock, Log, Phase, Record, Resource, State
from operation_service.scan import OperationsQuery
from operation_service.survey import Survey

KEYS = Keys("/p/")
EVERYTHING = KeyRange(b"", b"\xff")
LOCK = Lock(
    token="holder",
    holder="192.0.2.1:1",
    locked_since=NOW,
    locked_until=UNTIL,
    ttl_seconds=40.0,
    is_disabled_cancel=False,
)
RECORD = Record(
    "id", Phase.PROPOSED, Event.LOCKED, "id", lock=LOCK, fencing_token=1, log_count=1, last_log=Log(NOW, "begun")
)

ALL = [
    Resource(project, f"n{number:02}{end}")
    for project in ("a", "a-b", "b")
    for number in range(8)
    for end in ("", "/x")
]
ENDS = sorted(
    {KEYS.record(resource) + end for resource in ALL for end in (b"", b"-", b"\xff")} | {b"", b"/p/q", b"\xff"}
)
A_THOUSAND = OperationsQuery("", "", frozenset(), tuple(f"p-{number:04}" for number in range(1_000)))

T = TypeVar("T")


def some_of(everything: Sequence[T]) -> st.SearchStrategy[list[T]]:
    """About half of them, or any other share."""
    picks = st.lists(st.booleans(), min_size=len(everything), max_size=len(everything))
    return picks.map(lambda picked: list(compress(everything, picked)))


queries = st.builds(
    OperationsQuery,
    st.sampled_from(["", "a", "a-b", "nobody"]),
    st.sampled_from(["", "n", "na"]),
    st.sampled_from([frozenset[State](), frozenset({State.LOCKED}), frozenset({State.EXPIRED, State.FAILED})]),
    # In the order of their keys.
    st.sampled_from([None, ("a-b", "a"), ("a", "b"), ("a-b",), ("nobody", "none"), (), ("0", "a-b", "a", "b")]),
)


def etcd_with(there: Iterable[Resource], held: Iterable[Resource]) -> EtcdRanges:
    records = {KEYS.record(resource): encode(RECORD) for resource in there}
    return EtcdRanges(records | {KEYS.lock(resource): encode(LOCK) for resource in held})


def listing_of(etcd: EtcdRanges, landmarks: Landmarks) -> Listing:
    clock, client = FakeClock(), cast("Any", etcd)
    store = a_store(client, KEYS, clock)
    return Listing(client, KEYS, store, Survey(client, KEYS, landmarks))


async def all_pages(
    listing: Listing, query: OperationsQuery, page_size: int = 10
) -> tuple[list[Resource], dict[Resource, State], list[int]]:
    """Everything listed, in the order told; its states; and the sizes of the pages."""
    told: list[Resource] = []
    states: dict[Resource, State] = {}
    sizes: list[int] = []
    token = ""
    while True:
        views, token = await listing.operations(query, page_size, token, Deadline(60))
        told += [view.resource for view in views]
        states |= {view.resource: view.state for view in views}
        sizes.append(len(views))
        if not token:
            return told, states, sizes


@given(some_of(ALL), some_of(ALL), some_of(ENDS), st.tuples(st.integers(1, 4), st.integers(1, 5)), queries)
async def test_pages_are_everything_once_and_in_order_whatever_the_landmarks_are(
    there: list[Resource],
    held: list[Resource],
    believed: list[bytes],
    spacing_and_page_size: tuple[int, int],
    query: OperationsQuery,
) -> None:
    spacing, page_size = spacing_and_page_size
    landmarks = Landmarks(spacing)
    landmarks.put(EVERYTHING, believed)
    # Locks without records, which nobody but a person leaves, are in there too.
    listing = listing_of(etcd_with(there, held), landmarks)
    with patch.object(listing_module, "_SCAN", 3):
        told, states, sizes = await all_pages(listing, query, page_size)
    state_of = {resource: State.LOCKED if resource in held else State.EXPIRED for resource in there}
    expected = [
        resource for resource in sorted(there, key=KEYS.record) if query.is_met_by(resource, state_of[resource])
    ]
    assert told == expected
    assert states == {resource: state_of[resource] for resource in expected}
    assert all(size == page_size for size in sizes[:-1])
    assert sizes[-1] > 0 or not expected


def numbered(count: int, project: str = "a") -> list[Resource]:
    return [Resource(project, f"n{number:05}") for number in range(count)]


def landmarks_of(some: list[Resource], spacing: int = 4) -> Landmarks:
    landmarks = Landmarks(spacing)
    landmarks.put(EVERYTHING, [KEYS.record(resource) for resource in some[spacing - 1 :: spacing]])
    return landmarks


async def test_a_page_walks_over_little_more_than_it_shows_however_many_there_are() -> None:
    there = numbered(5_000)
    etcd = etcd_with(there, there)
    told, _, _ = await all_pages(listing_of(etcd, landmarks_of(there)), OperationsQuery("a", "", frozenset()))
    assert told == there
    assert max(etcd.counts) <= 11 + 11 // 4 + 2 * 4
    # One range of records and one of locks for each page.
    assert len(etcd.counts) == 2 * 500


async def test_a_gap_takes_few_reads_and_does_not_make_the_page_short() -> None:
    there = numbered(4_000)
    etcd = etcd_with([there[0], *there[-3:]], [])
    listing = listing_of(etcd, landmarks_of(there))
    told, _, sizes = await all_pages(listing, OperationsQuery("a", "", frozenset()))
    assert told == [there[0], *there[-3:]]
    assert sizes == [4]
    assert len(etcd.counts) <= 2 * 11


async def test_a_scan_that_leaves_out_most_walks_over_everything_once() -> None:
    there = numbered(5_000)
    etcd = etcd_with(there, there[-2:])
    listing = listing_of(etcd, landmarks_of(there))
    told, _, sizes = await all_pages(listing, OperationsQuery("", "", frozenset({State.LOCKED})))
    assert told == there[-2:]
    assert sizes == [2]
    assert sum(etcd.counts) < 1.5 * 5_000


async def test_of_a_project_among_others_only_its_own_is_walked_over() -> None:
    others, there = numbered(1_000, "a") + numbered(1_000, "c"), numbered(5, "b")
    etcd = etcd_with([*others, *there], [])
    landmarks = landmarks_of(sorted([*others, *there], key=KEYS.record))
    told, _, _ = await all_pages(listing_of(etcd, landmarks), OperationsQuery("b", "", frozenset()))
    assert told == there
    assert max(etcd.counts) <= 5


async def test_details_that_a_record_tells_are_not_read_and_others_as_many_at_once_as_etcd_takes() -> None:
    there = numbered(300)
    etcd = etcd_with(there, [])
    more = replace(RECORD, log_count=2)
    etcd.entries |= {KEYS.record(resource): encode(more) for resource in there[:250]}
    listing = listing_of(etcd, landmarks_of(there))
    views, _ = await listing.operations(OperationsQuery("a", "", frozenset()), 300, "", Deadline(60))
    assert [len(view.logs) for view in views] == [0] * 250 + [1] * 50
    assert views[-1].logs[0] == RECORD.last_log
    assert etcd.reads == [2, 100, 100, 50]


@pytest.mark.parametrize("states", [frozenset[State](), frozenset({State.EXPIRED})])
@pytest.mark.parametrize("page_size", [1, 10, 300])
@pytest.mark.parametrize("others", [(), tuple(f"b{number:03}" for number in range(300))], ids=["two", "many"])
async def test_what_is_in_other_projects_is_not_walked_over_and_changes_no_page(
    states: frozenset[State], page_size: int, others: tuple[str, ...]
) -> None:
    query = OperationsQuery("", "n", states, ("b", *others, "d"))
    seen = [*numbered(120, "b"), *numbered(80, "d")]
    hidden = [each for project in ("a", "b-b", "b003-b", "c", "d.d", "e") for each in numbered(300, project)]
    alone, among = etcd_with(seen, []), etcd_with([*seen, *hidden], [])
    pages_alone = await all_pages(listing_of(alone, Landmarks()), query, page_size)
    pages_among = await all_pages(listing_of(among, Landmarks()), query, page_size)
    assert pages_among == pages_alone
    assert (among.reads, among.counts) == (alone.reads, alone.counts)
    assert pages_alone[0] == seen


async def test_where_etcd_is_asked_for_one_range_after_the_other_anyway_nothing_is_read_ahead() -> None:
    there = numbered(3, "p-0500")
    etcd = etcd_with(there, [])
    etcd.members.reads_at_once = False
    told, _, _ = await all_pages(listing_of(etcd, Landmarks()), A_THOUSAND, 2)
    assert told == there
    assert set(etcd.reads) == {2}


class Spent(Deadline):
    """A second is spent by each read, and nothing by anything else."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.left = seconds

    def remaining(self) -> float:
        return self.left


class Slow(EtcdRanges):
    async def read(self, request: TxnRequest, deadline: Deadline) -> TxnResponse:
        assert isinstance(deadline, Spent)
        if deadline.left <= 0:
            raise StoreUnavailableError("no answer in time")
        deadline.left -= 1
        return await super().read(request, deadline)


async def test_a_page_whose_time_is_nearly_over_between_two_reads_ends_there_and_goes_on() -> None:
    there = [Resource(f"p-{number:04}", "n") for number in (3, 4, 900)]
    listing = listing_of(Slow(etcd_with(there, []).entries), Landmarks())
    first, token = await listing.operations(A_THOUSAND, 10, "", Spent(8))
    assert [view.resource for view in first] == there[:2]
    assert token
    rest, last = await listing.operations(A_THOUSAND, 10, token, Spent(40))
    assert ([view.resource for view in rest], last) == (there[2:], "")


async def test_a_page_for_which_nothing_was_found_in_time_is_an_error_and_not_empty() -> None:
    listing = listing_of(Slow(etcd_with([Resource("p-0900", "n")], []).entries), Landmarks())
    with pytest.raises(StoreUnavailableError):
        await listing.operations(A_THOUSAND, 10, "", Spent(8))
