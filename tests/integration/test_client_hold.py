"""A hold, as asyncio and threads have it, against a real service: waited for, taken, kept and given back."""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable

import pytest
from support import NAME, PROJECT, Peer, event_name

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.client import (
    AsyncClient,
    Client,
    HeldHereError,
    LockedError,
    LockLostError,
    Loss,
)


@pytest.fixture
async def client(address: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(address, peer_token=f"peer-{uuid.uuid4().hex}") as client:
        yield client


async def test_a_hold_locks_the_resource_and_its_end_completes_the_operation(client: AsyncClient, peer: Peer) -> None:
    async with client.hold(PROJECT, NAME, lock_for=60, disable_cancel=True, log_message="begin") as operation:
        await operation.log("a step")
        record = await peer.get()
        assert record.state == pb.OPERATION_STATE_LOCKED
        assert record.fencing_token == operation.fencing_token
        assert record.operation.is_disabled_cancel
        assert record.operation.proposing_peer_token == client.peer_token
        assert [log.message for log in record.operation.logs] == ["begin", "a step"]
        assert 0 < operation.remaining <= 60
        assert not operation.lost.is_set()
    assert await peer.state() == "SUCCEEDED"


async def test_a_block_that_fails_completes_the_operation_with_the_exceptions_text(
    client: AsyncClient, peer: Peer
) -> None:
    with pytest.raises(ValueError, match="the disk is full"):
        async with client.hold(PROJECT, NAME):
            raise ValueError("the disk is full")
    record = await peer.get()
    assert record.state == pb.OPERATION_STATE_FAILED
    assert record.error.message == "ValueError: the disk is full"


async def test_a_block_that_is_cancelled_gives_the_lock_back(client: AsyncClient, peer: Peer) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5), client.hold(PROJECT, NAME):
            await asyncio.Event().wait()
    assert await peer.state() == "FAILED"


async def test_a_hold_renews_in_the_background_with_the_same_fencing_token(client: AsyncClient, peer: Peer) -> None:
    watch = await peer.watching()
    async with client.hold(PROJECT, NAME, lock_for=2) as operation:
        told = [await watch.read() for _ in range(4)]
        # After three renewals at two thirds of a second each, the lock's first time is over.
        assert [event_name(each.event) for each in told] == ["LOCKED", "RENEWED", "RENEWED", "RENEWED"]
        assert {each.operation.fencing_token for each in told} == {operation.fencing_token}
        assert not operation.lost.is_set()
    watch.cancel()


async def test_a_renewal_may_ask_for_something_else(client: AsyncClient, peer: Peer) -> None:
    async with client.hold(PROJECT, NAME, lock_for=60) as operation:
        await operation.renew(lock_for=600, disable_cancel=True)
        assert 60 < operation.remaining <= 600
        assert (await peer.get()).operation.is_disabled_cancel
        await operation.renew(lock_for=60)
        assert operation.remaining <= 60
        assert (await peer.get()).operation.is_disabled_cancel


async def test_who_waits_gets_the_lock_as_soon_as_it_is_given_back(client: AsyncClient, peer: Peer) -> None:
    await peer.propose(lock_for_seconds=600)
    waiting = asyncio.create_task(_held(client, wait=30))
    watch = await peer.watching(start_revision=0)
    await asyncio.sleep(0.3)  # it has been refused by now, or is refused in a moment: the test holds either way
    assert not waiting.done()
    await peer.complete()
    # Polling would have waited for the end of the lock, in ten minutes.
    assert await waiting > 0
    events = [event_name((await watch.read()).event) for _ in range(4)]
    assert events == ["LOCKED", "SUCCEEDED", "LOCKED", "SUCCEEDED"]
    watch.cancel()


async def test_who_waits_for_a_lock_that_runs_out_takes_over_the_request_and_the_log(
    client: AsyncClient, peer: Peer
) -> None:
    await peer.create(lock_for_seconds=2, is_disabled_cancel=True, log_message="begun by another")
    async with client.hold(PROJECT, NAME, wait=30) as operation:
        assert operation.operation_request is not None
        assert operation.operation_request.type_url.endswith("ShutdownVirtualMachineRequest")
        assert [log.message for log in operation.logs] == ["begun by another"]


