"""ListOperations: filters, order, pages that are one snapshot."""

import asyncio

import grpc
import pytest
from etcd3.etcdrpc import TxnRequest, TxnResponse
from etcd_hands import EtcdHands
from support import PROJECT, Peer, connected, event_name, refused, shutdown_request, state_name

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.clock import Deadline
from operation_service.etcd_client import EtcdClient
from operation_service.server import running
from operation_service.settings import Settings


def names(page: pb.ListOperationsResponse) -> list[str]:
    return [f"{record.project}/{record.name}" for record in page.operations]


async def test_an_empty_service_lists_nothing(peer: Peer) -> None:
    page = await peer.list()
    assert (names(page), page.next_page_token) == ([], "")


async def test_filters_by_project_prefix_and_state(peer: Peer, hands: EtcdHands) -> None:
    await peer.create("vm/a")
    await peer.propose("vm/b")
    await peer.propose("net/c", is_disabled_cancel=True)
    await hands.let_lock_run_out("net/c")
    await peer.propose("vm/d", project="other")
    await peer.complete("vm/d", project="other")

    assert names(await peer.list()) == ["other/vm/d", "project/net/c", "project/vm/a", "project/vm/b"]
    assert names(await peer.list(project="other")) == ["other/vm/d"]
    assert names(await peer.list(project=PROJECT, name_prefix="vm/")) == ["project/vm/a", "project/vm/b"]
    assert names(await peer.list(name_prefix="vm/")) == ["other/vm/d", "project/vm/a", "project/vm/b"]
    assert names(await peer.list(states=["OPERATION_STATE_OPERATOR_DEAD"])) == ["project/net/c"]
    assert names(await peer.list(states=["OPERATION_STATE_PENDING", "OPERATION_STATE_SUCCEEDED"])) == [
        "other/vm/d",
        "project/vm/a",
    ]
    assert names(await peer.list(project="nobody")) == []


async def test_what_is_listed_is_what_get_answers(peer: Peer) -> None:
    await peer.create("a", log_message="requested", lock_for_seconds=30)
    await peer.append("a step", "a")
    (listed,) = (await peer.list()).operations
    got = await peer.get("a")
    assert listed.operation.operation_request == shutdown_request()
    listed.remaining.CopyFrom(got.remaining)
    assert listed == got


async def test_a_project_that_is_the_beginning_of_another_is_listed_alone(peer: Peer) -> None:
    await peer.propose("a", project="prod")
    await peer.propose("a", project="prod-2")
    assert names(await peer.list(project="prod")) == ["prod/a"]


async def test_pages_are_of_the_size_asked_for_and_cover_everything_once(peer: Peer) -> None:
    await asyncio.gather(*(peer.propose(f"vm/{number:03}") for number in range(25)))
    told, token, sizes = [], "", []
    while True:
        page = await peer.list(page_size=10, page_token=token)
        told += names(page)
        sizes.append(len(page.operations))
        if not (token := page.next_page_token):
            break
    assert told == [f"project/vm/{number:03}" for number in range(25)]
    assert sizes == [10, 10, 5]


async def test_a_last_page_that_is_full_is_not_followed_by_an_empty_one(peer: Peer) -> None:
    for number in range(4):
        await peer.propose(f"vm/{number}")
    first = await peer.list(page_size=2)
    second = await peer.list(page_size=2, page_token=first.next_page_token)
    assert second.next_page_token == ""
    by_state = await peer.list(page_size=4, states=["OPERATION_STATE_LOCKED"])
    assert by_state.next_page_token == ""


async def test_the_pages_of_one_listing_are_one_snapshot(peer: Peer) -> None:
    for number in range(4):
        await peer.propose(f"vm/{number}")
    first = await peer.list(page_size=2)
    await peer.complete("vm/3")
    await peer.propose("vm/9")
    second = await peer.list(page_size=2, page_token=first.next_page_token)
    assert names(second) == ["project/vm/2", "project/vm/3"]
    assert [state_name(record.state) for record in second.operations] == ["LOCKED", "LOCKED"]


async def test_pages_by_state_find_few_among_many(peer: Peer) -> None:
    await asyncio.gather(*(peer.propose(f"vm/{number:03}") for number in range(40)))
    for number in (3, 17, 39):
        await peer.complete(f"vm/{number:03}")
    done = ["OPERATION_STATE_SUCCEEDED"]
    first = await peer.list(page_size=2, states=done)
    second = await peer.list(page_size=2, states=done, page_token=first.next_page_token)
    assert names(first) + names(second) == ["project/vm/003", "project/vm/017", "project/vm/039"]
    assert second.next_page_token == ""


async def test_a_page_of_large_operations_ends_early_and_goes_on(peer: Peer) -> None:
    request = shutdown_request()
    request.value = b"x" * 250_000
    for number in range(20):
        await peer.create(f"vm/{number:02}", operation_request=request)
    told, token = [], ""
    while True:
        page = await peer.list(page_size=1000, page_token=token)
        assert page.ByteSize() < 4 * 1024 * 1024
        told += names(page)
        if not (token := page.next_page_token):
            break
    assert told == [f"project/vm/{number:02}" for number in range(20)]


