"""Advisory locks of PostgreSQL, with a connection for each cycle in flight: they belong to the session."""

import contextlib
from collections.abc import AsyncIterator, Sequence

from psycopg import AsyncConnection

from benchmarks.peers.cycles import Cycle, CyclePlan, main


def _cycle(connection: AsyncConnection, number: int) -> Cycle:
    async def cycle() -> None:
        await connection.execute("SELECT pg_advisory_lock(%s)", (number,))
        await connection.execute("SELECT pg_advisory_unlock(%s)", (number,))

    return cycle


@contextlib.asynccontextmanager
async def clients(plan: CyclePlan) -> AsyncIterator[Sequence[Cycle]]:
    """Connect."""
    async with contextlib.AsyncExitStack() as stack:
        cycles = []
        for place in range(plan.in_flight):
            connection = await AsyncConnection.connect(plan.address, autocommit=True)
            await stack.enter_async_context(connection)
            cycles.append(_cycle(connection, place))
        yield cycles


if __name__ == "__main__":
    main(clients)
