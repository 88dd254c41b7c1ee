"""The number of the layout: every change is guarded by it, so no version touches what a newer one has laid out."""

import asyncio

import pytest
from e2e.support_e2e import until_health
from etcd_hands import EtcdHands
from support import Peer, TestClock, connected, refused
from waiting import reaches

from operation_service.break_lock import lock_breaker
from operation_service.clock import Deadline
from operation_service.errors import LayoutError
from operation_service.etcd_client import EtcdClient
from operation_service.keys import Keys
from operation_service.layout import Layout
from operation_service.model import Resource
from operation_service.server import running
from operation_service.settings import Settings, SettingsError


async def number(hands: EtcdHands) -> list[bytes]:
    return [entry.value for entry in await hands.entries("layout")]


async def test_a_service_writes_the_number_when_it_starts(peer: Peer, hands: EtcdHands) -> None:
    assert await number(hands) == [b"1"]
    await peer.propose()


async def test_replicas_that_start_at_once_write_it_once(etcd: str, settings: Settings, hands: EtcdHands) -> None:
    clients = [EtcdClient([etcd]) for _ in range(20)]
    keys = Keys(settings.key_prefix)
    await asyncio.gather(*(Layout(client, keys).settle(Deadline(10)) for client in clients))
    (entry,) = await hands.entries("layout")
    assert (entry.value, entry.version) == (b"1", 1)
    for client in clients:
        await client.close()


async def test_what_an_earlier_version_has_written_is_layout_1(
    etcd: str, settings: Settings, hands: EtcdHands, clock: TestClock
) -> None:
    async with running(settings, [etcd], clock) as service, connected(service.address) as peer:
        await peer.propose(lock_for_seconds=600)
        fence = peer.fencing_token
        await hands.delete("layout")
        # Deleted under a running one: the next change writes it, and is made.
        await peer.propose(lock_for_seconds=600, fence=fence)
    assert await number(hands) == [b"1"]


@pytest.mark.parametrize(("found", "what"), [(b"2", "newer version"), (b"", "no layout"), (b"\xff1", "no layout")])
async def test_another_layout_is_refused_at_the_start(
    etcd: str, settings: Settings, hands: EtcdHands, found: bytes, what: str
) -> None:
    await hands.put("layout", found)
    with pytest.raises(SettingsError) as caught:
        async with running(settings, [etcd]):
            raise AssertionError("it serves")
    message = str(caught.value)
    assert what in message
    assert "this version knows 1" in message
    assert "\n" not in message


async def test_a_newer_layout_stops_every_change_from_its_revision_on(
    peer: Peer, hands: EtcdHands, etcd: str, settings: Settings
) -> None:
    await peer.propose(lock_for_seconds=600)
    await peer.create("vm/pending")
    await peer.propose("vm/ends", lock_for_seconds=2)
    fence = peer.fencing_token
    await hands.put("layout", b"2")
    before = [entry for entry in await hands.entries() if b"/ends" not in entry.key]
    # At once, whoever has heard of it by then or not; also where many go together.
    calls = (peer.propose(lock_for_seconds=600), peer.append(), peer.complete(), peer.cancel("vm/pending"))
    refusals = await asyncio.gather(
        *(refused(call) for call in calls), *(refused(peer.propose(f"vm/{each}")) for each in range(30))
    )
    assert {(refusal.code.name, refusal.reason) for refusal in refusals} == {("UNAVAILABLE", "ETCD_UNAVAILABLE")}
    assert all("newer version" in refusal.message for refusal in refusals)
    assert {refusal.metadata["outcome"] for refusal in refusals} == {"unchanged"}
    assert [entry for entry in await hands.entries() if b"/ends" not in entry.key] == before
    async with lock_breaker([etcd], settings.key_prefix) as breaker:
        with pytest.raises(LayoutError, match="newer version"):
            await breaker.look(Resource("project", "virtual_machines/web-1"), Deadline(5))
    # What etcd does by itself goes on, and so does the service once the number is back.
    assert await reaches(peer, "EXPIRED", "vm/ends")
    await hands.put("layout", b"1")
    await peer.propose("vm/ends", lock_for_seconds=2)
    assert peer.fencing_token is not None
    assert fence is not None
    assert peer.fencing_token > fence


async def test_a_change_whose_own_guard_fails_is_told_what_is_there(peer: Peer, hands: EtcdHands) -> None:
    await peer.propose(lock_for_seconds=600)
    # What the service believes is not so any more.
    await hands.delete("locks/project/virtual_machines/web-1")
    await peer.named("other").propose()
    assert (await refused(peer.append())).reason == "TOKEN_MISMATCH"


async def test_health_follows_the_layout(address: str, hands: EtcdHands) -> None:
    await hands.put("layout", b"2")
    await until_health(address, "NOT_SERVING")
    await hands.put("layout", b"1")
    await until_health(address, "SERVING")