async def test_page_size_beyond_1000_is_taken_as_1000_and_0_as_100(peer: Peer) -> None:
    for some in range(0, 1010, 101):
        await asyncio.gather(*(peer.create(f"vm/{number:04}") for number in range(some, some + 101)))
    assert len((await peer.list()).operations) == 100
    assert len((await peer.list(page_size=2**31 - 1)).operations) == 1000


async def test_a_page_token_goes_on_with_its_own_query_only(peer: Peer) -> None:
    for number in range(3):
        await peer.propose(f"vm/{number}")
    token = (await peer.list(page_size=1)).next_page_token
    for query in ({"project": PROJECT}, {"name_prefix": "vm"}, {"states": ["OPERATION_STATE_LOCKED"]}):
        refusal = await refused(peer.list(page_size=1, page_token=token, **query))
        assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
        assert list(refusal.violations) == ["page_token"]


async def test_a_listing_whose_moment_is_compacted_says_so(peer: Peer, hands: EtcdHands) -> None:
    for number in range(3):
        await peer.propose(f"vm/{number}")
    token = (await peer.list(page_size=1)).next_page_token
    await peer.propose("vm/9")
    await hands.compact()
    refusal = await refused(peer.list(page_size=1, page_token=token))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "PAGE_TOKEN_EXPIRED")


async def test_what_was_spoilt_by_hand_hides_nothing_else_and_ends_no_listing(
    peer: Peer, hands: EtcdHands, etcd: str, settings: Settings
) -> None:
    for name in ("vm/a", "vm/b", "vm/c", "vm/d"):
        await peer.propose(name, log_message="one")
    await hands.put(f"records/{PROJECT}/vm/b", b"not json")
    await peer.create("vm/e", operation_request=shutdown_request())
    (request,) = [key for key in await hands.keys("details/") if "vm/e" in key]
    (log,) = [key for key in await hands.keys("details/") if "vm/d" in key]
    await hands.put(log, b"not json")
    await hands.put(request, b"\xff")
    told, token = [], ""
    for _ in range(5):
        page = await peer.list(page_size=1, page_token=token)
        told += names(page)
        if not (token := page.next_page_token):
            break
    assert (told, token) == (["project/vm/a", "project/vm/c", "project/vm/d"], "")
    assert (await refused(peer.get("vm/b"))).reason == "CORRUPT_RECORD"
    # Of details that it has written itself a replica knows what they were: they are never changed.
    assert (await peer.get("vm/d")).operation.logs[0].message == "one"
    async with running(settings, [etcd]) as service, connected(service.address) as other:
        assert (await refused(other.get("vm/e"))).reason == "CORRUPT_RECORD"
        assert "cannot be read" in (await other.get("vm/d")).operation.logs[0].message
    assert "cannot be read" in (await peer.logs("vm/d")).logs[0].message
    watch = peer.watch()
    assert [(await watch.read()).operation.name for _ in range(3)] == ["vm/a", "vm/c", "vm/d"]
    await peer.append("a change is made all the same", "vm/d")
    assert event_name((await watch.read()).event) == "LOGGED"


async def test_locks_whose_records_were_deleted_by_hand_hide_no_others(peer: Peer, hands: EtcdHands) -> None:
    for number in range(8):
        await peer.propose(f"vm/{number}")
    for number in range(4):
        await hands.delete(f"records/{PROJECT}/vm/{number}")
    page = await peer.list(page_size=2)
    assert names(page) == ["project/vm/4", "project/vm/5"]
    assert [state_name(record.state) for record in page.operations] == ["LOCKED", "LOCKED"]


async def test_a_short_deadline_does_not_cut_pages_that_are_read_in_time(peer: Peer) -> None:
    for number in range(10):
        await peer.propose(f"vm/{number}")
    peer.timeout = 3
    assert len((await peer.list()).operations) == 10


async def test_a_prefix_over_all_projects_finds_few_among_many_in_few_reads(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.gather(*(peer.create(f"vm/{number:03}") for number in range(300)))
    await peer.create("zz")
    reads = []
    read = EtcdClient.read

    async def counted(client: EtcdClient, request: TxnRequest, deadline: Deadline) -> TxnResponse:
        reads.append(request)
        return await read(client, request, deadline)

    monkeypatch.setattr(EtcdClient, "read", counted)
    assert names(await peer.list(name_prefix="zz", page_size=1)) == ["project/zz"]
    assert len(reads) < 5


async def test_keys_that_are_none_of_the_services_are_left_out(peer: Peer, hands: EtcdHands) -> None:
    await peer.propose("vm/a")
    for foreign in ("records/foo", "records/zzz", "locks/foo", "records/\u00e4/b"):
        await hands.put(foreign, b"{}")
    assert names(await peer.list()) == ["project/vm/a"]
    assert names(await peer.list(page_size=1)) == ["project/vm/a"]
    assert (await peer.watch().read()).operation.name == "vm/a"
