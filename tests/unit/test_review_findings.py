"""Findings of the review of group commit and shared leases: each test here fails, and says what is wrong."""

import asyncio
import contextlib
import gc
import sys
import weakref
from typing import Any, cast

import grpc
import msgspec
import pytest
from test_shared_leases import SOON, Etcd
from unit_support import RESOURCE, FakeClock, a_lock, locked, propose

from operation_service import weights
from operation_service.clock import Deadline
from operation_service.codec import encode
from operation_service.delivery import CallerGoneError, Context, Delivery
from operation_service.errors import ContentionError, StoreUnavailableError
from operation_service.etcd_store import Attempt, Committed, EtcdStore
from operation_service.keys import Keys
from operation_service.leases import Leases
from operation_service.lock_times import LockTimes
from operation_service.model import Details, Log, Logs, Snapshot, View
from operation_service.operations import Operations
from operation_service.policy import Moment, decide
from operation_service.shared_leases import SharedLeases
from operation_service.together import Together
from operation_service.turns import Turns


async def test_who_comes_just_when_a_turn_ends_waits_no_longer_than_its_deadline() -> None:
    """asyncio.Lock.locked() is False between a release and the next step of the one who is next."""
    turns, may_end = Turns(), asyncio.Event()

    async def turn(until: asyncio.Event) -> None:
        async with turns.one(RESOURCE, Deadline(600)):
            await until.wait()

    first_may_end = asyncio.Event()
    first = asyncio.create_task(turn(first_may_end))
    await asyncio.sleep(0)
    second = asyncio.create_task(turn(may_end))
    await asyncio.sleep(0)
    first_may_end.set()

    async def late() -> None:
        async with turns.one(RESOURCE, Deadline(0.05)):
            pass

    # It runs after the first has released, and before the second runs.
    third = asyncio.create_task(late())
    done, _ = await asyncio.wait({third}, timeout=1.0)
    may_end.set()
    await asyncio.wait({first, second, third})
    assert done, "it outlived its deadline of 0.05 s by a second, and would have by ten minutes"
    with pytest.raises((ContentionError, StoreUnavailableError)):
        third.result()


async def test_what_nobody_waits_for_any_more_is_not_kept_while_etcd_is_slow() -> None:
    """The gates bound calls and their bytes, but the queue keeps what their callers have left behind."""
    may_answer = asyncio.Event()

    async def carry_out(requests: Any, _: Deadline) -> Any:
        await may_answer.wait()
        return list(requests)

    group: Together[int, int] = Together(carry_out, max_requests=100, max_size=1 << 20, is_repeatable=False)
    first = asyncio.create_task(group.do(0, 1, SOON))
    await asyncio.sleep(0.01)
    settled: list[object] = []
    for number in range(1_000):
        gone = asyncio.create_task(group.do(number, 1, SOON, settled.append))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait({gone})
    kept = len(group._queue)
    may_answer.set()
    await first
    assert kept <= 1
    assert len(settled) == 1_000


async def test_who_comes_after_its_deadline_is_settled_too() -> None:
    """Else its places on leases are never given back, and these leases never ended."""
    group: Together[int, int] = Together(cast("Any", None), max_requests=1, max_size=1, is_repeatable=False)
    settled: list[object] = []
    with pytest.raises(StoreUnavailableError):
        await group.do(1, 1, Deadline(-1), settled.append)
    assert settled == [None]


async def test_a_settlement_that_fails_leaves_nobody_else_waiting() -> None:
    async def carry_out(requests: Any, _: Deadline) -> Any:
        return list(requests)

    def broken(_: object) -> None:
        raise ArithmeticError

    group: Together[int, int] = Together(carry_out, max_requests=9, max_size=9, is_repeatable=False)
    calls = [asyncio.create_task(group.do(1, 1, Deadline(5), broken)), asyncio.create_task(group.do(2, 1, Deadline(5)))]
    done, _ = await asyncio.wait({calls[1]}, timeout=0.5)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert done


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def etcd(clock: FakeClock) -> Etcd:
    return Etcd(clock)


async def test_a_lock_whose_change_ended_with_an_unforeseen_error_keeps_its_lease(
    clock: FakeClock, etcd: Etcd
) -> None:
    """The change was made, then its answer could not be understood: whatever is no known "not made" is unknown.

    grpc.aio hands out None for an answer that it cannot parse (grpc._common._transform logs and swallows).
    """

    async def made_and_answered_with_what_is_none(*_: object, **__: object) -> None:
        return None

    cast("Any", etcd).write = made_and_answered_with_what_is_none
    leases = Leases(cast("Any", etcd), clock, 600)
    store = EtcdStore(cast("Any", etcd), Keys("/p/"), leases, LockTimes(clock), clock)
    command = propose(lock_for_seconds=300)
    change = cast("Any", decide(Snapshot(), command, Moment(clock.now(), "id")))
    with pytest.raises(Exception):  # noqa: B017, PT011
        await store.commit(Attempt(command, Snapshot(), change), SOON)
    clock.push(monotonic=20)
    other = await leases.for_lock(30, SOON)
    for _ in range(5):
        await asyncio.sleep(0)
    revoked = list(etcd.revoked)
    leases.leave(other.lease_id)
    await leases.close()
    assert revoked == [], "the lease under a lock that may be held was revoked"


