"""Many at once: one wins, nothing is lost."""

import asyncio

import grpc
from etcd_hands import EtcdHands
from support import Peer, connected, messages, refusal_of, refused

from operation_service.server import running
from operation_service.settings import Settings


async def test_50_peers_propose_at_once_and_exactly_one_wins(peer: Peer) -> None:
    peers = [peer.named(f"peer-{number}") for number in range(50)]
    for number in range(5):
        name = f"vm/{number}"
        answers = await asyncio.gather(
            *(each.propose(name, log_message=each.token) for each in peers), return_exceptions=True
        )
        winners = [each for each, answer in zip(peers, answers, strict=True) if not isinstance(answer, BaseException)]
        reasons = {refusal_of(answer).reason for answer in answers if isinstance(answer, grpc.aio.AioRpcError)}
        assert (len(winners), reasons) == (1, {"LOCKED"})
        record = await peer.get(name)
        assert record.operation.proposing_peer_token == winners[0].token
        assert messages(record.operation) == [winners[0].token]
        assert record.fencing_token == winners[0].fencing_token


async def test_50_peers_create_at_once_and_exactly_one_wins(peer: Peer) -> None:
    peers = [peer.named(f"peer-{number}") for number in range(50)]
    answers = await asyncio.gather(*(each.create(log_message=each.token) for each in peers), return_exceptions=True)
    winners = [each for each, answer in zip(peers, answers, strict=True) if not isinstance(answer, BaseException)]
    reasons = {refusal_of(answer).reason for answer in answers if isinstance(answer, grpc.aio.AioRpcError)}
    assert (len(winners), reasons) == (1, {"ALREADY_EXISTS"})
    assert messages((await peer.get()).operation) == [winners[0].token]


async def test_50_appends_at_once_are_all_there_once(peer: Peer) -> None:
    await peer.propose()
    sent = [f"step {number}" for number in range(50)]
    await asyncio.gather(*(peer.append(message) for message in sent))
    assert sorted(messages((await peer.get()).operation)) == sorted(sent)


async def test_appends_and_a_completion_at_once_leave_one_end(peer: Peer) -> None:
    await peer.propose()
    answers = await asyncio.gather(
        peer.complete(), *(peer.append(f"step {number}") for number in range(10)), return_exceptions=True
    )
    appended = sum(not isinstance(answer, BaseException) for answer in answers[1:])
    record = await peer.get()
    assert len(record.operation.logs) == appended
    assert await peer.state() == "SUCCEEDED"


async def test_who_is_refused_again_and_again_costs_etcd_no_agreement(
    peer: Peer, etcd: str, settings: Settings, hands: EtcdHands
) -> None:
    """A replica that still believes that the resource is free learns better from the first refusal."""
    await peer.propose()
    await peer.complete()
    async with running(settings, [etcd]) as other, connected(other.address, "another") as another:
        await another.propose(lock_for_seconds=600)
        await refused(peer.propose())
        before = await hands.proposals()
        for _ in range(20):
            assert (await refused(peer.propose())).reason == "LOCKED"
        assert await hands.proposals() - before < 20
