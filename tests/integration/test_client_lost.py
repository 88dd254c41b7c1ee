"""How a hold ends against its will, or nearly: cancelled, broken, out of reach, or with an answer that was lost."""

import asyncio
import contextlib
import threading
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from etcd_hands import EtcdHands
from links import Mode, linked
from support import NAME, PROJECT, Peer, TestClock, connected
from waiting import reaches, soon

from operation_service.client import (
    AsyncClient,
    Client,
    LockLostError,
    Loss,
    NotFoundError,
    OperationCancelledError,
    UnavailableError,
)
from operation_service.server import running
from operation_service.settings import Settings


@pytest.fixture
async def client(address: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(address, peer_token=f"peer-{uuid.uuid4().hex}") as client:
        yield client


async def test_a_cancelled_hold_is_lost_at_once_and_everything_says_so(client: AsyncClient, peer: Peer) -> None:
    told: list[LockLostError] = []
    with pytest.raises(LockLostError) as lost:
        async with client.hold(PROJECT, NAME, lock_for=600, on_lost=told.append) as operation:
            token = operation.fencing_token
            await peer.named(client.peer_token).cancel()
            async with asyncio.timeout(20):
                assert await operation.lost.wait()
            assert operation.remaining == 0
            for use in (operation.check, lambda: operation.fencing_token):
                with pytest.raises(LockLostError):
                    use()
            with pytest.raises(LockLostError):
                await operation.log("too late")
            with pytest.raises(LockLostError):
                await operation.renew()
    assert lost.value.loss is Loss.CANCELLED
    assert lost.value.fencing_token == token
    assert [each.loss for each in told] == [Loss.CANCELLED]
    assert await peer.state() == "CANCELLED"
    # Until its time would have been over the peer may not come back (rule 9).
    with pytest.raises(OperationCancelledError):
        await client.hold(PROJECT, NAME, wait=0.2).__aenter__()


async def test_a_lock_that_somebody_broke_is_lost_at_once_and_never_taken_anew(
    client: AsyncClient, peer: Peer, hands: EtcdHands
) -> None:
    with pytest.raises(LockLostError) as lost:
        async with client.hold(PROJECT, NAME, lock_for=600) as operation:
            await hands.delete(f"locks/{PROJECT}/{NAME}")
            async with asyncio.timeout(20):
                await operation.lost.wait()
    assert lost.value.loss is Loss.EXPIRED
    assert await peer.state() == "EXPIRED"


async def test_what_ends_the_block_comes_out_of_it_and_the_loss_is_a_note(
    client: AsyncClient, hands: EtcdHands
) -> None:
    with pytest.raises(ValueError, match="mine") as failed:
        async with client.hold(PROJECT, NAME, lock_for=600) as operation:
            await hands.delete(f"locks/{PROJECT}/{NAME}")
            await operation.lost.wait()
            raise ValueError("mine")
    assert "is lost (expired)" in failed.value.__notes__[0]


@pytest.mark.parametrize("is_taken_over", [True, False], ids=["taken over", "nobody came"])
async def test_without_a_watch_the_next_renewal_finds_that_the_lock_is_lost_and_is_no_new_one(
    is_taken_over: bool, etcd: str, settings: Settings, clock: TestClock, hands: EtcdHands
) -> None:
    async with (
        running(replace(settings, max_watches=1), [etcd], clock) as service,
        connected(service.address) as peer,
        AsyncClient(service.address) as client,
    ):
        # The only one that there may be.
        watch = await peer.watching()
        with pytest.raises(LockLostError) as lost:
            async with client.hold(PROJECT, NAME, lock_for=6) as operation:
                await hands.delete(f"locks/{PROJECT}/{NAME}")
                if is_taken_over:
                    await peer.propose()
                async with asyncio.timeout(20):
                    await operation.lost.wait()
        assert lost.value.loss is (Loss.TAKEN_OVER if is_taken_over else Loss.EXPIRED)
        assert await peer.state() == ("LOCKED" if is_taken_over else "EXPIRED")
        watch.cancel()


async def test_a_service_out_of_reach_loses_the_lock_by_the_clients_own_clock(address: str) -> None:
    async with linked(f"http://{address}") as link:
        told: list[Loss] = []
        async with AsyncClient(f"127.0.0.1:{link.port}", timeout=2) as client:
            with pytest.raises(LockLostError) as lost:
                async with client.hold(
                    PROJECT, NAME, lock_for=3, on_lost=lambda error: told.append(error.loss)
                ) as operation:
                    link.become(Mode.HOLD)
                    async with asyncio.timeout(20):
                        await operation.lost.wait()
            assert lost.value.loss is Loss.RAN_OUT
            assert isinstance(lost.value.__cause__, UnavailableError)
            assert told == [Loss.RAN_OUT]


async def test_a_log_line_that_had_no_connection_to_be_sent_on_is_sent_again(address: str, peer: Peer) -> None:
    async with linked(f"http://{address}") as link, AsyncClient(f"127.0.0.1:{link.port}") as client:
        async with client.hold(PROJECT, NAME, lock_for=60) as operation:
            await link.close()
            for _ in range(2):
                # The first one may find the connection just breaking, which it cannot know to be harmless.
                with contextlib.suppress(UnavailableError):
                    logging = asyncio.create_task(operation.log("a step"))
                    await asyncio.wait([logging], timeout=1)
                    if not logging.done():
                        break
            assert not logging.done()
            await link.open()
            await logging
        assert [log.message for log in (await peer.get()).operation.logs] == ["a step"]


async def test_nothing_was_carried_out_by_a_call_that_had_no_connection() -> None:
    async with AsyncClient("127.0.0.1:1", timeout=1) as client:
        with pytest.raises(UnavailableError) as refused:
            await client.append(PROJECT, NAME, "a step")
    assert not refused.value.may_have_been_carried_out


async def test_a_service_that_was_away_for_a_moment_costs_nothing(address: str, peer: Peer) -> None:
    async with linked(f"http://{address}") as link, AsyncClient(f"127.0.0.1:{link.port}") as client:
        async with client.hold(PROJECT, NAME, lock_for=9) as operation:
            first = await peer.get()
            await link.close()
            await asyncio.sleep(1)
            await link.open()

            async def renewed() -> bool:
                return (
                    await peer.get()
                ).operation.locked_until.ToDatetime() > first.operation.locked_until.ToDatetime()

            assert await soon(renewed)
            await operation.log("still here")
        assert await peer.state() == "SUCCEEDED"


async def test_a_completion_whose_answer_was_lost_is_recognised(address: str, peer: Peer) -> None:
    async with linked(f"http://{address}") as link, AsyncClient(f"127.0.0.1:{link.port}", timeout=30) as client:
        hold = client.hold(PROJECT, NAME, lock_for=60)
        await hold.__aenter__()
        link.become(Mode.SWALLOW)
        leaving = asyncio.create_task(hold.__aexit__(None, None, None))
        assert await reaches(peer, "SUCCEEDED")
        link.become(Mode.PASS)
        link.cut()
        # A repeat is refused, as the fencing token's lock is gone; it was this very completion that ended it.
        await leaving


async def test_a_proposal_whose_answer_never_comes_leaves_no_lock_behind(address: str, peer: Peer) -> None:
    async with linked(f"http://{address}") as link:
        async with AsyncClient(f"127.0.0.1:{link.port}", timeout=30) as client:
            with contextlib.suppress(NotFoundError):
                await client.get(PROJECT, NAME)
            link.become(Mode.SWALLOW)
            entering = asyncio.create_task(client.hold(PROJECT, NAME, lock_for=600).__aenter__())
            assert await reaches(peer, "LOCKED")
            link.become(Mode.PASS)
            link.cut()
            entering.cancel()
            with pytest.raises(asyncio.CancelledError):
                await entering
        # Not completed, as it never began, but not locked for ten minutes either.
        assert await reaches(peer, "EXPIRED")


async def test_a_blocking_hold_is_lost_at_once_too(address: str, peer: Peer) -> None:
    told: list[Loss] = []
    with Client(address, peer_token="blocking") as client:

        def work(held: threading.Event) -> None:
            with client.hold(PROJECT, NAME, lock_for=600, on_lost=lambda error: told.append(error.loss)) as operation:
                held.set()
                assert operation.lost.wait(20)
                operation.log("too late")

        held = threading.Event()
        working = asyncio.create_task(asyncio.to_thread(work, held))
        assert await asyncio.to_thread(held.wait, 20)
        await peer.named("blocking").cancel()
        with pytest.raises(LockLostError) as lost:
            await working
    assert lost.value.loss is Loss.CANCELLED
    assert told == [Loss.CANCELLED]
