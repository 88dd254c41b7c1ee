"""What is there before anything is measured: held locks, and long logs."""

from benchmarks import requests
from benchmarks.bench import Bench, check
from benchmarks.children import run_load
from benchmarks.load import Plan
from benchmarks.requests import NUMBERED, SERVICE, place
from benchmarks.scenarios import LOGGED, PLACES

HELD = "held"
"""The project of the locks that are only held."""
_AT_ONCE = 64


async def _make(bench: Bench, rpc: str, calls: list[str], count: int, first: int = 0) -> None:
    plan = Plan(bench.service.address, SERVICE + rpc, calls, in_flight=_AT_ONCE, limit=count, first=first)
    check(f"making what is measured, {rpc}", await run_load(plan))


async def hold(bench: Bench, first: int, count: int) -> None:
    """Take locks for a day, with numbers from `first` on."""
    await _make(bench, "ProposeOperation", [requests.propose(HELD, NUMBERED)], count, first)


async def prepare_places(bench: Bench, in_flight: int, entries: int) -> None:
    """Take a lock for each call in flight, and one with some log entries, or some more."""
    for project in (PLACES, LOGGED):
        locks = [requests.propose(project, place(number)) for number in range(in_flight)]
        plan = Plan(bench.service.address, SERVICE + "ProposeOperation", locks, in_flight=in_flight, limit=in_flight)
        check("making what is measured", await run_load(plan))
    if not entries:
        return
    logs = [requests.append(LOGGED, place(number)) for number in range(in_flight)]
    plan = Plan(
        bench.service.address,
        SERVICE + "AppendOperationLog",
        logs,
        in_flight=in_flight,
        limit=in_flight * entries,
    )
    check("making long logs", await run_load(plan))
