"""Rules 13 and 15: all or nothing, also when the answer of etcd is lost, and never beyond the caller's deadline."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from etcd_hands import EtcdHands
from etcd_proxy import EtcdProxy, proxied
from support import NAME, PROJECT, Peer, TestClock, connected, messages, refused
from waiting import soon

from operation_service.clock import Deadline
from operation_service.errors import ContentionError
from operation_service.etcd_client import EtcdClient
from operation_service.etcd_store import Attempt, Committed, EtcdStore
from operation_service.keys import Keys
from operation_service.leases import Leases
from operation_service.lock_times import LockTimes
from operation_service.model import Append, Caller, Resource, Snapshot
from operation_service.operations import Operations
from operation_service.server import running
from operation_service.settings import Settings
from operation_service.status import to_status

RESOURCE = Resource(PROJECT, NAME)
HOLDER = Caller("peer-a", "somebody")


@pytest.fixture
async def proxy(etcd: str) -> AsyncIterator[EtcdProxy]:
    async with proxied(etcd) as proxy:
        yield proxy


@pytest.fixture
async def far_peer(proxy: EtcdProxy, settings: Settings, clock: TestClock) -> AsyncIterator[Peer]:
    """A caller of a service whose way to etcd is under the test's control."""
    async with running(settings, [proxy.url], clock) as service, connected(service.address) as peer:
        yield peer


async def test_an_answer_that_was_lost_is_read_back_and_the_change_made_once(
    far_peer: Peer, peer: Peer, proxy: EtcdProxy
) -> None:
    await far_peer.propose()
    proxy.swallows_answers = True
    call = asyncio.create_task(far_peer.append("once"))

    async def is_there() -> bool:
        return len((await peer.logs()).logs) == 1

    assert await soon(is_there)
    proxy.swallows_answers = False
    proxy.cut()

    assert messages(await call) == ["once"]
    assert messages((await peer.get()).operation) == ["once"]


async def test_when_nothing_can_be_read_back_the_answer_says_that_the_outcome_is_unknown(
    far_peer: Peer, peer: Peer, proxy: EtcdProxy
) -> None:
    await far_peer.propose()
    proxy.swallows_answers = True
    far_peer.timeout = 3

    refusal = await refused(far_peer.complete(log_message="done"))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "ETCD_UNAVAILABLE")
    assert refusal.metadata["outcome"] == "unknown"
    assert await peer.state() == "SUCCEEDED"
    proxy.swallows_answers = False
    proxy.cut()
    far_peer.timeout = 20
    assert messages(await far_peer.complete(log_message="done")) == ["done"]


async def test_a_repeated_proposal_after_an_unknown_outcome_does_no_harm(
    far_peer: Peer, peer: Peer, proxy: EtcdProxy
) -> None:
    await far_peer.propose()
    fence = far_peer.fencing_token
    proxy.swallows_answers = True
    far_peer.timeout = 2
    assert (await refused(far_peer.propose())).code == grpc.StatusCode.UNAVAILABLE
    proxy.swallows_answers = False
    proxy.cut()
    far_peer.timeout = 20
    await far_peer.propose(fence=fence)
    assert (await peer.get()).fencing_token == fence


async def test_etcd_out_of_reach_is_unavailable_within_the_callers_deadline_and_changes_nothing(
    far_peer: Peer, peer: Peer, proxy: EtcdProxy
) -> None:
    await far_peer.propose()
    before = (await peer.get()).revision
    await proxy.close()
    far_peer.timeout = 2
    for call in (far_peer.append(), far_peer.get(), far_peer.list(), far_peer.logs(), far_peer.watch().read()):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "ETCD_UNAVAILABLE")
        assert refusal.metadata["outcome"] == "unchanged"
        assert refusal.retry_seconds
    assert (await peer.get()).revision == before
    await proxy.open()

    async def is_back() -> bool:
        return bool(await far_peer.append())

    assert await soon(is_back)


async def test_a_call_that_its_caller_gave_up_leaves_the_resource_in_order(
    far_peer: Peer, peer: Peer, proxy: EtcdProxy
) -> None:
    await far_peer.propose()
    proxy.swallows_answers = True
    call = asyncio.create_task(far_peer.append("given up"))
    await asyncio.sleep(0)
    call.cancel()
    proxy.swallows_answers = False
    proxy.cut()
    await far_peer.append("afterwards")
    assert messages((await peer.get()).operation)[-1] == "afterwards"


class MeddledStore(EtcdStore):
    """Another replica is always faster: it touches the record just before each commit."""

    def __init__(self, touch: Callable[[], Awaitable[None]], *parts: Any) -> None:
        super().__init__(*parts)
        self._touch = touch

    async def commit(self, attempt: Attempt, deadline: Deadline) -> Committed | Snapshot:
        await self._touch()
        return await super().commit(attempt, deadline)


async def test_a_call_that_loses_the_race_again_and_again_is_aborted(
    etcd: str, settings: Settings, peer: Peer, hands: EtcdHands
) -> None:
    await peer.propose()
    before = await peer.get()

    async def touch() -> None:
        (record,) = await hands.entries("records/")
        await hands.put(f"records/{RESOURCE}", record.value)

    clock, client = TestClock(), EtcdClient([etcd])
    leases = Leases(client, clock, retention_seconds=60)
    store = MeddledStore(touch, client, Keys(settings.key_prefix), leases, LockTimes(clock), clock)
    try:
        with pytest.raises(ContentionError) as caught:
            await Operations(store, clock).change(Append(RESOURCE, HOLDER, "late"), Deadline(10))
    finally:
        await leases.close()
        await client.close()
    assert to_status(caught.value).code is grpc.StatusCode.ABORTED
    assert (await peer.get()).operation == before.operation