async def test_a_lease_that_is_emptied_again_and_again_is_noted_once(clock: FakeClock, etcd: Etcd) -> None:
    """Of records' leases every note is kept for 16.8 hours (a tenth of seven days)."""
    leases = SharedLeases(cast("Any", etcd), clock, 60_480.0)
    for _ in range(1_000):
        leases.leave((await leases.take(604_800, SOON)).lease_id)
    noted = len(leases._emptied)
    await leases.close()
    assert noted <= 2


async def test_leases_that_were_ended_early_are_not_remembered_until_they_would_have_ended(
    clock: FakeClock, etcd: Etcd
) -> None:
    leases = SharedLeases(cast("Any", etcd), clock, 1.0, is_exact_when_alone=True)
    for _ in range(3_000):
        leases.leave((await leases.take(86_400, SOON)).lease_id)
        clock.push(monotonic=3)
    remembered, known = len(leases._ends), len(leases._by_id)
    await leases.close()
    assert known <= 2
    assert remembered <= 1_010


def test_a_whole_ttl_can_be_read_by_a_replica_of_the_version_before() -> None:
    """Rolling upgrade: it reads ttl_seconds as an int."""
    class Before(msgspec.Struct):
        ttl_seconds: int

    lock = a_lock()
    assert msgspec.json.decode(encode(lock), type=Before).ttl_seconds
    half = msgspec.structs.replace(lock, ttl_seconds=30.5)
    assert msgspec.json.decode(encode(half), type=Before).ttl_seconds


async def test_a_write_larger_than_all_the_room_to_a_caller_that_has_gone_leaves_no_cancellation_behind() -> None:
    """`Bound.end` of the running task: what is cancelled is whatever it waits for next, after the bound."""

    class Gone:
        async def write(self, _message: object) -> None:
            raise grpc.aio.InternalError("gone")

    class Message:
        def SerializeToString(self) -> bytes:
            return b"x" * 1_000

    async def call() -> str:
        with pytest.raises(CallerGoneError):
            await Delivery(max_bytes=100).write(cast("Context", Gone()), cast("Any", Message()), 600)
        await asyncio.sleep(0)
        return "ok"

    calling = asyncio.create_task(call())
    await asyncio.wait({calling})
    assert not calling.cancelled()


async def test_a_renewal_at_a_replica_that_knew_nothing_is_made_though_etcd_stumbled() -> None:
    """It was tried on "nothing there", which cannot have been made: a record was there all the time.

    Before the optimistic guess such a renewal was read first, tried, lost its answer, read back, and made.
    """
    there = msgspec.structs.replace(locked(), is_confirmed=True)

    class Store:
        attempts = 0

        async def read(self, *_: object) -> Snapshot:
            return there

        async def commit(self, attempt: Attempt, _: Deadline) -> Committed | Snapshot:
            self.attempts += 1
            if self.attempts == 1:
                raise StoreUnavailableError("it did not answer in time", is_outcome_unknown=True)
            if attempt.snapshot.record_revision != there.record_revision:
                return there
            return Committed(cast("View", "made"), there)

    view = await Operations(cast("Any", Store()), FakeClock()).change(propose(), SOON)
    assert cast("Any", view) == "made"


async def test_a_request_that_failed_is_freed_without_the_garbage_collector() -> None:
    """ADR 16 lets it look seldom, and says that there are no cycles. The error holds `do`'s frame, that its future."""

    class Request:
        pass

    async def carry_out(requests: Any, _: Deadline) -> Any:
        return [StoreUnavailableError("it cannot be reached") for _ in requests]

    group: Together[Request, int] = Together(carry_out, max_requests=9, max_size=9, is_repeatable=False)

    async def call() -> weakref.ref[Request]:
        request = Request()
        with contextlib.suppress(StoreUnavailableError):
            await group.do(request, 1, SOON)
        return weakref.ref(request)

    gc.collect()
    gc.disable()
    try:
        request = await call()
        await asyncio.sleep(0.01)
        assert request() is None
    finally:
        gc.enable()


async def test_what_a_belief_weighs_is_no_less_than_half_of_what_it_takes() -> None:
    """`Logs` keeps each log as text and as bytes; the 32 MiB of the beliefs, and of the hub's views, count neither."""
    logs = Logs(Log(FakeClock().now(), chr(0x1F600 + number % 50) * 1_024) for number in range(100))
    written = len(logs.written(lambda log: log.message.encode()))
    takes = written + sum(sys.getsizeof(log.message) for log in logs)
    snapshot = Snapshot(details=Details(None, logs))
    assert weights.of_snapshot(snapshot) * 2 >= takes
