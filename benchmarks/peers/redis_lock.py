"""The lock of the client library for Redis: SET NX with a timeout, and a script that deletes it."""

import contextlib
from collections.abc import AsyncIterator, Sequence

from redis.asyncio import Redis

from benchmarks.peers.cycles import Cycle, CyclePlan, main

_TIMEOUT_SECONDS = 30


def _cycle(redis: Redis, name: str) -> Cycle:
    lock = redis.lock(name, timeout=_TIMEOUT_SECONDS)

    async def cycle() -> None:
        if not await lock.acquire():
            raise RuntimeError(f"{name} was not locked")
        await lock.release()

    return cycle


@contextlib.asynccontextmanager
async def clients(plan: CyclePlan) -> AsyncIterator[Sequence[Cycle]]:
    """Connect; the pool has a connection for each cycle in flight."""
    host, _, port = plan.address.rpartition(":")
    async with Redis(host=host, port=int(port)) as redis:
        yield [_cycle(redis, f"bench-lock-{place}") for place in range(plan.in_flight)]


if __name__ == "__main__":
    main(clients)
