"""The number of the layout: no version changes, or tells of, what a newer one has laid out."""

import asyncio

import pytest
from e2e.support_e2e import until_health
from etcd_hands import EtcdHands
from links import Mode, linked
from stores import a_store
from support import NAME, PROJECT, Peer, TestClock, connected, refused
from waiting import reaches, soon

from operation_service.break_lock import lock_breaker
from operation_service.clock import Deadline
from operation_service.commits import Attempt, Committed
from operation_service.delivery import Delivery
from operation_service.errors import LayoutError, StoreUnavailableError
from operation_service.etcd_client import EtcdClient
from operation_service.health import Health, HealthMonitor
from operation_service.keys import Keys
from operation_service.layout import Layout
from operation_service.model import Append, Caller, Resource, Snapshot
from operation_service.operations import Operations
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
    # The service goes on once the number is back.
    await hands.put("layout", b"1")
    assert await reaches(peer, "EXPIRED", "vm/ends")
    await peer.propose("vm/ends", lock_for_seconds=2)
    assert peer.fencing_token is not None
    assert fence is not None
    assert peer.fencing_token > fence


async def test_a_newer_layout_is_not_read_either(peer: Peer, hands: EtcdHands, address: str) -> None:
    """From its revision on, and in whichever way; what is there may mean something else."""
    for number in range(3):
        await peer.propose(f"vm/{number}", lock_for_seconds=600, log_message="first")
        await peer.append("second", f"vm/{number}")
    page = (await peer.list(project=PROJECT, page_size=1)).next_page_token
    log_page = (await peer.logs("vm/0", page_size=1)).next_page_token
    standing = [await peer.watching(project=PROJECT), await peer.watching(start_revision=await hands.revision() + 1)]
    for _ in range(3):
        await standing[0].read()

    await hands.put("layout", b"2")
    reads = [
        *(peer.get("vm/0"), peer.get("vm/of-nobody"), peer.list(), peer.logs("vm/0")),
        *(peer.list(project=PROJECT, page_token=page), peer.logs("vm/0", page_token=log_page)),
        *(peer.watch().read(), peer.watch(start_revision=await hands.revision()).read()),
        # Nor are the rules applied to what is there.
        *(peer.named("other").propose("vm/0"), peer.named("other").append("third", "vm/0")),
        # Whether they go alone or together.
        *(peer.get(f"vm/{number % 3}") for number in range(20)),
        *(watch.read() for watch in standing),
    ]
    refusals = await asyncio.gather(*map(refused, reads))
    assert {(refusal.code.name, refusal.reason) for refusal in refusals} == {("UNAVAILABLE", "ETCD_UNAVAILABLE")}
    assert all("newer version" in refusal.message for refusal in refusals)
    await until_health(address, "NOT_SERVING")
    for call in (peer.get("vm/0"), peer.watch().read()):
        assert "newer version" in (await refused(call)).message

    await hands.put("layout", b"1")
    assert (await peer.get("vm/0")).operation.logs
    assert len((await peer.list()).operations) == 3
    assert len((await peer.list(project=PROJECT, page_token=page)).operations) == 2
    assert len((await peer.logs("vm/0", page_token=log_page)).logs) == 1
    watch = await peer.watching()
    await peer.propose("vm/3")
    assert [(await watch.read()).operation.name for _ in range(4)] == ["vm/0", "vm/1", "vm/2", "vm/3"]
    await until_health(address, "SERVING")


async def test_what_happened_under_another_layout_is_never_told(peer: Peer, hands: EtcdHands) -> None:
    await peer.propose("vm/a", lock_for_seconds=600)
    before = await hands.revision()
    await peer.propose("vm/b", lock_for_seconds=600)
    await hands.put("layout", b"2")
    # What looks like the end of a lock, and may be none.
    await hands.delete(f"locks/{PROJECT}/vm/a")
    between = await hands.revision()
    await hands.put("layout", b"1")
    back = await hands.revision()

    await peer.propose("vm/c", lock_for_seconds=600)
    whole = peer.watch(start_revision=before + 1)
    assert (await whole.read()).operation.name == "vm/b"
    for watch in (whole, peer.watch(start_revision=between), peer.watch(start_revision=between + 1)):
        refusal = await refused(watch.read())
        assert (refusal.code.name, refusal.reason) == ("OUT_OF_RANGE", "REVISION_COMPACTED")
        assert "by another version of the service" in refusal.message
        assert refusal.metadata["compact_revision"] == str(back)
    resumed = peer.watch(start_revision=back + 1)
    assert (await resumed.read()).operation.name == "vm/c"

    # Also by the one watch of etcd for all, which has begun anew behind it.
    async def is_heard() -> bool:
        watch = await peer.watching(start_revision=await hands.revision() + 1)
        await peer.propose("vm/d", lock_for_seconds=600)
        return str((await watch.read()).operation.name) == "vm/d"

    assert await soon(is_heard)


async def test_the_same_number_written_again_is_no_news(peer: Peer, hands: EtcdHands) -> None:
    watch = await peer.watching()
    before = await hands.revision()
    await peer.propose("vm/a")
    await hands.put("layout", b"1")
    await hands.delete("layout")
    await peer.propose("vm/b")
    for each in (watch, peer.watch(start_revision=before + 1)):
        assert [(await each.read()).operation.name for _ in range(2)] == ["vm/a", "vm/b"]
    await hands.delete("layout")
    assert await peer.state("vm/b") == "LOCKED"


async def test_a_change_whose_answer_was_lost_is_not_said_to_be_unmade_under_a_newer_layout(
    peer: Peer, etcd: str, settings: Settings, hands: EtcdHands
) -> None:
    await peer.propose(lock_for_seconds=600)
    clock, keys, client = TestClock(), Keys(settings.key_prefix), EtcdClient([etcd])
    store = a_store(client, keys, clock)

    async def loses_its_answer(attempt: Attempt, deadline: Deadline) -> Committed | Snapshot:
        assert isinstance(await made(attempt, deadline), Committed)
        await hands.put("layout", b"2")
        raise StoreUnavailableError("lost", is_outcome_unknown=True)

    resource = Resource(PROJECT, NAME)
    operations, command = Operations(store, clock), Append(resource, Caller("peer-a", "here", None), "made")
    # A first one, so that the next rests on what is believed and comes as far as the commit at once.
    await operations.change(command, Deadline(10))
    made, store.commit = store.commit, loses_its_answer  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailableError, match="newer version") as caught:
        await operations.change(command, Deadline(10))
    assert caught.value.is_outcome_unknown
    await client.close()


async def test_the_layout_stays_wrong_until_it_was_found_right(
    etcd: str, settings: Settings, hands: EtcdHands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operation_service.health._PATIENCE_SECONDS", 0.5)
    async with linked(etcd) as link:
        client = EtcdClient([link.url])
        monitor = HealthMonitor(Layout(client, Keys(settings.key_prefix)), Health(Delivery()), ("",))
        await hands.put("layout", b"2")
        await monitor.ask()
        assert monitor.wrong_layout is not None
        link.become(Mode.HOLD)
        asking = asyncio.create_task(monitor.ask())
        await asyncio.sleep(0)
        assert monitor.wrong_layout is not None
        await asking
        assert monitor.wrong_layout is not None
        link.become(Mode.PASS)
        await hands.put("layout", b"1")

        async def is_right() -> bool:
            await monitor.ask()
            return monitor.wrong_layout is None and monitor.is_healthy

        assert await soon(is_right)
        await client.close()


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
