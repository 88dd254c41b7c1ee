"""Writes to callers that do not read: given up, and bounded after that."""

import asyncio
from datetime import timedelta
from typing import Any, cast

import grpc
import pytest
from waiting import soon

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.delivery import CallerGoneError, Context, Delivery, NotReadError
from operation_service.errors import OverloadedError
from operation_service.grpc_server import ServedCall, _current
from operation_service.lingering import Lingering
from operation_service.status import to_status

FOREVER = 600.0


class Unread:
    """The context of a call whose caller does not read."""

    async def write(self, _message: object) -> None:
        await asyncio.Event().wait()

    abort_with_status = write


def unread() -> Context:
    return cast("Context", Unread())


def a_message(size: int) -> pb.WatchOperationsResponse:
    return pb.WatchOperationsResponse(operation=pb.OperationRecord(name="x" * size))


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


async def test_a_write_larger_than_all_the_room_to_a_caller_that_has_gone_leaves_no_cancellation_behind() -> None:
    """`Bound.end` of the running task: what is cancelled is whatever it waits for next, after the bound."""

    class Gone:
        async def write(self, _message: object) -> None:
            raise grpc.aio.InternalError("gone")

    class Message:
        def SerializeToString(self) -> bytes:  # noqa: N802, protobuf's name
            return b"x" * 1_000

    async def call() -> str:
        with pytest.raises(CallerGoneError):
            await Delivery(max_bytes=100).write(cast("Context", Gone()), cast("Any", Message()), 600)
        await asyncio.sleep(0)
        return "ok"

    calling = asyncio.create_task(call())
    await asyncio.wait({calling})
    assert not calling.cancelled()


async def until_its_time_is_over(delivery: Delivery) -> None:
    """Wait until the very turn of the loop in which the time of the first write is over, and it does not know yet."""
    bound: Any = next(iter(delivery._under_way))  # noqa: SLF001
    while not bound.is_ended:  # noqa: ASYNC110, the turn is what counts
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


class Served:
    """A call that gRPC writes the answer of, for as long as the test wants."""

    def __init__(self) -> None:
        self.call = ServedCall()
        self.is_written = asyncio.Event()
        # No task: one that is left behind would be a warning in some later test.
        self.is_over_for_grpc: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_over = 0

    def over(self) -> None:
        self.is_over += 1

    async def has_given_up(self) -> bool:
        return self.is_over > 0

    async def serve(self, delivery: Delivery, size: int, patience: float) -> None:
        self.call.listener = cast("Any", self.is_over_for_grpc)
        self.call.handler = cast("Any", asyncio.current_task())
        _current.set(self.call)
        assert delivery.hand_over(a_message(size), patience, self.over) == a_message(size).SerializeToString()
        await self.is_written.wait()

    async def begin(self, delivery: Delivery, size: int, patience: float = FOREVER) -> "asyncio.Task[None]":
        serving = asyncio.create_task(self.serve(delivery, size, patience))
        await asyncio.sleep(0)
        return serving


class TestAnAnswerThatIsHandedOver:
    async def test_counts_until_it_is_on_its_way(self) -> None:
        delivery, served = Delivery(), Served()
        serving = await served.begin(delivery, 1_000)
        assert (delivery.bytes_under_way >= 1_000, served.is_over) == (True, 0)
        served.is_written.set()
        await serving
        await asyncio.sleep(0)
        assert (delivery.bytes_under_way, served.is_over) == (0, 1)

    async def test_that_is_not_read_in_time_has_no_place_any_more_and_lingers_until_grpc_is_done_with_it(self) -> None:
        delivery, served = Delivery(), Served()
        serving = await served.begin(delivery, 1_000, 0.05)
        assert await soon(served.has_given_up)
        assert (delivery.bytes_under_way, len(delivery._lingering)) == (0, 1)  # noqa: SLF001
        served.is_written.set()
        served.is_over_for_grpc.set_result(None)
        await serving
        await asyncio.sleep(0.01)
        assert (served.is_over, len(delivery._lingering)) == (1, 0)  # noqa: SLF001

    async def test_makes_room_by_giving_up_whoever_has_been_waited_for_longest(self) -> None:
        delivery, all_served = Delivery(max_bytes=2_500), [Served() for _ in range(4)]
        serving = [await served.begin(delivery, 1_000) for served in all_served]
        await asyncio.sleep(0)
        assert [served.is_over for served in all_served] == [1, 1, 0, 0]
        assert 2_000 <= delivery.bytes_under_way <= 2_500
        for served in all_served:
            served.is_written.set()
        await asyncio.wait(serving)

    async def test_whose_call_is_cancelled_counts_no_more(self) -> None:
        delivery, served = Delivery(), Served()
        serving = await served.begin(delivery, 1_000)
        serving.cancel()
        await asyncio.wait({serving})
        await asyncio.sleep(0)
        assert (delivery.bytes_under_way, served.is_over) == (0, 1)

    async def test_is_not_waited_for_much_longer_once_the_service_stops(self) -> None:
        delivery, before, after = Delivery(), Served(), Served()
        serving = [await before.begin(delivery, 10)]
        delivery.stop()
        serving.append(await after.begin(delivery, 10))
        assert await soon(before.has_given_up)
        assert await soon(after.has_given_up)
        before.is_written.set()
        after.is_written.set()
        await asyncio.wait(serving)


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
