"""A lock that is broken, when etcd's answer is lost on its way."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from etcd3 import etcdrpc
from etcd_hands import EtcdHands
from support import NAME, PROJECT, Peer, messages

from operation_service.break_lock import LockBreaker, LockChangedError
from operation_service.clock import Deadline
from operation_service.errors import StoreUnavailableError
from operation_service.etcd_client import EtcdClient, LeaseGoneError
from operation_service.model import Resource, State
from operation_service.settings import Settings

RESOURCE = Resource(PROJECT, NAME)
LOST = StoreUnavailableError("its answer was lost", is_outcome_unknown=True)


@pytest.fixture
async def client(etcd: str) -> AsyncIterator[EtcdClient]:
    client = EtcdClient([etcd])
    yield client
    await client.close()


@pytest.fixture
def breaker(client: EtcdClient, settings: Settings) -> LockBreaker:
    return LockBreaker(client, settings.key_prefix)


async def test_a_lock_that_was_broken_is_recognised_although_the_answer_was_lost(
    peer: Peer, client: EtcdClient, breaker: LockBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await peer.propose(lock_for_seconds=600)
    shown = await breaker.look(RESOURCE, Deadline(10))
    write = client.write

    async def make_and_lose(request: etcdrpc.TxnRequest, deadline: Deadline) -> Any:
        await write(request, deadline)
        raise LOST

    monkeypatch.setattr(client, "write", make_and_lose)
    view = await breaker.break_lock(shown, "broken", Deadline(10))
    assert view.state is State.EXPIRED
    assert [log.message for log in view.logs] == ["broken"]
    assert await peer.state() == "EXPIRED"
    assert messages(await peer.logs()) == ["broken"]


async def test_where_it_cannot_be_known_that_is_said(
    peer: Peer, client: EtcdClient, breaker: LockBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await peer.propose(lock_for_seconds=600)
    shown = await breaker.look(RESOURCE, Deadline(10))

    async def lose(_request: etcdrpc.TxnRequest, _deadline: Deadline) -> Any:
        raise LOST

    monkeypatch.setattr(client, "write", lose)
    with pytest.raises(StoreUnavailableError) as error:
        await breaker.break_lock(shown, "broken", Deadline(10))
    assert error.value.is_outcome_unknown
    assert await peer.state() == "LOCKED"


async def test_it_is_said_too_when_etcd_cannot_be_asked_what_became_of_it(
    peer: Peer, client: EtcdClient, breaker: LockBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await peer.propose(lock_for_seconds=600)
    shown = await breaker.look(RESOURCE, Deadline(10))
    write = client.write

    async def unreachable(_request: Any, _deadline: Deadline) -> Any:
        raise StoreUnavailableError("it cannot be reached")

    async def make_and_be_cut_off(request: etcdrpc.TxnRequest, deadline: Deadline) -> Any:
        await write(request, deadline)
        monkeypatch.setattr(client, "read", unreachable)
        monkeypatch.setattr(client, "range", unreachable)
        raise LOST

    monkeypatch.setattr(client, "write", make_and_be_cut_off)
    with pytest.raises(StoreUnavailableError) as error:
        await breaker.break_lock(shown, "broken", Deadline(10))
    assert error.value.is_outcome_unknown
    assert await peer.state() == "EXPIRED"


async def test_a_lock_whose_lease_ends_meanwhile_has_changed(
    peer: Peer, client: EtcdClient, breaker: LockBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await peer.propose(lock_for_seconds=600)
    shown = await breaker.look(RESOURCE, Deadline(10))

    async def too_late(_request: etcdrpc.TxnRequest, _deadline: Deadline) -> Any:
        raise LeaseGoneError

    monkeypatch.setattr(client, "write", too_late)
    with pytest.raises(LockChangedError):
        await breaker.break_lock(shown, "broken", Deadline(10))


async def test_a_lock_that_a_replica_has_ended_meanwhile_has_changed(
    peer: Peer, breaker: LockBreaker, hands: EtcdHands
) -> None:
    await peer.propose(lock_for_seconds=600)
    shown = await breaker.look(RESOURCE, Deadline(10))
    # As a replica does whose clock says that it has outlived its time: neither the record nor the lease has changed.
    await hands.delete(f"locks/{PROJECT}/{NAME}")
    with pytest.raises(LockChangedError):
        await breaker.break_lock(shown, "broken", Deadline(10))
    assert not messages(await peer.logs())
    await peer.propose()
