"""kazoo's lock recipe on ZooKeeper; kazoo blocks, so there is a thread for each cycle in flight."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from kazoo.client import KazooClient

from benchmarks.peers.cycles import Cycle, CyclePlan, main


def _cycle(client: KazooClient, threads: ThreadPoolExecutor, path: str) -> Cycle:
    lock = client.Lock(path)

    def lock_and_unlock() -> None:
        with lock:
            pass

    loop = asyncio.get_running_loop()

    async def cycle() -> None:
        await loop.run_in_executor(threads, lock_and_unlock)

    return cycle


@contextlib.asynccontextmanager
async def clients(plan: CyclePlan) -> AsyncIterator[Sequence[Cycle]]:
    """Connect: one session."""
    client = KazooClient(hosts=plan.address)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, partial(client.start, timeout=20))
    with ThreadPoolExecutor(plan.in_flight) as threads:
        yield [_cycle(client, threads, f"/bench-lock-{place}") for place in range(plan.in_flight)]
    client.stop()
    client.close()


if __name__ == "__main__":
    main(clients)
