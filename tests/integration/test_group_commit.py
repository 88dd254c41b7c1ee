"""Changes that are committed together: to each caller it is as if its own had gone alone."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from etcd_hands import EtcdHands
from google.protobuf.any_pb2 import Any as AnyMessage
from links import Link, Mode, linked
from support import PROJECT, Peer, TestClock, connected, event_name, messages, refused
from waiting import soon

from operation_service.clock import Deadline
from operation_service.errors import StoreUnavailableError
from operation_service.etcd_client import EtcdClient, LeaseGoneError
from operation_service.etcd_ops import Guard, Put, Transaction
from operation_service.group_commit import GroupCommit, Outcome
from operation_service.keys import Keys
from operation_service.layout import Layout
from operation_service.leases import Leases
from operation_service.server import running
from operation_service.settings import Settings
from operation_service.shared_leases import Place

NAMES = [f"vm/{number:02}" for number in range(40)]


@pytest.fixture
async def client(etcd: str) -> AsyncIterator[EtcdClient]:
    client = EtcdClient([etcd])
    yield client
    await client.close()


def nothing(_outcome: object) -> None:
    """Settle nothing."""


class TestTransactionsThatGoTogether:
    def put(self, settings: Settings, name: str, *, lease: int = 0, mod_revision: int = 0) -> Transaction:
        """Create a key, unless it is there; then read it."""
        key = f"{settings.key_prefix}{name}".encode()
        return Transaction(
            guards=[Guard(key, mod_revision)], puts=[Put(key, name.encode(), lease)], reads_otherwise=[key]
        )

    async def write(self, client: EtcdClient, *transactions: Transaction) -> list[Outcome | BaseException]:
        layout = Layout(client, Keys("/test/"))
        await layout.settle(Deadline(10))
        commits = GroupCommit(layout)
        return await asyncio.gather(
            *(commits.write(each, Deadline(10), nothing) for each in transactions), return_exceptions=True
        )

    async def test_are_made_at_one_revision(self, client: EtcdClient, settings: Settings, hands: EtcdHands) -> None:
        await self.write(client, self.put(settings, "first"))
        before = await hands.revision()
        outcomes = await self.write(client, *(self.put(settings, name) for name in NAMES))
        assert {outcome.revision for outcome in outcomes if isinstance(outcome, Outcome)} == {before + 1}
        assert sorted(await hands.keys()) == ["first", *NAMES]

    async def test_fail_alone_where_somebody_was_faster_and_are_told_what_is_there(
        self, client: EtcdClient, settings: Settings, hands: EtcdHands
    ) -> None:
        await hands.put("b", b"somebody's")
        a, b, c = await self.write(client, *(self.put(settings, name) for name in "abc"))
        assert isinstance(a, Outcome)
        assert isinstance(b, Outcome)
        assert isinstance(c, Outcome)
        assert [each.response.succeeded for each in (a, b, c)] == [True, False, True]
        assert b.response.responses[0].response_range.kvs[0].value == b"somebody's"
        assert [entry.value for entry in await hands.entries()] == [b"a", b"somebody's", b"c"]

    async def test_are_made_all_but_the_one_whose_lease_has_ended(
        self, client: EtcdClient, settings: Settings, hands: EtcdHands
    ) -> None:
        """etcd refuses the whole: a poisoned batch."""
        lease = await client.grant(60, Deadline(10))
        await client.revoke(lease.id, Deadline(10))
        outcomes = await self.write(
            client, *(self.put(settings, name, lease=lease.id if name == "b" else 0) for name in "abc")
        )
        assert [type(outcome) for outcome in outcomes] == [Outcome, LeaseGoneError, Outcome]
        assert await hands.keys() == ["a", "c"]

    async def test_are_made_all_but_the_one_that_etcd_refuses(
        self, client: EtcdClient, settings: Settings, hands: EtcdHands
    ) -> None:
        """Twice the same key, of which nothing that the service does consists."""
        key = f"{settings.key_prefix}b".encode()
        twice = Transaction(guards=[Guard(key, 0)], puts=[Put(key, b"1"), Put(key, b"2")])
        a, b, c = await self.write(client, self.put(settings, "a"), twice, self.put(settings, "c"))
        assert isinstance(a, Outcome)
        assert isinstance(b, StoreUnavailableError)
        assert isinstance(c, Outcome)
        assert not b.is_outcome_unknown
        assert await hands.keys() == ["a", "c"]

    async def test_are_as_many_and_as_large_as_etcd_takes(
        self, client: EtcdClient, settings: Settings, hands: EtcdHands
    ) -> None:
        small = [self.put(settings, f"small/{number}") for number in range(350)]
        large = [
            Transaction(guards=[Guard(key, 0)], puts=[Put(key, b"x" * 300_000)])
            for key in (f"{settings.key_prefix}large/{number}".encode() for number in range(10))
        ]
        outcomes = await self.write(client, *small, *large)
        assert {type(outcome) for outcome in outcomes} == {Outcome}
        assert len(await hands.keys()) == 360


@pytest.fixture
async def proxy(etcd: str) -> AsyncIterator[Link]:
    async with linked(etcd) as proxy:
        yield proxy


@pytest.fixture
async def far_peer(proxy: Link, settings: Settings) -> AsyncIterator[Peer]:
    """A caller of a service whose way to etcd is under the test's control."""
    async with running(settings, [proxy.url]) as service, connected(service.address) as peer:
        yield peer


