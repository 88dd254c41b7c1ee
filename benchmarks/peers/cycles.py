"""Runs full cycles, lock and unlock, so many at once, and counts them as the load generator does."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass

from benchmarks.load import Outcome, percentile

Cycle = Callable[[], Awaitable[None]]
"""Takes a lock of its own, and gives it back."""


@dataclass(frozen=True, slots=True)
class CyclePlan:
    """What to lock, and for how long.

    Attributes:
        address: The server's.
        in_flight: How many cycles are under way at once, each with a lock of its own.
        seconds: How long to count.
        warm_up: How long to go on before that, in seconds.
    """

    address: str
    in_flight: int
    seconds: float
    warm_up: float


def outcome_of(took: list[float], seconds: float, cpu_seconds: float, last: int) -> Outcome:
    """Return what some cycles come to, each of which took so many seconds."""
    took.sort()
    return Outcome(
        statuses={"0": len(took)},
        seconds=seconds,
        p50_ms=percentile(took, 0.5) * 1000,
        p99_ms=percentile(took, 0.99) * 1000,
        last=last,
        cpu_seconds=cpu_seconds,
    )


async def run_cycles(plan: CyclePlan, cycles: Sequence[Cycle]) -> Outcome:
    """Repeat each cycle until the time is over; what is then under way is finished, and not counted."""
    begin = time.perf_counter()
    counted_from, counted_to = begin + plan.warm_up, begin + plan.warm_up + plan.seconds
    took: list[float] = []
    made = 0

    async def repeat(cycle: Cycle) -> None:
        nonlocal made
        now = time.perf_counter()
        while now < counted_to:
            begun = now
            await cycle()
            now = time.perf_counter()
            made += 1
            if counted_from < now <= counted_to:
                took.append(now - begun)

    async def cpu_used() -> float:
        await asyncio.sleep(plan.warm_up)
        used = time.process_time()
        await asyncio.sleep(plan.seconds)
        return time.process_time() - used

    async with asyncio.TaskGroup() as tasks:
        used = tasks.create_task(cpu_used())
        for cycle in cycles:
            tasks.create_task(repeat(cycle))
    return outcome_of(took, plan.seconds, used.result(), made)


def main(clients: Callable[[CyclePlan], AbstractAsyncContextManager[Sequence[Cycle]]]) -> None:
    """Read a plan from standard input, carry it out, and print the outcome."""

    async def run(plan: CyclePlan) -> Outcome:
        async with clients(plan) as cycles:
            return await run_cycles(plan, cycles)

    json.dump(asdict(asyncio.run(run(CyclePlan(**json.load(sys.stdin))))), sys.stdout)
