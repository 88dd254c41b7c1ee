"""A caller with a thousand single projects: lists tell what one range after the other would, in few reads of etcd."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from callers import ALL_ROLES, Caller, bearer, binding, write_policy
from etcd3.etcdrpc import RangeResponse
from etcd_hands import EtcdHands
from issuer import AUDIENCE, ISSUER, Issuer
from range_reads import on_read
from watches import read

from operation_service.etcd_members import Members
from operation_service.landmarks import Landmarks
from operation_service.server import running
from operation_service.settings import Settings
from operation_service.settings_access import CallerAccess

PROJECTS = [f"p-{number:04}" for number in range(1_000)]
THERE = {
    **dict.fromkeys(PROJECTS[::20], 1),
    **dict.fromkeys(PROJECTS[300:330], 3),
    "p-0000": 2,
    "p-0500": 40,
    "p-0501": 25,
    "p-0502": 1,
    "p-0999": 7,
}
"""How many operations: a few here and there, in the first and the last one, some in a row, and many in two."""
HIDDEN = ("a", "p-0000-x", "p-0500-x", "z")
Listed = tuple[str, int]
MANY = [f"{project}/vm/{number:02}" for project in PROJECTS for number in range(THERE.get(project, 0))]


@dataclass
class Reads:
    """Of each transaction of reads, how many ranges it had, and how many keys came."""

    ranges: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)

    def note(self, ranges: Sequence[RangeResponse]) -> None:
        self.ranges.append(len(ranges))
        self.keys.append(sum(len(found.kvs) for found in ranges))

    def taken(self) -> tuple[list[int], list[int]]:
        taken, self.ranges, self.keys = (self.ranges, self.keys), [], []
        return taken


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    reads = Reads()
    on_read(monkeypatch, reads.note)
    return reads


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> bool:
    """Whether the client reads ranges at once. A version that may not be asked so bears it as long as none waits."""
    value: bool = getattr(request, "param", True)
    monkeypatch.setattr(Members, "reads_at_once", property(lambda _: value))
    return value


@dataclass
class Callers:
    root: Caller
    many: Caller
    one: Caller


@pytest.fixture
async def callers(
    etcd: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callers]:
    # Close enough for some of the projects to have landmarks in them.
    monkeypatch.setattr("operation_service.server.Landmarks", partial(Landmarks, 4))
    issuer, policy = Issuer(tmp_path), tmp_path / "policy.toml"
    write_policy(
        policy,
        binding("token:root", *ALL_ROLES, projects=("*",)),
        binding("token:many", "read", projects=tuple(reversed(PROJECTS))),
        binding("token:one", "read", projects=("p-0500",)),
    )
    access = CallerAccess(policy=policy, jwks=issuer.file, issuer=ISSUER, audience=AUDIENCE)
    async with (
        running(replace(settings, access=access), [etcd]) as service,
        grpc.aio.insecure_channel(service.settings.listen) as channel,
    ):
        yield Callers(*(Caller(channel, bearer(issuer.token(subject))) for subject in ("root", "many", "one")))


async def fill(root: Caller, hands: EtcdHands) -> None:
    """Every third is completed, and of the others some have expired. Between them are some that are hidden."""
    hidden = [f"{project}/vm/{number:02}" for project in HIDDEN for number in range(9)]
    everything = [(name, *name.split("/", 1)) for name in (*MANY, *hidden)]
    await asyncio.gather(*(root.propose(name, project=project) for _, project, name in everything))
    await asyncio.gather(*(root.complete(name, project=project) for _, project, name in everything[::3]))
    await asyncio.gather(*(hands.delete(f"locks/{resource}") for resource, _, _ in everything[1::6]))


async def pages_of(caller: Caller, **query: Any) -> list[list[Listed]]:
    """All pages: what stands in them, and its state."""
    pages, token = [], ""
    while True:
        page = await caller.list(page_token=token, **query)
        pages.append([(f"{each.project}/{each.name}", int(each.state)) for each in page.operations])
        if not (token := page.next_page_token):
            return pages


async def in_pages(root: Caller, page_size: int, states: Sequence[str]) -> list[list[Listed]]:
    """What the pages ought to be: of what there is in one range over everything, what is not hidden."""
    everything = [each for page in await pages_of(root, page_size=1_000, states=states) for each in page]
    seen = [each for each in everything if each[0].split("/")[0] in set(PROJECTS)]
    assert len(seen) < len(everything)
    return [seen[first : first + page_size] for first in range(0, len(seen), page_size)]


STATES = [[], ["OPERATION_STATE_SUCCEEDED"], ["OPERATION_STATE_LOCKED", "OPERATION_STATE_EXPIRED"]]


@pytest.mark.parametrize("at_once", [True, False], indirect=True, ids=["at once", "one by one"])
async def test_pages_are_full_and_hold_what_is_not_hidden_in_the_order_of_the_keys(
    callers: Callers, hands: EtcdHands, *, at_once: bool
) -> None:
    await fill(callers.root, hands)
    names = [name for page in await pages_of(callers.many, page_size=1_000) for name, _ in page]
    assert names == MANY
    for states in STATES:
        for page_size in (1, 7, 100, 1_000) if at_once else (100,):
            expected = await in_pages(callers.root, page_size, states)
            assert await pages_of(callers.many, page_size=page_size, states=states) == expected
    prefix = [[each for each in page if each[0].endswith("/vm/03")] for page in await in_pages(callers.root, 1_000, [])]
    assert len(prefix[0]) == 3
    assert await pages_of(callers.many, name_prefix="vm/03") == prefix


@pytest.mark.usefixtures("at_once")
async def test_projects_with_nothing_in_them_are_read_sixty_at_once(callers: Callers, reads: Reads) -> None:
    for query in ({}, {"page_size": 1}, {"page_size": 1_000}, {"states": STATES[1]}):
        assert await pages_of(callers.many, **query) == [[]]
        assert reads.taken()[0] == [2, 8, 32, *[120] * 16, 38]


@pytest.mark.usefixtures("at_once")
async def test_the_pages_of_a_thousand_projects_take_few_reads_and_no_large_ones(
    callers: Callers, hands: EtcdHands, reads: Reads
) -> None:
    await fill(callers.root, hands)
    reads.taken()
    for page_size, most_reads in ((1_000, 40), (100, 45)):
        assert await pages_of(callers.many, page_size=page_size)
        ranges, keys = reads.taken()
        assert len(ranges) <= most_reads
        # With their locks.
        assert max(keys) <= 2 * (page_size + 1 + 60)
    await callers.many.list(page_size=1)
    ranges, keys = reads.taken()
    assert ranges == [2]
    assert keys[0] <= 4
    await pages_of(callers.many, page_size=1, states=["OPERATION_STATE_FAILED"])
    assert len(reads.taken()[0]) <= 40


@pytest.mark.usefixtures("at_once")
async def test_one_project_is_read_as_it_is_without_others(callers: Callers, hands: EtcdHands, reads: Reads) -> None:
    await fill(callers.root, hands)
    own = [name for name in MANY if name.startswith("p-0500/")]
    for caller, query in (
        (callers.root, {"project": "p-0500"}),
        (callers.many, {"project": "p-0500"}),
        (callers.one, {}),
    ):
        reads.taken()
        assert [name for page in await pages_of(caller, page_size=10, **query) for name, _ in page] == own
        ranges, _ = reads.taken()
        # One for each page, and one more where a landmark has gone.
        assert set(ranges) == {2}
        assert len(ranges) <= 2 * 4


@pytest.mark.usefixtures("at_once")
async def test_what_is_there_when_a_watch_begins_is_found_in_few_reads(
    callers: Callers, hands: EtcdHands, reads: Reads
) -> None:
    await fill(callers.root, hands)
    reads.taken()
    watch = await callers.many.watching()
    there = await read(watch, len(MANY))
    watch.cancel()
    assert sorted(f"{each.operation.project}/{each.operation.name}" for each in there) == sorted(MANY)
    # Counting takes 10, and telling a fiftieth of what there is.
    assert len(reads.taken()[0]) <= 40 + 10 + len(MANY) // 50 + 1


@pytest.mark.usefixtures("at_once")
async def test_locks_without_records_and_spoilt_records_hide_nothing_in_other_projects(
    callers: Callers, hands: EtcdHands
) -> None:
    await fill(callers.root, hands)
    gone = [f"p-0500/vm/{number:02}" for number in range(20)] + ["p-0020/vm/00", "p-0300/vm/01"]
    for name in gone:
        await hands.delete(f"records/{name}")
        await hands.put(f"locks/{name}", b"{}")
    await hands.put("records/p-0310/vm/01", b"not json")
    left = [name for name in MANY if name not in {*gone, "p-0310/vm/01"}]
    expected = [each for page in await in_pages(callers.root, 1_000, []) for each in page]
    assert [name for name, _ in expected] == left
    for page_size in (7, 100):
        assert [each for page in await pages_of(callers.many, page_size=page_size) for each in page] == expected