async def test_the_wait_has_an_end_and_tells_who_holds_the_resource(client: AsyncClient, peer: Peer) -> None:
    await peer.propose(lock_for_seconds=600, log_message="for a while")
    with pytest.raises(LockedError) as refused:
        await _held(client, wait=0.5)
    error = refused.value
    assert error.holder
    assert error.last_log == "for a while"
    assert error.locked_since is not None
    assert error.locked_until is not None
    assert (error.locked_until - error.locked_since).total_seconds() >= 600
    assert error.retry_after is not None
    assert error.retry_after > 500
    assert await peer.state() == "LOCKED"


async def test_one_process_holds_a_resource_once(client: AsyncClient) -> None:
    async with client.hold(PROJECT, NAME) as operation:
        with pytest.raises(HeldHereError):
            await _held(client, wait=0)
        with pytest.raises(HeldHereError):
            await _held(client, wait=0.2)
        waiting = asyncio.create_task(_held(client, wait=30))
        await asyncio.sleep(0)
        first = operation.fencing_token
    assert await waiting > first


async def test_a_proposal_beside_a_hold_of_the_same_process_needs_its_fencing_token(client: AsyncClient) -> None:
    async with client.hold(PROJECT, NAME, lock_for=60) as operation:
        with pytest.raises(HeldHereError):
            await client.propose(PROJECT, NAME, lock_for=1)
        assert operation.remaining > 1
        await client.propose(PROJECT, NAME, lock_for=60, fencing_token=operation.fencing_token)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: Client("http://127.0.0.1:50051"), ValueError),
        (lambda: AsyncClient(""), ValueError),
        (lambda: Client(None), TypeError),  # type: ignore[arg-type]
        (lambda: Client(peer_token=""), ValueError),
        (lambda: Client(peer_token=4), TypeError),  # type: ignore[arg-type]
        (lambda: Client(timeout=float("nan")), ValueError),
        (lambda: Client().hold(PROJECT, NAME, wait=float("nan")), ValueError),
        (lambda: Client().hold(PROJECT, NAME, wait=-1), ValueError),
        (lambda: Client().hold(PROJECT, NAME, on_lost="x"), TypeError),  # type: ignore[arg-type]
    ],
)
async def test_what_cannot_be_meant_is_refused_at_once(make: Callable[[], object], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        make()


async def test_nobody_would_await_what_is_called_when_the_lock_is_lost(client: AsyncClient) -> None:
    async def on_lost(_: LockLostError) -> None:
        raise AssertionError("nobody awaits it")

    with pytest.raises(TypeError, match="on_lost must be a plain function"):
        client.hold(PROJECT, NAME, on_lost=on_lost)  # type: ignore[arg-type]


async def test_a_client_that_is_closed_gives_up_what_it_holds(address: str, peer: Peer) -> None:
    client = AsyncClient(address)
    with pytest.raises(LockLostError) as lost:
        async with client.hold(PROJECT, NAME, lock_for=600):
            await client.close()
    assert lost.value.loss is Loss.GIVEN_UP
    assert await peer.state() == "FAILED"


async def test_a_blocking_hold_does_the_same(address: str, peer: Peer) -> None:
    with Client(address, peer_token="blocking") as client:

        def work() -> int:
            with client.hold(PROJECT, NAME, lock_for=2, log_message="begin") as operation:
                operation.log("a step")
                assert not operation.lost.wait(3)  # longer than the lock's first time
                operation.check()
                operation.renew(lock_for=60)
                assert 2 < operation.remaining <= 60
                return operation.fencing_token

        token = await asyncio.to_thread(work)
    record = await peer.get()
    assert record.fencing_token == token
    assert record.state == pb.OPERATION_STATE_SUCCEEDED
    assert [log.message for log in record.operation.logs] == ["begin", "a step"]
    assert not [thread.name for thread in threading.enumerate() if NAME in thread.name]


async def test_a_blocking_hold_waits_for_its_turn(address: str, peer: Peer) -> None:
    await peer.propose(lock_for_seconds=600)
    with Client(address, peer_token="blocking") as client:

        def work() -> int:
            with client.hold(PROJECT, NAME, wait=30) as operation:
                return operation.fencing_token

        working = asyncio.create_task(asyncio.to_thread(work))
        await asyncio.sleep(0.3)
        assert not working.done()
        await peer.complete()
        assert await working > 0
    with Client(address, peer_token="impatient") as client:
        await peer.propose(lock_for_seconds=600)

        def refused() -> None:
            with pytest.raises(LockedError), client.hold(PROJECT, NAME, wait=0.3):
                raise AssertionError("it is locked")

        await asyncio.to_thread(refused)


async def _held(client: AsyncClient, wait: float) -> int:
    async with client.hold(PROJECT, NAME, wait=wait) as operation:
        return operation.fencing_token
