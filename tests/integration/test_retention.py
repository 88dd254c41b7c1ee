"""Rule 14: nothing lives for ever by accident."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest
from etcd_hands import EtcdHands
from support import NAME, Peer, TestClock, refused
from waiting import reaches, soon

from operation_service.etcd_client import EtcdClient
from operation_service.janitor import Janitor
from operation_service.keys import Keys
from operation_service.landmarks import Landmarks
from operation_service.model import Resource
from operation_service.settings import Settings

RETENTION_SECONDS = 2


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, retention_seconds=RETENTION_SECONDS)


@pytest.fixture
async def janitor(etcd: str, settings: Settings) -> AsyncIterator[Janitor]:
    """A janitor for the keys of the test's service, which works when the test says so."""
    client = EtcdClient([etcd])
    yield Janitor(client, Keys(settings.key_prefix), Landmarks())
    await client.close()


async def test_what_is_over_leaves_etcd_with_all_it_had(peer: Peer, hands: EtcdHands) -> None:
    await peer.create(lock_for_seconds=30, log_message="one")
    await peer.append("two")
    await peer.complete()
    assert await peer.state() == "SUCCEEDED"

    async def is_empty() -> bool:
        return await hands.keys() == []

    assert await soon(is_empty)
    assert (await refused(peer.get())).code == grpc.StatusCode.NOT_FOUND


async def test_a_lock_that_ran_out_leaves_etcd_after_the_retention_time(peer: Peer, hands: EtcdHands) -> None:
    await peer.propose(lock_for_seconds=2, log_message="one")
    assert await reaches(peer, "EXPIRED")

    async def is_empty() -> bool:
        return await hands.keys() == []

    assert await soon(is_empty)


async def test_pending_records_hang_on_no_lease_and_locked_ones_outlive_their_lock(
    peer: Peer, hands: EtcdHands
) -> None:
    await peer.create()
    assert await hands.ttl_of("records/") == 0
    await peer.propose(lock_for_seconds=50)
    assert await hands.ttl_of("locks/") == 50
    assert await hands.ttl_of("records/") >= 50 + RETENTION_SECONDS
    await peer.append("a step")
    assert await hands.ttl_of("records/") >= 50 + RETENTION_SECONDS
    await peer.complete()
    assert RETENTION_SECONDS <= await hands.ttl_of("records/") < 50


async def test_the_lock_of_a_cancelled_peer_is_remembered_no_longer_than_it_would_have_lasted(
    peer: Peer, hands: EtcdHands
) -> None:
    await peer.propose(lock_for_seconds=40)
    await peer.cancel()
    assert await hands.ttl_of("cancelled/") == 40


async def test_an_operation_held_for_longer_than_the_retention_time_keeps_its_first_logs(peer: Peer) -> None:
    await peer.propose(lock_for_seconds=30, log_message="first")

    async def is_later() -> bool:
        await peer.propose(lock_for_seconds=30)
        record = await peer.get()
        now = record.operation.locked_until.ToSeconds() - 30
        return now - record.locked_since.ToSeconds() > RETENTION_SECONDS + 2

    assert await soon(is_later)
    assert [log.message for log in (await peer.get()).operation.logs] == ["first"]


async def test_details_that_nobody_heard_lose_their_record_are_swept(janitor: Janitor, hands: EtcdHands) -> None:
    await hands.put(f"details/project/{NAME}#0123/log/0000000001", b"{}")
    await hands.put(f"details/project/{NAME}#0123/request", b"")
    await janitor.sweep()
    assert await hands.keys() == []


async def test_sweeping_leaves_what_has_a_record(peer: Peer, hands: EtcdHands, janitor: Janitor) -> None:
    await peer.create(log_message="requested")
    await hands.put("details/project/vm#0123/log/0000000001", b"{}")
    await hands.put(f"details/project/{NAME}#0123/log/0000000001", b"{}")
    await janitor.sweep()
    assert len(await hands.keys("details/")) == 2
    assert (await peer.get()).operation.logs[0].message == "requested"