async def test_calls_at_once_cost_etcd_far_fewer_proposals_than_calls(peer: Peer, hands: EtcdHands) -> None:
    await peer.propose("first")
    before = await hands.proposals()
    for _ in range(3):
        await asyncio.gather(*(peer.propose(name) for name in NAMES))
    assert await hands.proposals() - before < len(NAMES)
    fences = [(await peer.get(name)).fencing_token for name in NAMES]
    assert all(fences)


async def test_each_of_many_calls_at_once_is_answered_with_its_own_operation(peer: Peer) -> None:
    answers = await asyncio.gather(*(peer.named(name).propose(name, log_message=f"log of {name}") for name in NAMES))
    assert [answer.proposing_peer_token for answer in answers] == NAMES
    assert [messages(answer) for answer in answers] == [[f"log of {name}"] for name in NAMES]
    answers = await asyncio.gather(*(peer.named(name).append("more", name) for name in NAMES))
    assert [messages(answer) for answer in answers] == [[f"log of {name}", "more"] for name in NAMES]
    refusal = await refused(peer.named("somebody").complete(NAMES[0]))
    assert refusal.reason == "TOKEN_MISMATCH"


async def test_large_requests_at_once_are_all_recorded(peer: Peer) -> None:
    request = AnyMessage(type_url="type.googleapis.com/a.B", value=b"x" * 250_000)
    await asyncio.gather(*(peer.create(name, operation_request=request) for name in NAMES[:12]))
    answers = await asyncio.gather(*(peer.get(name) for name in NAMES[:12]))
    assert all(answer.operation.operation_request == request for answer in answers)


async def test_of_many_peers_and_resources_over_two_replicas_exactly_one_wins_each(
    etcd: str, settings: Settings
) -> None:
    async with AsyncExitStack() as stack:
        services = [await stack.enter_async_context(running(settings, [etcd])) for _ in range(2)]
        peers = [await stack.enter_async_context(connected(service.address)) for service in services]

        async def propose(number: int, name: str) -> str:
            peer = peers[number % 2].named(f"peer-{number}")
            try:
                await peer.propose(name)
            except Exception:  # noqa: BLE001, refused
                return ""
            return name

        won = await asyncio.gather(*(propose(number, name) for name in NAMES for number in range(6)))
        assert Counter(filter(None, won)) == Counter(NAMES)


async def test_when_the_answer_for_all_of_them_is_lost_each_is_read_back_and_made_once(
    far_peer: Peer, peer: Peer, proxy: Link
) -> None:
    await asyncio.gather(*(far_peer.propose(name) for name in NAMES))
    proxy.become(Mode.SWALLOW)
    calls = [asyncio.create_task(far_peer.append("once", name)) for name in NAMES]

    async def are_there() -> bool:
        return all([len((await peer.logs(name)).logs) == 1 for name in NAMES[:1]])

    assert await soon(are_there)
    proxy.become(Mode.PASS)
    proxy.cut()
    assert [messages(answer) for answer in await asyncio.gather(*calls)] == [["once"]] * len(NAMES)
    assert [messages((await peer.get(name)).operation) for name in NAMES] == [["once"]] * len(NAMES)


