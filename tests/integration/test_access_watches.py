"""What becomes of thousands of watches when a policy changes: each that may not go on ends, and calls hardly wait."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from callers import binding, write_policy
from issuer import AUDIENCE, ISSUER, Issuer
from waiting import soon

from operation_service import background
from operation_service.access import Access, Standing
from operation_service.errors import OperationError, RoleRequiredError
from operation_service.grants import Projects
from operation_service.identities import Identity
from operation_service.policy_file import policy_of
from operation_service.settings import Settings
from operation_service.settings_access import CallerAccess

MANY = tuple(f"p{number}" for number in range(200))
ALIKE = binding("certificate:*", "read", projects=MANY)


def each_for_itself(count: int, *more: str) -> list[str]:
    return [binding(f"certificate:{number}", "read", projects=(f"own-{number}", *more)) for number in range(count)]


class Comparing:
    """Counts what watches were begun with and is compared, and in which turn of the event loop each was."""

    def __init__(self) -> None:
        self.turns: list[int] = []
        self._turn = 0
        self.on_note: Callable[[], object] = lambda: None

    def note(self) -> None:
        self.turns.append(self._turn)
        asyncio.get_running_loop().call_soon(self._next_turn)
        self.on_note()

    def _next_turn(self) -> None:
        self._turn += 1


@pytest.fixture
def comparing(monkeypatch: pytest.MonkeyPatch) -> Comparing:
    comparing, compare = Comparing(), Projects.first_beyond

    def first_beyond(some: Projects, others: Projects) -> str | None:
        comparing.note()
        return compare(some, others)

    monkeypatch.setattr(Projects, "first_beyond", first_beyond)
    return comparing


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return tmp_path / "policy.toml"


class Watches:
    """Watches over all projects, of so many callers."""

    def __init__(self, access: Access, count: int) -> None:
        self.standing: list[Standing] = []
        self._access = access
        self._tasks = [asyncio.create_task(self._watch(f"certificate:{number}")) for number in range(count)]

    async def _watch(self, subject: str) -> OperationError | None:
        try:
            with self._access.standing("WatchOperations", Identity(subject), "") as standing:
                self.standing.append(standing)
                await asyncio.Event().wait()
        except OperationError as error:
            return error
        return None

    def now_in_force(self, *bindings: str) -> None:
        """Put another policy in force in this very moment, for which no file can be relied on."""
        files = self._access._policy  # noqa: SLF001, see above
        assert files is not None
        files.meaning = policy_of("\n".join(bindings).encode(), Path("policy.toml"))

    @property
    def ended_with(self) -> Sequence[OperationError | None]:
        return [task.result() for task in self._tasks if task.done() and not task.cancelled()]

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)


@contextlib.asynccontextmanager
async def watched(policy: Path, count: int) -> AsyncIterator[Watches]:
    """The real thing without its wire: who may watch, from a file that is read again."""
    issuer = Issuer(policy.parent)
    asked = CallerAccess(policy=policy, jwks=issuer.file, issuer=ISSUER, audience=AUDIENCE)
    access = Access(Settings(access=asked))
    async with contextlib.AsyncExitStack() as stack:
        for work in access.works:
            stack.push_async_callback(background.begun(work))
        watches = Watches(access, count)
        stack.push_async_callback(watches.end)
        yield watches


async def test_what_many_watches_were_begun_with_is_compared_once(policy: Path, comparing: Comparing) -> None:
    write_policy(policy, ALIKE)
    async with watched(policy, 500) as watches:
        write_policy(policy, ALIKE, binding("certificate:*", "read", projects=("more",)))

        async def is_compared() -> bool:
            return bool(comparing.turns)

        assert await soon(is_compared)
        assert watches.ended_with == []
        write_policy(policy, binding("certificate:*", "read", projects=MANY[1:]))

        async def have_ended() -> bool:
            return len(watches.ended_with) == 500

        assert await soon(have_ended)
        assert {getattr(error, "project", None) for error in watches.ended_with} == {"p0"}
    assert len(comparing.turns) == 2


async def test_a_turn_of_the_event_loop_has_one_comparison(policy: Path, comparing: Comparing) -> None:
    write_policy(policy, *each_for_itself(100))
    async with watched(policy, 100) as watches:
        write_policy(policy, *each_for_itself(50))

        async def have_ended() -> bool:
            return len(watches.ended_with) == 50

        assert await soon(have_ended)
        projects = {error.project for error in watches.ended_with if isinstance(error, RoleRequiredError)}
        assert projects == {f"own-{number}" for number in range(50, 100)}
    assert len(comparing.turns) == len(set(comparing.turns)) == 100


async def test_a_policy_that_comes_while_watches_are_looked_at_counts_for_all_of_them(
    policy: Path, comparing: Comparing
) -> None:
    write_policy(policy, *each_for_itself(100))
    async with watched(policy, 100) as watches:

        def take_all_away() -> None:
            if len(comparing.turns) == 50:
                watches.now_in_force(binding("certificate:nobody", "read"))

        comparing.on_note = take_all_away
        write_policy(policy, *each_for_itself(100, "more"))

        async def have_ended() -> bool:
            return len(watches.ended_with) == 100

        assert await soon(have_ended)
        assert all(isinstance(error, RoleRequiredError) for error in watches.ended_with)
        assert len(comparing.turns) == 150


async def test_a_watch_that_was_not_looked_at_yet_tells_nothing_that_the_policy_does_not_allow(policy: Path) -> None:
    write_policy(policy, *each_for_itself(3))
    async with watched(policy, 3) as watches:
        await asyncio.sleep(0)
        for standing in watches.standing:
            standing.check()
        watches.now_in_force(*each_for_itself(2))
        for standing in watches.standing[:2]:
            standing.check()
        with pytest.raises(RoleRequiredError, match="on the project own-2"):
            watches.standing[2].check()


async def test_a_watch_that_has_ended_meanwhile_is_not_looked_at(
    policy: Path, comparing: Comparing, caplog: pytest.LogCaptureFixture
) -> None:
    write_policy(policy, *each_for_itself(10))
    async with watched(policy, 10) as watches:
        ending: list[asyncio.Task[None]] = []
        comparing.on_note = lambda: ending.append(asyncio.create_task(watches.end()))
        write_policy(policy, binding("certificate:nobody", "read"))

        async def has_ended() -> bool:
            return bool(ending) and ending[0].done()

        assert await soon(has_ended)
    # Until they have heard of it.
    assert len(comparing.turns) < 5
    assert sum("refused" in message for message in caplog.messages) == len(comparing.turns)


async def test_one_that_cannot_be_looked_at_keeps_no_other_from_ending(
    policy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_policy(policy, *each_for_itself(5))

    def look(standing: Standing) -> None:
        if standing is watches.standing[0]:
            raise LookupError("of which nobody has thought")
        look_as_ever(standing)

    async with watched(policy, 5) as watches:
        look_as_ever = Standing.look
        monkeypatch.setattr(Standing, "look", look)
        write_policy(policy, binding("certificate:nobody", "read"))

        async def have_ended() -> bool:
            return len(watches.ended_with) == 4

        assert await soon(have_ended)
    assert "it could not be found out whether a watch may go on" in caplog.messages
