"""The calls that are measured: how fast the parts below can be, and what the service makes of them."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from benchmarks import requests
from benchmarks.bench import FAILED_PRECONDITION, Bench, Spot
from benchmarks.figures import Figure
from benchmarks.load import Plan
from benchmarks.requests import HEALTH, NUMBERED, OTHER, SERVICE, TXN, place

HEALTH_CHECK = "ceiling: Health/Check"
ETCD_TXN = "ceiling: etcd, two puts"
CEILINGS = (HEALTH_CHECK, ETCD_TXN)

ACQUIRED, PLACES, LOGGED = "acquired", "places", "logged"
"""Projects: of locks that are taken and completed; with a lock for each call in flight, and the same with long logs."""

Scenario = Callable[[Bench, Spot], AsyncIterator[Figure]]


async def health_check(bench: Bench, spot: Spot) -> AsyncIterator[Figure]:
    """Do as little as a gRPC server in Python can."""
    plan = bench.timed(bench.service.address, HEALTH, [requests.health()], spot)
    yield (await bench.measure(HEALTH_CHECK, plan, spot))[0]


async def etcd_txn(bench: Bench, spot: Spot) -> AsyncIterator[Figure]:
    """Do as little as an acquisition has to, without the service."""
    plan = bench.timed(bench.etcd.address, TXN, [requests.two_puts()], spot)
    yield (await bench.measure(ETCD_TXN, plan, spot, server=bench.etcd))[0]


async def life_of_locks(bench: Bench, spot: Spot) -> AsyncIterator[Figure]:
    """Take locks, as many as there is time for; write a line of log to each of them; complete them all."""
    first = bench.numbers.next
    path = SERVICE + "ProposeOperation"
    plan = bench.timed(bench.service.address, path, [requests.propose(ACQUIRED, NUMBERED)], spot)
    acquired, outcome = await bench.measure("acquire", _from(plan, first), spot)
    bench.numbers.next = outcome.last
    yield acquired
    count = outcome.last - first
    path = SERVICE + "AppendOperationLog"
    plan = bench.timed(bench.service.address, path, [requests.append(ACQUIRED, NUMBERED)], spot)
    yield (await bench.measure("append", _from(plan, first, count, is_timed=False), spot))[0]
    path = SERVICE + "CompleteOperation"
    plan = bench.timed(bench.service.address, path, [requests.complete(ACQUIRED, NUMBERED)], spot)
    yield (await bench.measure("complete", _from(plan, first, count, is_timed=False), spot))[0]


def _from(plan: Plan, first: int, limit: int = 0, *, is_timed: bool = True) -> Plan:
    if is_timed:
        return replace(plan, first=first, limit=limit)
    return replace(plan, first=first, limit=limit, seconds=0.0, warm_up=0.0)


async def at_places(bench: Bench, spot: Spot) -> AsyncIterator[Figure]:
    """Renew locks, try to take them from their holder, and look at them: a lock for each call in flight."""
    mine = [requests.propose(PLACES, place(number), log_message="") for number in range(spot.in_flight)]
    plan = bench.timed(bench.service.address, SERVICE + "ProposeOperation", mine, spot)
    yield (await bench.measure("renew", plan, spot))[0]
    theirs = [requests.propose(PLACES, place(number), OTHER) for number in range(spot.in_flight)]
    plan = replace(plan, requests=theirs)
    yield (await bench.measure("refused proposal", plan, spot, expected=FAILED_PRECONDITION))[0]
    yield await _get(bench, spot, PLACES)


async def at_long_logs(bench: Bench, spot: Spot) -> AsyncIterator[Figure]:
    """Renew, write another line of log, and look, where the log is long already."""
    renewals = [requests.propose(LOGGED, place(number), log_message="") for number in range(spot.in_flight)]
    appends = [requests.append(LOGGED, place(number)) for number in range(spot.in_flight)]
    for name, rpc, calls in (("renew", "ProposeOperation", renewals), ("append", "AppendOperationLog", appends)):
        plan = bench.timed(bench.service.address, SERVICE + rpc, calls, spot)
        yield (await bench.measure(name, plan, spot))[0]
    yield await _get(bench, spot, LOGGED)


async def _get(bench: Bench, spot: Spot, project: str) -> Figure:
    calls = [requests.get(project, place(number)) for number in range(spot.in_flight)]
    plan = bench.timed(bench.service.address, SERVICE + "GetOperation", calls, spot)
    return (await bench.measure("get", plan, spot))[0]
