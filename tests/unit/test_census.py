"""Dead operators are counted right also while the look for them is under way."""

from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from support import TestClock
from unit_support import NOW

from operation_service.census import Census
from operation_service.changes import Changed, Occurrence
from operation_service.lock_times import LockTimes
from operation_service.model import Event, Lock, Phase, Record, Resource, Snapshot
from operation_service.scan import Found, Scan
from operation_service.tallies import Tallies

LOCK = Lock("token", "holder", NOW, NOW, 30.0, True)
RECORD = Record("id", Phase.PROPOSED, Event.LOCKED, "change", LOCK, 1)


def named(name: str) -> Resource:
    return Resource("demo", name)


class Look:
    """Finds some operations, of which some are dead, and lets things happen while it does."""

    def __init__(self) -> None:
        self.dead: list[str] = []
        self.locked: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None

    async def run(self, _after: None, _limit: int) -> AsyncIterator[Found]:
        for name in self.dead:
            yield Found(named(name), RECORD, Snapshot(record=RECORD))
        for name in self.locked:
            yield Found(named(name), RECORD, Snapshot(record=RECORD, lock=LOCK))
        self.meanwhile()


class World:
    def __init__(self) -> None:
        self.look = Look()
        self.times = LockTimes(TestClock())
        self.tallies = Tallies()
        self.census = Census(lambda: cast("Scan", self.look), self.times, self.tallies)

    def lock(self, name: str, lock: Lock = LOCK) -> None:
        self.times.taken(named(name), 1, lock)

    def happens(self, name: str, event: Event | None) -> None:
        self.census.note([], [Occurrence(named(name), event, 2)])

    def goes(self, name: str) -> None:
        changed = Changed(named(name))
        changed.is_record_deleted = True
        self.census.note([changed], [])


@pytest.fixture
async def world() -> World:
    return World()


async def test_what_is_found_dead_counts(world: World) -> None:
    world.look.dead, world.look.locked = ["a", "b"], ["c"]
    assert not world.census.is_known
    await world.census.look()
    assert world.census.is_known
    assert world.census.dead == 2


async def test_who_is_relieved_while_it_looks_is_not_dead_any_more(world: World) -> None:
    world.look.dead = ["a", "b", "c"]

    def meanwhile() -> None:
        world.happens("a", Event.LOCKED)
        world.goes("b")

    world.look.meanwhile = meanwhile
    await world.census.look()
    assert world.census.dead == 1


async def test_who_dies_while_it_looks_is_dead(world: World) -> None:
    world.look.locked = ["a", "b"]
    world.lock("a")
    world.look.meanwhile = lambda: world.happens("a", None)
    await world.census.look()
    assert world.census.dead == 1


async def test_what_was_missed_is_forgotten_after_the_next_look(world: World) -> None:
    world.look.dead = ["relieved-unheard", "still-dead"]
    await world.census.look()
    world.look.dead = ["still-dead", "died-unheard", "too"]
    await world.census.look()
    assert world.census.dead == 3


async def test_a_look_that_fails_leaves_what_was_known(world: World) -> None:
    world.look.dead = ["a"]
    await world.census.look()

    def fail() -> None:
        raise RuntimeError

    world.look.meanwhile = fail
    with pytest.raises(RuntimeError):
        await world.census.look()
    assert world.census.dead == 1


@pytest.mark.parametrize("uncancellable", [True, False])
async def test_only_a_lock_that_nobody_could_cancel_leaves_a_dead_operator(world: World, uncancellable: bool) -> None:
    lock: Any = Lock("token", "holder", NOW, NOW, 30.0, uncancellable)
    world.lock("a", lock)
    world.happens("a", None)
    assert world.census.dead == uncancellable
    event = Event.OPERATOR_DEAD if uncancellable else Event.EXPIRED
    assert world.tallies.expiries == {event: 1}


async def test_a_lock_that_was_broken_is_what_its_event_says(world: World) -> None:
    world.happens("a", Event.OPERATOR_DEAD)
    world.happens("b", Event.EXPIRED)
    assert world.census.dead == 1


@pytest.mark.parametrize("event", [Event.LOCKED, Event.CANCELLED, Event.CREATED, Event.SUCCEEDED])
async def test_whatever_is_done_for_a_dead_operator_ends_its_being_dead(world: World, event: Event) -> None:
    world.look.dead = ["a"]
    await world.census.look()
    world.happens("a", event)
    assert world.census.dead == 0
