"""Rules 13 and 15: all or nothing, also when the answer of etcd is lost, and never beyond the caller's deadline."""

import asyncio
import http.client
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from etcd_hands import EtcdHands
from links import Link, Mode, linked
from support import NAME, PROJECT, Peer, TestClock, connected, messages, refused
from waiting import soon

from operation_service.clock import Deadline
from operation_service.commits import Attempt, Commits, Committed
from operation_service.errors import ContentionError, StoreUnavailableError
from operation_service.etcd_client import EtcdClient
from operation_service.etcd_store import EtcdStore
from operation_service.keys import Keys
from operation_service.leases import Leases
from operation_service.lock_times import LockTimes
from operation_service.model import Append, Caller, Cancel, Command, Propose, Resource, Snapshot
from operation_service.operations import Operations
from operation_service.server import running
from operation_service.settings import Settings
from operation_service.shared_leases import Place
from operation_service.status import to_status

RESOURCE = Resource(PROJECT, NAME)
HOLDER = Caller("peer-a", "somebody")


@pytest.fixture
async def proxy(etcd: str) -> AsyncIterator[Link]:
    async with linked(etcd) as proxy:
        yield proxy


@pytest.fixture
async def far_peer(proxy: Link, settings: Settings, clock: TestClock) -> AsyncIterator[Peer]:
    """A caller of a service whose way to etcd is under the test's control."""
    async with running(settings, [proxy.url], clock) as service, connected(service.address) as peer:
        yield peer


async def test_an_answer_that_was_lost_is_read_back_and_the_change_made_once(
    far_peer: Peer, peer: Peer, proxy: Link
) -> None:
    await far_peer.propose()
    proxy.become(Mode.SWALLOW)
    call = asyncio.create_task(far_peer.append("once"))

    async def is_there() -> bool:
        return len((await peer.logs()).logs) == 1

    assert await soon(is_there)
    proxy.become(Mode.PASS)
    proxy.cut()

    assert messages(await call) == ["once"]
    assert messages((await peer.get()).operation) == ["once"]


async def test_when_nothing_can_be_read_back_the_answer_says_that_the_outcome_is_unknown(
    far_peer: Peer, peer: Peer, proxy: Link
) -> None:
    await far_peer.propose()
    proxy.become(Mode.SWALLOW)
    far_peer.timeout = 3

    refusal = await refused(far_peer.complete(log_message="done"))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "ETCD_UNAVAILABLE")
    assert refusal.metadata["outcome"] == "unknown"
    assert await peer.state() == "SUCCEEDED"
    proxy.become(Mode.PASS)
    proxy.cut()
    far_peer.timeout = 20
    assert messages(await far_peer.complete(log_message="done")) == ["done"]


async def test_a_repeated_proposal_after_an_unknown_outcome_does_no_harm(
    far_peer: Peer, peer: Peer, proxy: Link
) -> None:
    await far_peer.propose()
    fence = far_peer.fencing_token
    proxy.become(Mode.SWALLOW)
    far_peer.timeout = 2
    assert (await refused(far_peer.propose())).code == grpc.StatusCode.UNAVAILABLE
    proxy.become(Mode.PASS)
    proxy.cut()
    far_peer.timeout = 20
    await far_peer.propose(fence=fence)
    assert (await peer.get()).fencing_token == fence


async def test_etcd_out_of_reach_is_unavailable_within_the_callers_deadline_and_changes_nothing(
    far_peer: Peer, peer: Peer, proxy: Link
) -> None:
    await far_peer.propose()
    before = (await peer.get()).revision
    await proxy.close()
    far_peer.timeout = 2
    # Reads first: a change that goes out on a connection that is just being cut may rightly be told as unknown.
    for ask in (far_peer.get, far_peer.list, far_peer.logs, lambda: far_peer.watch().read(), far_peer.append):
        refusal = await refused(ask())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "ETCD_UNAVAILABLE")
        assert refusal.metadata["outcome"] == "unchanged"
        assert refusal.retry_seconds
    assert (await peer.get()).revision == before
    await proxy.open()

    async def is_back() -> bool:
        return bool(await far_peer.append())

    assert await soon(is_back)


