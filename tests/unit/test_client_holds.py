"""What a hold does that is entered and left in odd ways; the service is a fake one, threads and tasks are real."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from client_fakes import FakeAsyncChannel, FakeChannel, FakeService
from client_support import SELF, TERMS, PushedClock
from unit_support import turns_until

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.client import claims
from operation_service.client.acquiring import Wanted
from operation_service.client.aio_hold import AsyncEntry, AsyncHold
from operation_service.client.blocking_hold import Entry, Hold
from operation_service.client.clock import boottime
from operation_service.client.errors import HeldHereError, LockLostError, Loss
from operation_service.client.rpcs import COMPLETE, GET, PROPOSE, Rpc
from operation_service.client.session import Session


@pytest.fixture(autouse=True)
def _no_claims() -> Iterator[None]:
    claims._claims.clear()  # noqa: SLF001
    yield
    assert claims._claims == {}, "nobody has it any more"  # noqa: SLF001


@pytest.fixture
def service() -> FakeService:
    return FakeService()


def a_hold(service: FakeService, *, wait: float | None = 0.0) -> Hold:
    return Hold(
        lambda: Entry(Wanted(TERMS, wait, ""), Session(SELF, 60.0, boottime), FakeChannel(service), None, set())
    )


def an_async_hold(service: FakeService, *, wait: float | None = 0.0) -> AsyncHold:
    return AsyncHold(
        lambda: AsyncEntry(
            Wanted(TERMS, wait, ""), Session(SELF, 10.0, boottime), FakeAsyncChannel(service), None, set()
        )
    )


def entered_into(service: FakeService) -> tuple[Hold, set[Entry]]:
    """A hold, and where its entries are."""
    entries: set[Entry] = set()
    return Hold(
        lambda: Entry(Wanted(TERMS, 0.0, ""), Session(SELF, 60.0, boottime), FakeChannel(service), None, entries)
    ), entries


def give_up(entries: set[Entry]) -> None:
    for entry in list(entries):
        entry.give_up()


class SlowChannel(FakeAsyncChannel):
    """Leads to a service that takes its time with some calls.

    Args:
        service: The service.
        slow: With which ones.
        is_late: Whether it carries them out at once, and only the answers take time.
    """

    def __init__(
        self, service: FakeService, slow: Sequence[Rpc[Any, Any]] = (COMPLETE,), *, is_late: bool = False
    ) -> None:
        super().__init__(service)
        self.slow = slow
        self.is_late = is_late
        self.is_under_way = asyncio.Event()
        self.may_go_on = asyncio.Event()

    def unary(self, rpc: Any) -> Any:
        if rpc not in self.slow:
            return super().unary(rpc)
        return lambda *args, **more: _Slow(self, super(SlowChannel, self).unary(rpc)(*args, **more))


class _Slow:
    def __init__(self, channel: SlowChannel, call: Any) -> None:
        self._channel, self._call = channel, call

    def __await__(self) -> Any:
        return self._carry_out().__await__()

    async def _carry_out(self) -> Any:
        if self._channel.is_late:
            message = await self._call
            await self._channel.may_go_on.wait()
            return message
        self._channel.is_under_way.set()
        await self._channel.may_go_on.wait()
        return await self._call

    async def trailing_metadata(self) -> Any:
        return await self._call.trailing_metadata()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if TERMS.resource in thread.name]


def join() -> None:
    for thread in threading.enumerate():
        if TERMS.resource in thread.name:
            thread.join(30)
    assert threads() == []


def test_a_block_takes_the_lock_and_gives_it_back_and_no_thread_stays(service: FakeService) -> None:
    with a_hold(service) as operation:
        assert service.state == pb.OPERATION_STATE_LOCKED
        assert operation.fencing_token == 1
        assert sorted(threads()) == [f"renews {TERMS.resource}", f"watches {TERMS.resource}"]
    assert service.state == pb.OPERATION_STATE_SUCCEEDED
    assert service.names() == ["ProposeOperation", "CompleteOperation"]
    join()


async def test_an_async_block_takes_the_lock_and_gives_it_back_and_no_task_stays(service: FakeService) -> None:
    before = asyncio.all_tasks()
    async with an_async_hold(service) as operation:
        assert operation.fencing_token == 1
        assert len(asyncio.all_tasks() - before) == 2
    assert asyncio.all_tasks() == before
    assert service.names() == ["ProposeOperation", "CompleteOperation"]


async def test_no_task_stays_of_a_block_that_its_lost_lock_ends(service: FakeService) -> None:
    before = asyncio.all_tasks()
    with pytest.raises(LockLostError):
        async with an_async_hold(service) as operation:
            operation._tenure.lose(Loss.CANCELLED)  # noqa: SLF001
    assert asyncio.all_tasks() == before


def test_a_hold_may_be_entered_again_when_it_was_left(service: FakeService) -> None:
    hold = a_hold(service)
    for fencing_token in (1, 2):
        with hold as operation:
            assert operation.fencing_token == fencing_token
    join()


def test_to_enter_a_hold_within_itself_is_refused_and_lets_nobody_else_in(service: FakeService) -> None:
    hold = a_hold(service)
    with hold:
        with pytest.raises(HeldHereError), hold:
            pass
        with pytest.raises(HeldHereError), a_hold(service):
            pass
    assert service.names() == ["ProposeOperation", "CompleteOperation"]
    join()


async def test_to_enter_an_async_hold_within_itself_is_refused_and_lets_nobody_else_in(service: FakeService) -> None:
    hold = an_async_hold(service)
    async with hold:
        with pytest.raises(HeldHereError):
            await hold.__aenter__()
        with pytest.raises(HeldHereError):
            await an_async_hold(service).__aenter__()
    assert service.names() == ["ProposeOperation", "CompleteOperation"]


async def test_a_task_that_is_cancelled_while_it_waits_leaves_the_lock_of_the_other_hold_alone(
    service: FakeService,
) -> None:
    async with an_async_hold(service):
        waiting = asyncio.create_task(an_async_hold(service, wait=None).__aenter__())
        for _ in range(10):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert service.lock_for == TERMS.lock_for
    assert service.names() == ["ProposeOperation", "CompleteOperation"]


def test_an_interrupt_while_it_waits_leaves_the_lock_of_the_other_hold_alone(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with a_hold(service):
        monkeypatch.setattr("concurrent.futures.Future.result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            a_hold(service, wait=None).__enter__()
        assert service.lock_for == TERMS.lock_for
    assert service.names() == ["ProposeOperation", "CompleteOperation"]
    join()


def test_a_lock_whose_answer_was_interrupted_is_let_go(service: FakeService) -> None:
    interrupts = [KeyboardInterrupt()]

    def interrupt(name: str) -> None:
        if name == "ProposeOperation" and interrupts:
            raise interrupts.pop()

    service.after = interrupt
    with pytest.raises(KeyboardInterrupt), a_hold(service):
        pass
    assert service.names() == ["ProposeOperation", "GetOperation", "ProposeOperation"]
    assert service.lock_for == 1
    assert threads() == []


async def test_a_second_cancellation_does_not_keep_a_lock_from_being_let_go(service: FakeService) -> None:
    channel = SlowChannel(service, (PROPOSE, GET), is_late=True)
    hold = AsyncHold(lambda: AsyncEntry(Wanted(TERMS, 0.0, ""), Session(SELF, 10.0, boottime), channel, None, set()))
    entering = asyncio.create_task(hold.__aenter__())
    for calls in (1, 2):
        await turns_until(lambda calls=calls: len(service.calls) == calls)  # type: ignore[misc]
        entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    channel.may_go_on.set()
    await turns_until(lambda: not claims._claims)  # noqa: SLF001
    assert service.names() == ["ProposeOperation", "GetOperation", "ProposeOperation"]
    assert service.lock_for == 1


@pytest.mark.parametrize("which", ["renews", "watches"])
def test_a_lock_that_no_thread_can_keep_is_let_go(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    start = threading.Thread.start

    def no_more(thread: threading.Thread) -> None:
        if thread.name.startswith(which):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", no_more)
    with pytest.raises(RuntimeError, match="can't start new thread"), a_hold(service):
        pass
    assert service.names() == ["ProposeOperation", "GetOperation", "ProposeOperation"]
    assert service.lock_for == 1
    join()


def test_who_gives_up_waits_for_a_block_that_is_just_ending(service: FakeService) -> None:
    hold, entries = entered_into(service)
    seen: list[bool] = []
    giving_up = threading.Thread(target=give_up, args=(entries,))

    def completing(name: str) -> None:
        if name == "CompleteOperation":
            giving_up.start()
            giving_up.join(0.2)
            seen.append(giving_up.is_alive())

    service.before = completing
    with hold:
        pass
    giving_up.join(30)
    assert not giving_up.is_alive()
    assert seen == [True]
    assert service.names() == ["ProposeOperation", "CompleteOperation"]
    join()


def test_who_gives_up_waits_for_a_proposal_that_is_under_way(service: FakeService) -> None:
    hold, entries = entered_into(service)
    giving_up = threading.Thread(target=give_up, args=(entries,))

    def proposing(name: str) -> None:
        if name == "ProposeOperation":
            giving_up.start()
            giving_up.join(0.2)
            assert giving_up.is_alive()

    service.after = proposing
    with pytest.raises(LockLostError) as lost, hold:
        giving_up.join(30)
    assert lost.value.loss is Loss.GIVEN_UP
    assert service.state == pb.OPERATION_STATE_FAILED
    join()


async def test_who_gives_up_waits_for_an_async_proposal_that_is_under_way(service: FakeService) -> None:
    entries: set[AsyncEntry] = set()
    channel = SlowChannel(service, (PROPOSE,))
    hold = AsyncHold(lambda: AsyncEntry(Wanted(TERMS, 0.0, ""), Session(SELF, 30.0, boottime), channel, None, entries))
    block = asyncio.create_task(a_block(hold))
    await channel.is_under_way.wait()
    (entry,) = entries
    giving_up = asyncio.create_task(entry.give_up())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not giving_up.done()
    channel.may_go_on.set()
    await asyncio.wait([block, giving_up])
    assert service.state in {pb.OPERATION_STATE_FAILED, pb.OPERATION_STATE_SUCCEEDED}


def test_who_gives_up_because_the_lock_is_lost_does_not_wait_for_itself(service: FakeService) -> None:
    entries: set[Entry] = set()
    clock = PushedClock()
    told: list[Loss] = []

    def on_lost(error: LockLostError) -> None:
        told.append(error.loss)
        give_up(entries)

    hold = Hold(
        lambda: Entry(Wanted(TERMS, 0.0, ""), Session(SELF, 1e6, clock), FakeChannel(service), on_lost, entries)
    )
    with pytest.raises(LockLostError), hold:
        clock.push(30)
    assert told == [Loss.RAN_OUT]
    join()


def test_an_interrupt_in_the_midst_of_the_completion_leaves_no_lock_behind(service: FakeService) -> None:
    def interrupt(name: str) -> None:
        if name == "CompleteOperation":
            raise KeyboardInterrupt

    service.before = interrupt
    with pytest.raises(KeyboardInterrupt), a_hold(service):
        pass
    assert service.names() == ["ProposeOperation", "GetOperation", "ProposeOperation"]
    assert service.lock_for == 1
    join()


async def a_block(hold: AsyncHold) -> None:
    async with hold:
        pass


async def test_who_gives_up_waits_for_an_async_block_that_is_just_ending(service: FakeService) -> None:
    channel = SlowChannel(service)
    entries: set[AsyncEntry] = set()
    hold = AsyncHold(lambda: AsyncEntry(Wanted(TERMS, 0.0, ""), Session(SELF, 30.0, boottime), channel, None, entries))
    ending = asyncio.create_task(a_block(hold))
    await channel.is_under_way.wait()
    (entry,) = entries
    giving_up = asyncio.create_task(entry.give_up())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not giving_up.done()
    channel.may_go_on.set()
    await asyncio.gather(ending, giving_up)
    assert service.names() == ["ProposeOperation", "CompleteOperation"]


async def test_the_completion_goes_on_whoever_is_cancelled_meanwhile_and_however_often(service: FakeService) -> None:
    channel = SlowChannel(service)
    hold = AsyncHold(lambda: AsyncEntry(Wanted(TERMS, 0.0, ""), Session(SELF, 30.0, boottime), channel, None, set()))
    ending = asyncio.create_task(a_block(hold))
    await channel.is_under_way.wait()
    for _ in range(3):
        ending.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await ending
    channel.may_go_on.set()
    await turns_until(lambda: not claims._claims)  # noqa: SLF001
    assert service.names() == ["ProposeOperation", "CompleteOperation"]
    assert service.state == pb.OPERATION_STATE_SUCCEEDED


def test_the_end_of_the_event_loop_in_the_midst_of_the_completion_leaves_no_lock_behind(service: FakeService) -> None:
    async def main() -> None:
        channel = SlowChannel(service)
        hold = AsyncHold(
            lambda: AsyncEntry(Wanted(TERMS, 0.0, ""), Session(SELF, 30.0, boottime), channel, None, set())
        )
        ending = asyncio.create_task(a_block(hold))
        await channel.is_under_way.wait()
        ending.cancel()

    asyncio.run(main())
    assert service.names() == ["ProposeOperation", "GetOperation", "ProposeOperation"]
    assert service.lock_for == 1