async def test_leases_that_hold_no_lock_any_more_are_ended(peer: Peer, hands: EtcdHands, clock: TestClock) -> None:
    held = []
    for _ in range(3):
        await peer.propose(lock_for_seconds=600)
        held.append((await hands.entries("locks/"))[0].lease)
        clock.pass_seconds(5)
    assert len(set(held)) == 3

    async def has_ended(*leases: int) -> bool:
        return not any([await hands.lives(lease) for lease in leases])

    assert await soon(lambda: has_ended(*held[:2]))
    assert await hands.lives(held[2])
    await peer.complete()
    assert await soon(lambda: has_ended(*held))


async def test_records_share_leases_that_outlast_each_of_them_and_hold_a_bounded_number(
    peer: Peer, hands: EtcdHands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operation_service.shared_leases._KEYS_PER_LEASE", 4)
    for number in range(12):
        await peer.propose(f"vm/{number:02}", lock_for_seconds=2 + number % 3)
    records = await hands.entries("records/")
    by_lease = Counter(record.lease for record in records)
    assert max(by_lease.values()) <= 4
    assert len(by_lease) < len(records)
    for number in range(12):
        assert await hands.ttl_of(f"records/project/vm/{number:02}") >= 2 + number % 3 + RETENTION_SECONDS


async def test_the_details_of_a_new_operation_stay_when_news_of_an_old_record_comes_late(
    peer: Peer, hands: EtcdHands, janitor: Janitor
) -> None:
    await peer.create(log_message="requested")
    janitor.record_gone(Resource("project", NAME))
    janitor.record_gone(Resource("project", "nobody"))
    await hands.put("details/project/nobody#0123/log/0000000001", b"{}")
    working = asyncio.create_task(janitor.run())
    try:

        async def is_clean() -> bool:
            return not [key for key in await hands.keys("details/") if "nobody" in key]

        assert await soon(is_clean)
    finally:
        working.cancel()
        await asyncio.wait({working})
    assert len(await hands.keys("details/")) == 2


async def test_many_details_are_removed_some_at_a_time(
    hands: EtcdHands, janitor: Janitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operation_service.janitor._KEYS_AT_ONCE", 3)
    for number in range(1, 11):
        await hands.put(f"details/project/{NAME}#0123/log/{number:010}", b"{}")
    await janitor.sweep()
    assert await hands.keys() == []


async def test_a_sweep_finds_everything_wherever_its_reads_end(
    etcd: str, peer: Peer, hands: EtcdHands, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operation_service.janitor._KEYS_AT_ONCE", 3)
    monkeypatch.setattr("operation_service.janitor._RECORDS_AT_ONCE", 2)
    keys, landmarks, client = Keys(settings.key_prefix), Landmarks(spacing=2), EtcdClient([etcd])
    names = [f"vm/{number:02}" for number in range(20)]
    ends = [keys.record(Resource("project", name)) + end for name in names[::3] for end in (b"", b"-", b"/0")]
    landmarks.put(keys.records("", ""), sorted(ends))
    for name in names:
        await hands.put(f"details/project/{name}#0123/request", b"")
        await hands.put(f"details/project/{name}#0123/log/0000000001", b"{}")
        await hands.put(f"details/project/{name}#0123/log/0000000002", b"{}")
    await peer.create(names[0], log_message="requested")
    await peer.create(names[13], log_message="requested")
    await hands.put("details/none-of-ours", b"")
    await hands.put("details/project/\u00fc#0123/request", b"")
    kept = {"details/none-of-ours", "details/project/\u00fc#0123/request"}
    await Janitor(client, keys, landmarks).sweep()
    await client.close()
    left = set(await hands.keys("details/"))
    assert kept < left
    assert len(left - kept) == 4
    assert {key.split("#")[0] for key in left - kept} == {f"details/project/{names[0]}", f"details/project/{names[13]}"}