async def test_a_call_that_its_caller_gave_up_leaves_the_resource_in_order(
    far_peer: Peer, peer: Peer, proxy: Link
) -> None:
    await far_peer.propose()
    proxy.become(Mode.SWALLOW)
    call = asyncio.create_task(far_peer.append("given up"))

    async def is_made() -> bool:
        return len((await peer.logs()).logs) == 1

    assert await soon(is_made)
    call.cancel()
    proxy.become(Mode.PASS)
    proxy.cut()
    await far_peer.append("afterwards")
    assert messages((await peer.get()).operation) == ["given up", "afterwards"]


class LossyStore(EtcdStore):
    """The first change is made, its answer is lost, and others act before it can be read back."""

    def __init__(self, between: Callable[[], Awaitable[object]], *parts: Any) -> None:
        super().__init__(*parts)
        self._between: Callable[[], Awaitable[object]] | None = between

    async def commit(self, attempt: Attempt, deadline: Deadline) -> Committed | Snapshot:
        outcome = await super().commit(attempt, deadline)
        if self._between is not None:
            between, self._between = self._between, None
            await between()
            raise StoreUnavailableError("the answer was lost", is_outcome_unknown=True)
        return outcome


class MeddledStore(EtcdStore):
    """Another replica is always faster: it touches the record just before each commit."""

    def __init__(self, touch: Callable[[], Awaitable[None]], *parts: Any) -> None:
        super().__init__(*parts)
        self._touch = touch

    async def commit(self, attempt: Attempt, deadline: Deadline) -> Committed | Snapshot:
        await self._touch()
        return await super().commit(attempt, deadline)


@pytest.fixture
async def client(etcd: str) -> AsyncIterator[EtcdClient]:
    client = EtcdClient([etcd])
    yield client
    await client.close()


@pytest.fixture
async def leases(client: EtcdClient) -> AsyncIterator[Leases]:
    leases = Leases(client, TestClock(), retention_seconds=60)
    yield leases
    await leases.close()


@pytest.fixture
async def parts(client: EtcdClient, leases: Leases, settings: Settings) -> tuple[Any, ...]:
    """What a store is made of: another replica's, on the keys of the test's service."""
    clock, keys = TestClock(), Keys(settings.key_prefix)
    times = LockTimes(clock)
    return client, keys, times, Commits(client, keys, leases, times, clock)


async def outcome_of(store: EtcdStore, command: Command) -> StoreUnavailableError:
    with pytest.raises(StoreUnavailableError) as caught:
        await Operations(store, TestClock()).change(command, Deadline(10))
    return caught.value


async def test_a_change_under_somebody_elses_is_neither_made_again_nor_refused_but_unknown(
    peer: Peer, parts: tuple[Any, ...]
) -> None:
    await peer.propose()
    store = LossyStore(lambda: peer.append("another"), *parts)
    assert (await outcome_of(store, Append(RESOURCE, HOLDER, "mine"))).is_outcome_unknown
    assert messages((await peer.get()).operation) == ["mine", "another"]


async def test_a_lost_cancel_does_not_hit_the_next_operation(peer: Peer, parts: tuple[Any, ...]) -> None:
    await peer.create()
    store = LossyStore(lambda: peer.named("other").create(log_message="the next one"), *parts)
    assert (await outcome_of(store, Cancel(RESOURCE, HOLDER))).is_outcome_unknown
    assert await peer.state() == "PENDING"


async def test_a_lost_proposal_does_not_take_the_lock_again_after_the_end(peer: Peer, parts: tuple[Any, ...]) -> None:
    store = LossyStore(peer.complete, *parts)
    assert (await outcome_of(store, Propose(RESOURCE, HOLDER, 30))).is_outcome_unknown
    assert await peer.state() == "SUCCEEDED"


