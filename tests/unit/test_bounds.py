"""What keeps memory bounded: gates, budgets, what is kept by weight, and the writes that are given up."""

import asyncio
import contextlib
from datetime import timedelta
from typing import Any, cast

import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from unit_support import FakeClock

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service import weights
from operation_service.admission import FullError, Gate
from operation_service.beliefs import Beliefs
from operation_service.budget import Budget
from operation_service.clock import Deadline
from operation_service.delivery import Context, Delivery, NotReadError
from operation_service.errors import ContentionError, NotFoundError, OverloadedError, StoreUnavailableError
from operation_service.grpc_server import ServedCall
from operation_service.lingering import Lingering
from operation_service.model import Append, Caller, Event, Failure, Phase, Record, Resource, Snapshot
from operation_service.operations import Operations
from operation_service.status import to_status
from operation_service.workers import Workers

FOREVER = 600.0


class Unread:
    """The context of a call whose caller does not read."""

    async def write(self, _message: object) -> None:
        await asyncio.Event().wait()

    abort_with_status = write


def unread() -> Context:
    return cast("Context", Unread())


def a_snapshot(failure: Failure | None = None) -> Snapshot:
    return Snapshot(record=Record("0" * 32, Phase.PROPOSED, Event.LOCKED, "1" * 32, failure=failure))


def a_message(size: int) -> pb.WatchOperationsResponse:
    return pb.WatchOperationsResponse(operation=pb.OperationRecord(name="x" * size))


# --- gates


async def test_a_gate_lets_in_so_many_and_others_once_there_is_room() -> None:
    gate = Gate(2, OverloadedError)
    with gate.place():
        with gate.place():
            with pytest.raises(FullError), gate.place():
                pass
            assert gate.inside == 2
        with gate.place():
            pass
    async with asyncio.timeout(5):
        await gate.emptied()


async def test_who_is_refused_is_told_the_limit_and_when_to_come_again_not_all_at_once() -> None:
    gate, delays = Gate(1, OverloadedError), []
    with gate.place():
        for _ in range(16):
            with pytest.raises(FullError) as caught, gate.place():
                pass
            trailers: dict[str, Any] = dict(caught.value.status.trailing_metadata)
            status = Status.FromString(trailers["grpc-status-details-bin"])
            info, retry = ErrorInfo(), RetryInfo()
            assert status.details[0].Unpack(info)
            assert status.details[1].Unpack(retry)
            assert (info.reason, dict(info.metadata)) == ("OVERLOADED", {"limit": "1"})
            delays.append(retry.retry_delay.ToTimedelta())
    assert min(delays) == timedelta(seconds=0.5)
    assert len(set(delays)) == 16


def test_a_gate_has_room_for_so_many_bytes_and_for_one_request_of_any_size() -> None:
    gate = Gate(10, OverloadedError, max_bytes=100)
    with gate.room(60):
        with pytest.raises(FullError), gate.room(50):
            pass
        with gate.room(40):
            pass
    with gate.room(1_000), pytest.raises(FullError), gate.room(1):
        pass


# --- workers and budgets


async def test_work_waits_for_a_worker_as_long_as_its_deadline_allows_while_nothing_is_done() -> None:
    workers = Workers(1)
    async with workers.one(Deadline(FOREVER)):
        with pytest.raises(StoreUnavailableError):
            async with workers.one(Deadline(0.01)):
                raise AssertionError
    async with workers.one(Deadline(FOREVER)):
        pass


async def test_work_that_waits_for_long_while_other_work_is_done_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operation_service.workers._PATIENCE_SECONDS", 0.05)
    workers, end = Workers(1), asyncio.Event()

    async def work(until: asyncio.Event) -> None:
        async with workers.one(Deadline(FOREVER)):
            await until.wait()

    first_end = asyncio.Event()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(work(first_end))
        await asyncio.sleep(0)
        group.create_task(work(end))
        last = asyncio.create_task(work(end))
        await asyncio.sleep(0)
        first_end.set()
        with pytest.raises(OverloadedError) as caught:
            await last
        end.set()
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= timedelta(seconds=0.5)


async def test_who_waits_for_earlier_calls_for_the_resource_is_not_told_that_etcd_is_not_available() -> None:
    class SlowStore:
        async def read(self, *_: object) -> Snapshot:
            return await asyncio.Event().wait() and Snapshot()

    operations = Operations(cast("Any", SlowStore()), FakeClock())
    command = Append(Resource("p", "n"), Caller("token", "somebody"), "a step")
    async with asyncio.timeout(5):
        earlier = asyncio.create_task(operations.change(command, Deadline(FOREVER)))
        await asyncio.sleep(0)
        with pytest.raises(ContentionError, match="earlier calls for p/n") as caught:
            await operations.change(command, Deadline(0.01))
        assert caught.value.retry_after is not None
        earlier.cancel()
        await asyncio.wait({earlier})


