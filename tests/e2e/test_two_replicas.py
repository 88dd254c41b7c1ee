"""Two processes over one etcd know of each other only through it."""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest
from e2e.support_e2e import Serve, Server, until_true
from support import NAME, Peer, connected, event_name, messages, refusal_of, refused, state_name

PEERS = 50


@dataclass
class Replica:
    server: Server
    peer: Peer


@pytest.fixture
async def replicas(etcd: str, serve: Serve) -> AsyncIterator[tuple[Replica, Replica]]:
    prefix = f"/two-replicas/{uuid.uuid4().hex}/"
    one, two = await asyncio.gather(
        *(serve("--etcd-endpoints", etcd, "--key-prefix", prefix) for _ in range(2)),
    )
    async with connected(one.address, "one") as peer_one, connected(two.address, "two") as peer_two:
        yield Replica(one, peer_one), Replica(two, peer_two)


async def race(replicas: tuple[Replica, Replica], name: str) -> tuple[list[str], list[str]]:
    """50 peers propose at once, half of them at each replica; return who has won, and why the others have not."""
    peers = [replicas[number % 2].peer.named(f"peer-{number}") for number in range(PEERS)]
    outcomes = await asyncio.gather(
        *(peer.propose(name, lock_for_seconds=60, log_message=peer.token) for peer in peers), return_exceptions=True
    )
    winners, reasons = [], []
    for peer, outcome in zip(peers, outcomes, strict=True):
        if isinstance(outcome, grpc.aio.AioRpcError):
            reasons.append(refusal_of(outcome).reason)
        else:
            assert not isinstance(outcome, BaseException)
            winners.append(peer.token)
    return winners, reasons


async def test_of_fifty_peers_at_two_replicas_exactly_one_wins(replicas: tuple[Replica, Replica]) -> None:
    for number in range(5):
        name = f"raced/{number}"
        winners, reasons = await race(replicas, name)
        (winner,) = winners
        assert reasons == ["LOCKED"] * (PEERS - 1)
        for replica in replicas:
            record = await replica.peer.get(name)
            assert record.operation.proposing_peer_token == winner
            assert messages(record.operation) == [winner]
            assert state_name(record.state) == "LOCKED"


async def test_a_change_through_one_is_told_by_a_watch_on_the_other(replicas: tuple[Replica, Replica]) -> None:
    one, two = (replica.peer for replica in replicas)
    await one.propose("there/before")
    watch = two.watch()
    assert event_name((await watch.read()).event) == "LOCKED"
    told = []
    for change in (one.create, one.propose, one.propose, one.append, one.complete):
        await change()
        told.append(event_name((await watch.read()).event))
    assert told == ["CREATED", "LOCKED", "RENEWED", "LOGGED", "SUCCEEDED"]
    watch.cancel()


async def test_what_one_believes_is_never_what_it_refuses_on(replicas: tuple[Replica, Replica]) -> None:
    one, two = (replica.peer for replica in replicas)
    for _ in range(5):
        await one.propose(lock_for_seconds=60)
        # The other replica knows nothing of what the first one has just been told, and the first nothing of this.
        await two.named(one.token).complete()
        await two.propose(lock_for_seconds=60)
        assert (await refused(one.propose())).reason == "LOCKED"
        await one.named(two.token).complete()


async def test_a_lock_that_runs_out_is_news_on_both_and_free_on_both(replicas: tuple[Replica, Replica]) -> None:
    one, two = (replica.peer for replica in replicas)
    await one.propose(lock_for_seconds=2, is_disabled_cancel=True)
    watches = [one.watch(), two.watch()]
    for watch in watches:
        told = [event_name((await watch.read()).event), event_name((await watch.read()).event)]
        assert told == ["LOCKED", "OPERATOR_DEAD"]
        watch.cancel()
    first = one.fencing_token or 0
    await two.propose()
    assert (two.fencing_token or 0) > first
    assert (await refused(one.propose())).reason == "LOCKED"


async def test_when_one_is_killed_nothing_acknowledged_is_lost_and_the_other_goes_on(
    replicas: tuple[Replica, Replica],
) -> None:
    one, two = replicas
    await one.peer.propose("held", lock_for_seconds=600, is_disabled_cancel=True)
    fencing_token = one.peer.fencing_token
    acknowledged: list[str] = []

    async def work(number: int) -> None:
        with_token = one.peer.named(f"peer-{number}")
        for step in range(10_000):
            name = f"work/{number}-{step}"
            try:
                await with_token.propose(name, lock_for_seconds=600, log_message="begun")
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017
                return
            acknowledged.append(name)

    working = [asyncio.ensure_future(work(number)) for number in range(8)]
    await until_true(lambda: len(acknowledged) >= 200)
    await one.server.stop(signal.SIGKILL)
    await asyncio.gather(*working)

    found: dict[str, str] = {}
    token = ""
    while True:
        page = await two.peer.list(name_prefix="work/", page_size=1000, page_token=token)
        found |= {record.name: state_name(record.state) for record in page.operations}
        token = page.next_page_token
        if not token:
            break
    assert {found.get(name) for name in acknowledged} == {"LOCKED"}
    # The holders go on at the other replica.
    assert (await refused(two.peer.propose("held"))).reason == "LOCKED"
    await two.peer.named("one").propose("held", fence=fencing_token)
    await two.peer.named("one").complete("held", fence=fencing_token)
    await two.peer.propose(NAME)