class TestASharedLease:
    async def shared(self, peer: Peer, hands: EtcdHands, **fields: Any) -> int:
        """Lock all resources on one lease, and return it."""
        # The first gets what it needs, and those that come with it share another one.
        await peer.propose("first", **fields)
        await asyncio.gather(*(peer.propose(name, **fields) for name in NAMES))
        leases = Counter(entry.lease for entry in await hands.entries(f"locks/{PROJECT}/vm/"))
        (lease, count), *_ = leases.most_common()
        assert count > len(NAMES) / 2
        return lease

    async def test_that_ends_frees_every_lock_on_it_and_everybody_is_told_once(
        self, peer: Peer, hands: EtcdHands
    ) -> None:
        lease = await self.shared(peer, hands, lock_for_seconds=600, is_disabled_cancel=True)
        names = sorted(
            entry.key.decode().rpartition(f"{PROJECT}/")[2]
            for entry in await hands.entries("locks/")
            if entry.lease == lease
        )
        watch = await peer.watching(project=PROJECT, start_revision=await hands.revision() + 1)
        one = await peer.watching(project=PROJECT, name_prefix=names[0], start_revision=await hands.revision() + 1)
        await hands.revoke(lease)
        told = [await watch.read() for _ in names]
        assert [each.operation.name for each in told] == names
        assert {event_name(each.event) for each in told} == {"OPERATOR_DEAD"}
        # To who hears of all, all but the last leave the revision open; to who hears of one, that one completes it.
        completed = told[-1].revision
        assert [each.revision for each in told[:-1]] == [completed - 1] * (len(told) - 1)
        assert (await one.read()).revision == completed
        assert {await peer.state(name) for name in names} == {"OPERATOR_DEAD"}
        await peer.named("successor").propose(names[0])
        assert (await watch.read()).operation.name == names[0]

    async def test_that_was_revoked_while_it_is_shared_is_replaced_for_those_who_come_next(
        self, peer: Peer, hands: EtcdHands
    ) -> None:
        lease = await self.shared(peer, hands, lock_for_seconds=600)
        await hands.revoke(lease)
        answers = await asyncio.gather(*(peer.propose(name, lock_for_seconds=600) for name in NAMES))
        assert len(answers) == len(NAMES)
        locks = await hands.entries(f"locks/{PROJECT}/vm/")
        assert len(locks) == len(NAMES)
        assert lease not in {entry.lease for entry in locks}

    async def test_outlasts_a_renewal_and_a_completion_of_its_neighbours(
        self, peer: Peer, hands: EtcdHands, clock: TestClock
    ) -> None:
        lease = await self.shared(peer, hands, lock_for_seconds=600)
        kept = NAMES[-1]
        assert (await hands.entries(f"locks/{PROJECT}/{kept}"))[0].lease == lease
        await asyncio.gather(*(peer.complete(name) for name in NAMES[:20]))
        clock.pass_seconds(10)
        await asyncio.gather(*(peer.propose(name, lock_for_seconds=600) for name in NAMES[20:-1]))
        clock.pass_seconds(10)
        await peer.propose("another", lock_for_seconds=600)
        assert await hands.lives(lease)
        assert await peer.state(kept) == "LOCKED"

    async def test_carries_a_cancelled_peer_for_as_long_as_the_lock_would_have_lasted(
        self, peer: Peer, hands: EtcdHands, clock: TestClock
    ) -> None:
        lease = await self.shared(peer, hands, lock_for_seconds=600)
        cancelled, *others = (
            entry.key.decode().rpartition(f"{PROJECT}/")[2]
            for entry in await hands.entries(f"locks/{PROJECT}/vm/")
            if entry.lease == lease
        )
        await peer.cancel(cancelled)
        await asyncio.gather(*(peer.complete(name) for name in others))
        clock.pass_seconds(20)
        await peer.propose("another", lock_for_seconds=600)
        assert (await refused(peer.propose(cancelled))).reason == "OPERATION_CANCELLED"
        assert await hands.lives(lease)


async def test_a_lock_that_is_told_to_last_does_so_on_whichever_lease(
    peer: Peer, hands: EtcdHands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 1: locked_until is at least lock_for_seconds from now on, and etcd keeps the key for as long."""
    places: list[Place] = []
    take = Leases.for_lock

    async def noted(leases: Leases, seconds: int, deadline: Deadline) -> Place:
        places.append(await take(leases, seconds, deadline))
        return places[-1]

    monkeypatch.setattr(Leases, "for_lock", noted)
    await asyncio.gather(*(peer.propose(name, lock_for_seconds=30) for name in NAMES))
    assert all(30 <= place.seconds < 32 for place in places)
    for entry in await hands.entries("locks/"):
        assert await hands.granted(entry.lease) in {30, 31}
