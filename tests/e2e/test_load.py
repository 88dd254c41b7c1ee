"""Ten times what it can serve, ten thousand connections, a thousand watches: the real process holds them."""

import asyncio
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.support_e2e import Serve, Server, health, run
from idle_connections import idle_connections
from support import Peer, connected, event_name

FLOOD = Path(__file__).with_name("flood.py")
LIMIT = 128
PROCESSES = 2
CONNECTIONS = 10_000
MIB = 1024


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """This process holds as many connections as the service."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CONNECTIONS + 500:
        pytest.skip(f"only {hard} files may be open here (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory(server: Server, what: str) -> int:
    """KiB that the process has (VmRSS), or has had at most (VmHWM)."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0])


async def healths(address: str, until: asyncio.Event) -> Counter[str]:
    """Ask for the health all the time; a call that takes 5 s fails."""
    seen: Counter[str] = Counter()
    while not until.is_set():
        seen[await health(address)] += 1
        await asyncio.sleep(0.05)
    return seen


async def test_at_ten_times_what_it_takes_on_it_refuses_the_rest_and_is_well_again_within_5_seconds(
    serve: Serve,
) -> None:
    server = await serve("--max-calls-in-flight", str(LIMIT))
    over = asyncio.Event()
    asking = asyncio.create_task(healths(server.address, over))
    calls = str(10 * LIMIT // PROCESSES)
    floods = await asyncio.gather(
        *(run(sys.executable, FLOOD, server.address, "5", calls, f"process-{n}") for n in range(PROCESSES))
    )
    end = time.monotonic()
    over.set()

    async with connected(server.address) as peer:
        for number in range(20):
            await peer.propose(f"afterwards/{number}")
        assert time.monotonic() - end < 5

        assert all(each.code == 0 for each in floods), floods
        told = [json.loads(each.out) for each in floods]
        outcomes: Counter[str] = sum((Counter(each["outcomes"]) for each in told), Counter())
        assert set(outcomes) == {"OK", "RESOURCE_EXHAUSTED OVERLOADED"}
        # What was refused changed nothing; what was answered OK is there.
        assert await count(peer, "flood") == outcomes["OK"]
    assert max(each["seconds_of_ok"]["p99"] for each in told) < 10
    seen = await asking
    assert set(seen) == {"SERVING"}
    assert memory(server, "VmHWM") < 400 * MIB


async def count(peer: Peer, project: str) -> int:
    """How many operations a project has."""
    found, token = 0, ""
    while True:
        page = await peer.list(project=project, page_size=1000, page_token=token)
        found += len(page.operations)
        if not (token := page.next_page_token):
            return found


async def test_ten_thousand_connections_and_a_thousand_watches_are_held(serve: Serve) -> None:
    server = await serve()
    async with connected(server.address) as peer, idle_connections(server.address, CONNECTIONS) as held:
        peer.timeout = 50
        watches = []
        for _ in range(10):
            watches += await asyncio.gather(*(peer.watching() for _ in range(100)))
        await peer.propose()
        events = await asyncio.gather(*(watch.read() for watch in watches))
        assert Counter(event_name(each.event) for each in events) == {"LOCKED": 1_000}
        assert all(connection.is_open for connection in held)
        assert await health(server.address) == "SERVING"
        assert memory(server, "VmRSS") < 500 * MIB
