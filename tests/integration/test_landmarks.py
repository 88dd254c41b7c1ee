"""Landmarks over a real etcd: they change how much a page's reads walk over, which etcd tells, and never the page."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial

import pytest
from etcd_hands import EtcdHands
from range_reads import on_read
from stores import a_store
from support import Peer, TestClock, connected
from waiting import soon

from operation_service.clock import Deadline
from operation_service.etcd_client import EtcdClient
from operation_service.keys import KeyRange, Keys
from operation_service.landmarks import Landmarks
from operation_service.listing import Listing
from operation_service.model import Resource, State
from operation_service.scan import OperationsQuery
from operation_service.server import running
from operation_service.settings import Settings
from operation_service.survey import Survey

SPACING = 4
PAGE_SIZE = 5
LONGEST_WALK = (PAGE_SIZE + 1) * 5 // 4 + 2 * SPACING
"""Of a page: as many as it wants, a quarter more, and two spacings."""
EVERYTHING = OperationsQuery("", "", frozenset())


@dataclass
class Walks:
    """Of every range read in a transaction, single keys apart, how many keys etcd says that it had."""

    counts: list[int] = field(default_factory=list)

    def taken(self) -> list[int]:
        counts, self.counts = self.counts, []
        return counts


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> Walks:
    walks = Walks()
    on_read(monkeypatch, lambda ranges: walks.counts.extend(found.count for found in ranges))
    return walks


@dataclass
class Parts:
    """A listing of its own on the keys of the test's service, with landmarks that stand close."""

    keys: Keys
    landmarks: Landmarks
    survey: Survey
    listing: Listing

    async def learn(self) -> None:
        await self.survey.learn(self.keys.records("", "").start)

    async def page(self, token: str = "", query: OperationsQuery = EVERYTHING) -> tuple[list[tuple[str, State]], str]:
        views, token = await self.listing.operations(query, PAGE_SIZE, token, Deadline(10))
        return [(str(view.resource), view.state) for view in views], token

    async def pages(self, query: OperationsQuery = EVERYTHING, token: str = "") -> list[list[tuple[str, State]]]:
        pages = []
        while True:
            page, token = await self.page(token, query)
            pages.append(page)
            if not token:
                return pages


@pytest.fixture
async def parts(etcd: str, settings: Settings) -> AsyncIterator[Parts]:
    clock, keys, client, landmarks = TestClock(), Keys(settings.key_prefix), EtcdClient([etcd]), Landmarks(SPACING)
    survey = Survey(client, keys, landmarks)
    store = a_store(client, keys, clock)
    yield Parts(keys, landmarks, survey, Listing(client, keys, store, survey))
    await client.close()


async def propose(peer: Peer, count: int, project: str = "held", first: int = 0) -> None:
    await asyncio.gather(*(peer.propose(f"vm/{n:03}", project=project) for n in range(first, first + count)))


async def test_pages_are_the_same_with_and_without_landmarks(peer: Peer, parts: Parts, hands: EtcdHands) -> None:
    for project in ("held", "held-2", "other"):
        await propose(peer, 30, project)
    for number in range(0, 30, 7):
        await peer.complete(f"vm/{number:03}", project="held-2")
        await hands.delete(f"locks/other/vm/{number:03}")
    queries = [
        EVERYTHING,
        OperationsQuery("held", "", frozenset()),
        OperationsQuery("held", "vm/01", frozenset()),
        OperationsQuery("", "vm/02", frozenset()),
        OperationsQuery("", "", frozenset({State.SUCCEEDED, State.EXPIRED})),
        OperationsQuery("nobody", "", frozenset()),
    ]
    without = [await parts.pages(query) for query in queries]
    await parts.learn()
    assert len(parts.landmarks) == 90 // SPACING
    assert [await parts.pages(query) for query in queries] == without
    ends = [parts.keys.record(Resource("held-2", f"vm/{n:03}")) + end for n in range(0, 30, 2) for end in (b"", b"~")]
    parts.landmarks.put(KeyRange(b"", b"~"), sorted(ends))
    assert [await parts.pages(query) for query in queries] == without


async def test_once_learned_the_reads_of_every_page_end_near(peer: Peer, parts: Parts, walks: Walks) -> None:
    await propose(peer, 60)
    await parts.page()
    assert walks.taken() == [60, 60]
    await parts.learn()
    assert len(await parts.pages()) == 12
    counts = walks.taken()
    assert len(counts) == 2 * 12
    assert max(counts) <= LONGEST_WALK


async def test_what_has_come_since_is_learned_when_a_page_finds_it(
    etcd: str, settings: Settings, walks: Walks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operation_service.server.Landmarks", partial(Landmarks, SPACING))
    monkeypatch.setattr("operation_service.survey._REST_SECONDS", 0.05)
    async with running(settings, [etcd]) as service, connected(service.address) as peer:

        async def ends_near() -> bool:
            walks.taken()
            assert len((await peer.list(project="held", page_size=PAGE_SIZE)).operations) == PAGE_SIZE
            return max(walks.taken()) <= LONGEST_WALK

        await propose(peer, 60)
        assert await soon(ends_near)
        # What comes in between makes them thin, and they are learned once more.
        await asyncio.gather(*(peer.propose(f"vm/00{n % 5}-{n:03}", project="held") for n in range(100)))
        assert await soon(ends_near)


async def test_where_most_have_gone_pages_are_whole_and_the_landmarks_go_too(
    peer: Peer, parts: Parts, hands: EtcdHands, walks: Walks
) -> None:
    await propose(peer, 90)
    await parts.learn()
    for ten in range(8):
        await hands.delete_below(f"records/held/vm/0{ten}")
        await hands.delete_below(f"locks/held/vm/0{ten}")
    page, token = await parts.page()
    assert [name for name, _ in page] == [f"held/vm/{number:03}" for number in range(80, 85)]
    assert token
    # Each read reaches twice as far as the one before.
    assert len(walks.taken()) <= 2 * 6
    assert len(parts.landmarks) == 90 // SPACING
    await parts.learn()
    assert len(parts.landmarks) == 10 // SPACING
    await parts.page()
    assert walks.taken() == [10, 10]


async def test_pages_of_an_earlier_moment_go_on_over_landmarks_of_now(
    peer: Peer, parts: Parts, hands: EtcdHands
) -> None:
    await propose(peer, 30)
    expected = await parts.pages()
    first, token = await parts.page()
    await hands.delete_below("records/held/vm/01")
    await hands.delete_below("locks/held/vm/01")
    await propose(peer, 30, first=30)
    await parts.learn()
    assert [first, *await parts.pages(token=token)] == expected
