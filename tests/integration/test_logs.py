"""Rule 10: logs."""

from datetime import timedelta

import grpc
from support import Peer, TestClock, messages, refusal_of
from waiting import soon


async def test_a_log_is_stamped_with_the_services_time(peer: Peer, clock: TestClock) -> None:
    clock.push(days=30)
    operation = await peer.propose(log_message="in the future")
    assert abs(operation.logs[0].ts.ToDatetime() - clock.now().replace(tzinfo=None)) < timedelta(minutes=1)


async def test_every_call_that_changes_something_adds_its_log(peer: Peer) -> None:
    await peer.create(log_message="create")
    await peer.propose(log_message="propose")
    await peer.propose(log_message="renew")
    await peer.append("append")
    assert messages(await peer.complete(log_message="complete")) == ["create", "propose", "renew", "append", "complete"]


async def test_an_empty_message_adds_none(peer: Peer) -> None:
    await peer.create()
    await peer.propose()
    assert messages(await peer.complete()) == []


async def test_an_operation_carries_the_newest_100_and_the_listing_pages_through_all(peer: Peer) -> None:
    await peer.propose()
    everything = [f"step {number}" for number in range(1, 251)]
    for message in everything[:-1]:
        await peer.append(message)
    assert messages(await peer.append(everything[-1])) == everything[-100:]
    assert messages((await peer.get()).operation) == everything[-100:]
    assert messages(await peer.propose()) == everything[-100:]

    told: list[str] = []
    sizes, token = [], ""
    while True:
        page = await peer.logs(page_size=70, page_token=token)
        told += messages(page)
        sizes.append(len(page.logs))
        if not (token := page.next_page_token):
            break
    assert told == everything
    assert sizes == [70, 70, 70, 40]
    assert len((await peer.logs()).logs) == 100


async def test_the_pages_of_one_listing_are_one_snapshot(peer: Peer) -> None:
    await peer.propose()
    for number in range(4):
        await peer.append(f"step {number}")
    first = await peer.logs(page_size=3)
    await peer.append("later")
    second = await peer.logs(page_size=3, page_token=first.next_page_token)
    assert messages(second) == ["step 3"]
    assert not second.next_page_token


async def test_a_page_of_large_logs_stays_below_what_clients_accept(peer: Peer) -> None:
    await peer.propose()
    large = "x" * 4096
    for _ in range(100):
        await peer.append(large)
    # The newest 100 in one message are what the contract asks for; a page of a listing ends where it has to.
    assert (await peer.get()).ByteSize() < 4 * 1024 * 1024
    assert (await peer.logs(page_size=1000)).ByteSize() < 4 * 1024 * 1024


async def test_logs_of_an_operation_that_has_gone_end_with_an_error(peer: Peer) -> None:
    await peer.propose(log_message="one")
    await peer.append("two")
    page = await peer.logs(page_size=1)
    await peer.complete()
    await peer.propose(log_message="another operation")

    async def is_over() -> bool:
        # Until the janitor has come by, the rest of the listing is still there to be read.
        try:
            await peer.logs(page_size=1, page_token=page.next_page_token)
        except grpc.aio.AioRpcError as error:
            return refusal_of(error).reason == "PAGE_TOKEN_EXPIRED"
        return False

    assert await soon(is_over)


async def test_the_cost_of_a_proposal_does_not_grow_with_the_logs(peer: Peer) -> None:
    """What etcd has to read and answer is bounded by the newest 100, however many there are."""
    await peer.propose()
    for _ in range(110):
        await peer.append("the same")
    at_110 = (await peer.propose()).ByteSize()
    for _ in range(200):
        await peer.append("the same")
    assert abs((await peer.propose()).ByteSize() - at_110) < 500