async def test_a_lost_change_that_was_taken_over_is_not_refused(
    peer: Peer, hands: EtcdHands, parts: tuple[Any, ...]
) -> None:
    await peer.propose()

    async def take_over() -> None:
        await hands.let_lock_run_out(NAME)
        await peer.named("other").propose()

    assert (await outcome_of(LossyStore(take_over, *parts), Append(RESOURCE, HOLDER, "mine"))).is_outcome_unknown


async def test_a_call_that_loses_the_race_again_and_again_is_aborted(
    peer: Peer, hands: EtcdHands, parts: tuple[Any, ...]
) -> None:
    await peer.propose()
    before = await peer.get()

    async def touch() -> None:
        (record,) = await hands.entries("records/")
        await hands.put(f"records/{RESOURCE}", record.value)

    with pytest.raises(ContentionError) as caught:
        await Operations(MeddledStore(touch, *parts), TestClock()).change(
            Append(RESOURCE, HOLDER, "late"), Deadline(10)
        )
    assert to_status(caught.value).code is grpc.StatusCode.ABORTED
    assert (await peer.get()).operation == before.operation


async def test_a_lease_that_ended_before_it_was_used_is_granted_again(
    peer: Peer, hands: EtcdHands, leases: Leases, parts: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the process sleeps between the grant and the change."""
    client: EtcdClient = parts[0]
    ended: list[int] = []

    async def ends_at_once(seconds: int, deadline: Deadline) -> Place:
        place = await Leases.for_lock(leases, seconds, deadline)
        if not ended:
            ended.append(place.lease_id)
            await client.revoke(place.lease_id, deadline)
        return place

    monkeypatch.setattr(leases, "for_lock", ends_at_once)
    view = await Operations(EtcdStore(*parts), TestClock()).change(Propose(RESOURCE, HOLDER, 30), Deadline(10))
    assert view.lock is not None
    assert (await hands.entries("locks/"))[0].lease not in ended
    assert await peer.state() == "LOCKED"


async def test_a_shared_lease_that_somebody_revoked_is_replaced(peer: Peer, hands: EtcdHands) -> None:
    await peer.propose("vm/a")
    (record,) = await hands.entries("records/")
    await hands.revoke(record.lease)
    await peer.propose("vm/b")
    assert await peer.state("vm/b") == "LOCKED"


def all_leases(etcd: str) -> list[int]:
    """All leases of an etcd, whoever's they are; the package's stubs do not know this call."""
    connection = http.client.HTTPConnection(etcd.removeprefix("http://"), timeout=10)
    connection.request("POST", "/v3/lease/leases", "{}")
    leases = [int(lease["ID"]) for lease in json.load(connection.getresponse()).get("leases", ())]
    connection.close()
    return leases


async def test_a_caller_that_goes_leaves_no_lease_without_a_key(
    far_peer: Peer, proxy: Link, hands: EtcdHands, etcd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a day's worth of them for who retries with a short deadline, and whichever step the call had come to."""
    # A machine that stands still for a second would make an outcome unknown, and then a lease is left to end by itself.
    for module in ("etcd_client", "etcd_members"):
        monkeypatch.setattr(f"operation_service.{module}.ATTEMPT_SECONDS", 20.0)
    for delay in (0.0, 0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02):
        call = asyncio.create_task(far_peer.named(f"peer-{delay}").propose(f"vm/{delay}", lock_for_seconds=86_400))
        await asyncio.sleep(delay)
        proxy.become(Mode.HOLD_ANSWERS)
        await asyncio.sleep(0.1)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        proxy.become(Mode.PASS)

    async def leases_have_keys() -> bool:
        held = {entry.lease for entry in await hands.entries()}
        leases = await asyncio.to_thread(all_leases, etcd)
        return {lease for lease in leases if 86_400 <= await hands.granted(lease) <= 86_401} <= held

    assert await soon(leases_have_keys)