async def test_who_waits_while_no_call_for_the_resource_is_done_is_told_that_etcd_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("operation_service.operations._SILENT_SECONDS", 0.05)
    may_end = asyncio.Event()

    class SlowStore:
        async def read(self, *_: object) -> Snapshot:
            await may_end.wait()
            may_end.clear()
            return Snapshot(is_confirmed=True)

    operations = Operations(cast("Any", SlowStore()), FakeClock())
    command = Append(Resource("p", "n"), Caller("token", "somebody"), "a step")
    async with asyncio.timeout(5):
        earlier = [asyncio.create_task(operations.change(command, Deadline(FOREVER))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailableError, match="earlier calls"):
            await operations.change(command, Deadline(0.1))
        last = asyncio.create_task(operations.change(command, Deadline(0.1)))
        await asyncio.sleep(0)
        may_end.set()
        with pytest.raises(ContentionError):
            await last
        for each in earlier:
            each.cancel()
        await asyncio.wait(earlier)
        with pytest.raises(NotFoundError):
            await earlier[0]


async def test_a_budget_is_shared_out_first_come_first_served() -> None:
    budget, came = Budget(10, "apples"), []

    async def take(name: str, amount: int, until: asyncio.Event) -> None:
        async with budget.share(amount):
            came.append(name)
            await until.wait()

    done = [asyncio.Event() for _ in range(4)]
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(take("six", 6, done[0]))
        group.create_task(take("all and more", 1_000, done[1]))
        group.create_task(take("one", 1, done[2]))
        given_up = group.create_task(take("given up", 1, done[3]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert came == ["six"]
        given_up.cancel()
        for each in done[:3]:
            each.set()
    assert came == ["six", "all and more", "one"]
    async with asyncio.timeout(5), budget.share(10):
        pass


async def test_a_share_that_is_given_up_as_it_is_handed_out_comes_back() -> None:
    budget = Budget(1, "apples")
    async with budget.share(1):
        waiting = asyncio.create_task(contextlib.AsyncExitStack().enter_async_context(budget.share(1)))
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    async with asyncio.timeout(5), budget.share(1):
        pass


async def test_who_waits_for_a_share_for_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operation_service.budget._PATIENCE_SECONDS", 0.01)
    budget = Budget(10, "apples")
    async with asyncio.timeout(5):
        async with budget.share(6):
            with pytest.raises(OverloadedError, match="busy with 10 apples") as caught:
                await contextlib.AsyncExitStack().enter_async_context(budget.share(5))
            async with budget.share(4):
                pass
        async with budget.share(10):
            pass
    assert caught.value.retry_after is not None


async def test_who_wants_next_to_nothing_waits_behind_nobody() -> None:
    budget = Budget(20_000, "apples")
    async with asyncio.timeout(5), budget.share(20_000):
        waiting = asyncio.create_task(contextlib.AsyncExitStack().enter_async_context(budget.share(3)))
        await asyncio.sleep(0)
        async with budget.share(2), budget.share(1), budget.share(0):
            assert not waiting.done()
        waiting.cancel()
        await asyncio.wait({waiting})


async def test_a_budget_that_is_opened_up_lets_nobody_wait() -> None:
    budget = Budget(1, "apples")
    async with asyncio.timeout(5), budget.share(1):
        budget.open_up()
        async with budget.share(1):
            pass


# --- what is believed


def test_beliefs_are_kept_by_weight_and_the_oldest_go_first() -> None:
    beliefs = Beliefs(max_bytes=400_000)
    small = a_snapshot()
    large = a_snapshot(Failure(13, "x" * 60_000))
    for number in range(100):
        beliefs.keep(Resource("p", f"small/{number}"), small)
    assert len(beliefs) == 100
    beliefs.keep(Resource("p", "small/0"), small)
    for number in range(5):
        beliefs.keep(Resource("p", f"large/{number}"), large)
    assert beliefs.get(Resource("p", "small/1")) is None
    assert beliefs.get(Resource("p", "small/0")) is small
    assert beliefs.get(Resource("p", "large/4")) is large
    for number in range(100):
        beliefs.keep(Resource("p", f"large/{number}"), large)
    assert len(beliefs) == 6


def test_the_smallest_details_weigh_what_they_take_in_memory() -> None:
    small = a_snapshot(Failure(13, "", (b"xx",) * 10_000)).record
    assert weights.of_record(small) > 10_000 * (2 + 41)


def test_what_is_forgotten_gives_its_weight_back() -> None:
    beliefs, resource = Beliefs(max_bytes=5_000), Resource("p", "n")
    for _ in range(100):
        beliefs.keep(resource, a_snapshot())
        beliefs.forget(resource)
        beliefs.forget(resource)
    assert beliefs.get(resource) is None
    beliefs.keep(resource, a_snapshot())
    assert beliefs.get(resource) is not None


# --- writes


async def test_a_write_that_is_not_read_in_time_is_given_up() -> None:
    delivery = Delivery()
    with pytest.raises(NotReadError):
        await delivery.write(unread(), a_message(10), 0.01)
    assert delivery.bytes_under_way == 0


async def test_beyond_so_many_bytes_whoever_has_been_waited_for_longest_is_given_up() -> None:
    delivery = Delivery(max_bytes=2_500)
    writes = [asyncio.create_task(delivery.write(unread(), a_message(1_000), FOREVER)) for _ in range(4)]
    done, waiting = await asyncio.wait(writes, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    while len(done) < 2:
        more, waiting = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        done |= more
    assert done == set(writes[:2])
    assert all(isinstance(each.exception(), NotReadError) for each in done)
    assert 2_000 <= delivery.bytes_under_way <= 2_500
    for each in waiting:
        each.cancel()
    await asyncio.wait(waiting)
    assert delivery.bytes_under_way == 0


async def test_a_message_larger_than_all_the_room_is_given_up_alone() -> None:
    delivery = Delivery(max_bytes=100)
    with pytest.raises(NotReadError):
        await delivery.write(unread(), a_message(1_000), FOREVER)


async def until_its_time_is_over(delivery: Delivery) -> None:
    """Wait until the very turn of the loop in which the time of the first write is over, and it does not know yet."""
    timeout = next(iter(delivery._under_way))  # noqa: SLF001
    while not timeout.expired():  # noqa: ASYNC110, the turn is what counts
        await asyncio.sleep(0)


async def test_a_write_whose_time_is_just_over_is_no_hindrance_to_the_one_that_needs_its_room() -> None:
    delivery = Delivery(max_bytes=1_500)
    first = asyncio.create_task(delivery.write(unread(), a_message(1_000), 0.05))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await until_its_time_is_over(delivery)
        with pytest.raises(NotReadError):
            await delivery.write(unread(), a_message(1_000), 0.05)
        with pytest.raises(NotReadError):
            await first
    assert delivery.bytes_under_way == 0


async def test_a_write_whose_time_is_just_over_is_no_hindrance_to_a_stop() -> None:
    delivery = Delivery()
    write = asyncio.create_task(delivery.write(unread(), a_message(10), 0.05))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await until_its_time_is_over(delivery)
        delivery.stop()
        with pytest.raises(NotReadError):
            await write


async def test_a_stop_waits_for_no_write_much_longer() -> None:
    delivery = Delivery()
    write = asyncio.create_task(delivery.write(unread(), a_message(10), FOREVER))
    await asyncio.sleep(0)
    delivery.stop()
    async with asyncio.timeout(10):
        with pytest.raises(NotReadError):
            await write
        with pytest.raises(NotReadError):
            await delivery.write(unread(), a_message(10), FOREVER)


# --- calls that are over, but not read


class Call:
    """A call that remembers whether it was cut off."""

    def __init__(self) -> None:
        self.is_cut_off = False

    def cut_off(self) -> None:
        self.is_cut_off = True


def test_of_the_calls_that_nobody_reads_the_oldest_are_cut_off() -> None:
    lingering, calls = Lingering(max_calls=2), [Call() for _ in range(4)]
    lingering.add(calls[0], 0)
    lingering.add(calls[1], 0)
    lingering.discard(calls[0])
    lingering.discard(calls[0])
    lingering.add(calls[2], 0)
    assert not any(each.is_cut_off for each in calls)
    lingering.add(calls[3], 0)
    assert [each.is_cut_off for each in calls] == [False, True, False, False]
    assert len(lingering) == 2


def test_of_the_calls_that_nobody_reads_as_many_are_cut_off_as_hold_too_much() -> None:
    lingering, calls = Lingering(max_bytes=100), [Call() for _ in range(3)]
    lingering.add(calls[0], 30)
    lingering.add(calls[1], 40)
    lingering.add(calls[1], 20)
    assert not any(each.is_cut_off for each in calls)
    lingering.add(calls[2], 100)
    assert [each.is_cut_off for each in calls] == [True, True, False]
    lingering.discard(calls[2])
    lingering.add(calls[0], 100)
    assert len(lingering) == 1


async def test_refusals_that_nobody_reads_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operation_service.delivery.Lingering", lambda: Lingering(max_calls=2))
    delivery, status = Delivery(), to_status(OverloadedError(1, timedelta(seconds=1)))

    async def refuse() -> None:
        call = ServedCall()
        call.listener = call.handler = cast("asyncio.Task[None]", asyncio.current_task())
        monkeypatch.setattr("operation_service.delivery.current_call", lambda: call)
        await delivery.refuse(unread(), status)

    refusals = []
    for _ in range(5):
        refusals.append(asyncio.create_task(refuse()))
        await asyncio.sleep(0)
    done, waiting = await asyncio.wait(refusals, timeout=0.1)
    assert done == set(refusals[:3])
    for each in waiting:
        each.cancel()
    await asyncio.wait(waiting)
