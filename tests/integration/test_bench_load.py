"""The benchmark's clients really do what they count."""

import grpc
import pytest
from etcd3 import etcdrpc
from support import Peer

from benchmarks import requests
from benchmarks.bench import OK, UnexpectedStatusError, check
from benchmarks.children import ChildError, run_child, run_load
from benchmarks.load import Outcome, Plan
from benchmarks.peers.cycles import CyclePlan
from benchmarks.peers.ours import PROJECT
from benchmarks.requests import NUMBERED, OTHER, SERVICE, TXN
from benchmarks.watchers import Watched, WatchPlan
from n0stack.operation.v1alpha import operation_service_pb2 as pb

LOCKED, SUCCEEDED = pb.OPERATION_STATE_LOCKED, pb.OPERATION_STATE_SUCCEEDED


def proposals(address: str, count: int, token: str = requests.HOLDER) -> Plan:
    request = requests.propose("bench", NUMBERED, token)
    return Plan(address, SERVICE + "ProposeOperation", [request], in_flight=8, limit=count, first=100)


async def test_as_many_locks_are_taken_as_calls_are_counted(address: str, peer: Peer) -> None:
    outcome = await run_load(proposals(address, 50))
    assert (outcome.statuses, outcome.last) == ({OK: 50}, 150)
    page = await peer.list(project="bench", states=[LOCKED])
    assert [record.name for record in page.operations] == [f"locks/{number:010}" for number in range(100, 150)]


async def test_a_refusal_is_counted_as_one(address: str) -> None:
    await run_load(proposals(address, 20))
    outcome = await run_load(proposals(address, 20, OTHER))
    assert outcome.statuses == {"9": 20}
    with pytest.raises(UnexpectedStatusError):
        check("acquire", outcome)


async def test_etcd_itself_is_counted_too(etcd: str) -> None:
    plan = Plan(etcd.removeprefix("http://"), TXN, [requests.two_puts()], in_flight=4, limit=20)
    assert (await run_load(plan)).statuses == {OK: 20}
    assert await count_of(etcd, b"/bench/") == 40


async def count_of(etcd: str, prefix: bytes) -> int:
    async with grpc.aio.insecure_channel(etcd.removeprefix("http://")) as channel:
        kv = etcdrpc.KVStub(channel)  # type: ignore[no-untyped-call]
        request = etcdrpc.RangeRequest(key=prefix, range_end=prefix + b"\xff", count_only=True)
        return int((await kv.Range(request)).count)


async def test_cycles_of_the_service_leave_no_lock_behind(address: str, peer: Peer) -> None:
    outcome = Outcome(**await run_child("benchmarks.peers.ours", CyclePlan(address, 4, seconds=0.3, warm_up=0.0)))
    assert outcome.operations > 0
    states = [record.state for record in (await peer.list(project=PROJECT)).operations]
    assert states == [SUCCEEDED] * 4


async def test_cycles_of_etcds_own_locks_leave_no_lock_behind(etcd: str) -> None:
    plan = CyclePlan(etcd.removeprefix("http://"), 4, seconds=0.3, warm_up=0.0)
    outcome = Outcome(**await run_child("benchmarks.peers.etcd_v3lock", plan))
    assert outcome.operations > 0
    assert await count_of(etcd, b"bench-lock-") == 0


async def test_each_watcher_is_told_of_each_change(address: str) -> None:
    plan = WatchPlan(address, watchers=3, in_flight=2, seconds=0.3, warm_up=0.0)
    watched = Watched(**await run_child("benchmarks.watchers", plan))
    assert 0 < watched.delivered <= 3 * watched.changes
    assert watched.p50_ms > 0


async def test_a_client_that_fails_says_so() -> None:
    with pytest.raises(ChildError, match="Connection refused"):
        await run_load(proposals("127.0.0.1:1", 1))
