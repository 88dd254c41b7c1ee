"""The blocking client in a process of its own, which is stopped, killed, forked, and ends in every other way."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.support_e2e import Serve, Server, environment, is_frozen, until, until_true
from ports import a_port
from support import NAME, PROJECT, Peer, connected

HELD = f"""
import os, sys, threading, time
from operation_service.client import AsyncClient, Client, LockLostError
client = Client(sys.argv[1])

def say(*words):
    print(*words, flush=True)

def hold(**more):
    return client.hold({PROJECT!r}, {NAME!r}, **more)
"""


@dataclass
class Script:
    """A program that holds, and says how it is."""

    process: asyncio.subprocess.Process

    async def line(self) -> str:
        """What it says next; empty at its end."""
        assert self.process.stdout
        async with asyncio.timeout(30):
            return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def rest(self) -> list[str]:
        """Everything else that it says, to its end."""
        lines = []
        while line := await self.line():
            lines.append(line)
        return lines

    async def go_on(self) -> None:
        """Answer what it waits for."""
        assert self.process.stdin
        self.process.stdin.write(b"\n")
        await self.process.stdin.drain()

    async def code(self) -> int:
        """How it ended."""
        async with asyncio.timeout(30):
            return await self.process.wait()


StartScript = Callable[[str], Awaitable[Script]]


@pytest.fixture
def in_etcd(etcd: str, tmp_path: Path) -> tuple[str, ...]:
    """The flags for keys of the test's own."""
    return ("--etcd-endpoints", etcd, "--key-prefix", f"/test{tmp_path}/")


@pytest.fixture
async def server(serve: Serve, in_etcd: tuple[str, ...]) -> Server:
    """A service."""
    return await serve(*in_etcd, "--listen", f"127.0.0.1:{a_port()}")


@pytest.fixture
async def other(server: Server) -> AsyncIterator[Peer]:
    """Another peer of it."""
    async with connected(server.address) as peer:
        yield peer


@pytest.fixture
async def start(server: Server) -> AsyncIterator[StartScript]:
    """Start scripts; they are ended with the test."""
    started: list[asyncio.subprocess.Process] = []

    async def begin(body: str) -> Script:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "ignore::DeprecationWarning", "-c", HELD + body, server.address),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment(),
        )
        started.append(process)
        return Script(process)

    yield begin
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until_state(peer: Peer, state: str) -> None:
    async def is_so() -> bool:
        return await peer.state() == state

    await until(is_so)


async def test_a_process_that_was_asleep_past_its_deadline_knows_before_it_does_anything(
    start: StartScript, other: Peer
) -> None:
    script = await start("""
with hold(lock_for=2) as operation:
    say("held")
    sys.stdin.readline()
    try:
        operation.fencing_token
    except LockLostError as error:
        say(error.loss.name, operation.lost.is_set())
""")
    assert await script.line() == "held"
    script.process.send_signal(signal.SIGSTOP)
    await until_true(lambda: is_frozen(script.process.pid))
    await until_state(other, "EXPIRED")
    # It finds the line as soon as it runs again, and asks for its token.
    await script.go_on()
    script.process.send_signal(signal.SIGCONT)
    assert await script.line() == "RAN_OUT True"
    # Nobody caught what the block's end raised.
    assert await script.code() == 1
    assert await other.state() == "EXPIRED"


async def test_a_crash_leaves_the_lock_until_its_deadline(start: StartScript, other: Peer) -> None:
    script = await start("""
with hold(lock_for=4, disable_cancel=True) as operation:
    say("held")
    time.sleep(100)
""")
    assert await script.line() == "held"
    script.process.kill()
    await script.code()
    assert await other.state() == "LOCKED"
    await until_state(other, "OPERATOR_DEAD")


@pytest.mark.parametrize(
    ("end", "state", "code"),
    [
        ("sys.exit(0)", "SUCCEEDED", 0),
        ("sys.exit(3)", "FAILED", 3),
        ("raise ValueError", "FAILED", 1),
        ("raise KeyboardInterrupt", "FAILED", -signal.SIGINT),
    ],
)
async def test_an_ordinary_exit_leaves_no_lock_behind(
    end: str, state: str, code: int, start: StartScript, other: Peer
) -> None:
    script = await start(f"""
with hold(lock_for=600) as operation:
    {end}
""")
    assert await script.code() == code
    assert await other.state() == state


@pytest.mark.parametrize(
    "way",
    [
        "threading.Thread(target=work, daemon=True).start(); held.wait()",
        "operation = hold(lock_for=600).__enter__()",
    ],
    ids=["a daemon thread in its block", "a block that was never left"],
)
async def test_the_end_of_the_main_thread_leaves_no_lock_behind(way: str, start: StartScript, other: Peer) -> None:
    script = await start(f"""
held = threading.Event()
def work():
    with hold(lock_for=600) as operation:
        held.set()
        time.sleep(100)
{way}
""")
    assert await script.code() == 0
    record = await other.get()
    assert await other.state() == "FAILED"
    assert "let go" in record.error.message


async def test_an_interrupt_gives_the_lock_back(start: StartScript, other: Peer) -> None:
    script = await start("""
try:
    with hold(lock_for=600) as operation:
        say("held")
        while True:
            time.sleep(0.1)  # Python forgets a signal that comes just before a sleep until the sleep is over
except KeyboardInterrupt:
    say("interrupted")
""")
    assert await script.line() == "held"
    script.process.send_signal(signal.SIGINT)
    assert await script.line() == "interrupted"
    assert await script.code() == 0
    assert await other.state() == "FAILED"


async def test_an_interrupt_while_waiting_takes_no_lock(start: StartScript, other: Peer) -> None:
    await other.propose(lock_for_seconds=600)
    script = await start("""
say("waiting")
try:
    with hold(wait=None) as operation:
        say("held")
except KeyboardInterrupt:
    say("interrupted")
""")
    assert await script.line() == "waiting"
    await asyncio.sleep(0.5)  # for it to be deep in its wait; any other moment is as good
    script.process.send_signal(signal.SIGINT)
    assert await script.line() == "interrupted"
    assert await script.code() == 0
    await other.complete()


async def test_a_child_of_a_fork_holds_nothing_and_is_another_peer(start: StartScript, other: Peer) -> None:
    script = await start("""
parents_token = client.peer_token
with hold(lock_for=3) as operation:
    client.get("project", operation.name)
    child = os.fork()
    if not child:
        say("lost", operation.lost.is_set(), operation.lost.error.loss.name, operation.lost.wait())
        say("same peer", client.peer_token == parents_token)
        say("state", client.get(operation.project, operation.name).state)
        try:
            operation.log("from the child")
        except LockLostError as error:
            say("log", error.loss.name)
        with client.hold("project", "networks/of-the-child", lock_for=2) as own:
            time.sleep(3)  # longer than its first time: it is renewed in the child
            own.check()
        say("held its own")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    operation.check()
    say("child", status)
""")
    assert await script.rest() == [
        "lost True FORKED True",
        "same peer False",
        "state 2",
        "log FORKED",
        "held its own",
        "child 0",
    ]
    assert await script.code() == 0
    assert await other.state() == "SUCCEEDED"
    assert await other.state("networks/of-the-child") == "SUCCEEDED"


async def test_a_fork_in_the_midst_of_calls_of_other_threads_does_no_harm(start: StartScript) -> None:
    script = await start("""
over = threading.Event()
def work(number):
    while not over.is_set():
        with client.hold("project", f"networks/{number}", lock_for=60) as operation:
            operation.log("a step")
workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for worker in workers:
    worker.start()
hung = failed = 0
for number in range(20):
    child = os.fork()
    if not child:
        with client.hold("project", f"networks/of-child-{number}"):
            os._exit(0)
    for _ in range(200):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            failed += status != 0
            break
        time.sleep(0.05)
    else:
        hung += 1
        os.kill(child, 9)
        os.waitpid(child, 0)
over.set()
for worker in workers:
    worker.join()
say(hung, failed)
""")
    assert await script.line() == "0 0"
    assert await script.code() == 0


async def test_a_child_that_leaves_the_block_does_not_complete_the_parents_operation(
    start: StartScript, other: Peer
) -> None:
    script = await start("""
try:
    with hold(lock_for=60) as operation:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            sys.stdin.readline()
except LockLostError as error:
    say(error.loss.name)
    sys.exit(0)
""")
    assert await script.line() == "FORKED"
    assert await other.state() == "LOCKED"
    await script.go_on()
    assert await script.code() == 0
    assert await other.state() == "SUCCEEDED"


async def test_a_token_of_ones_own_is_not_shared_with_a_child(start: StartScript) -> None:
    script = await start("""
own = Client(sys.argv[1], peer_token="mine")
own.propose("project", "networks/lan", lock_for=60)
if not os.fork():
    try:
        own.propose("project", "networks/lan", lock_for=60)
    except RuntimeError as error:
        say(error)
    os._exit(0)
os.wait()
""")
    assert (await script.line()).startswith("this client was made with a peer_token of its own before the process was")
    assert await script.code() == 0


async def test_a_child_is_told_of_what_would_hang_in_it(start: StartScript) -> None:
    script = await start("""
import asyncio
async def ask():
    async with AsyncClient(sys.argv[1]) as client:
        return [record async for record in client.list()]
asyncio.run(ask())
if not os.fork():
    try:
        asyncio.run(ask())
    except RuntimeError as error:
        say(error)
    say("blocking", list(client.list()))
    os._exit(0)
os.wait()
""")
    assert (await script.line()).startswith("grpc.aio hangs in a process that was forked from one that has used it")
    assert await script.line() == "blocking []"
    assert await script.code() == 0


async def test_a_service_that_is_killed_and_started_again_costs_no_lock(
    serve: Serve, in_etcd: tuple[str, ...], start: StartScript, server: Server
) -> None:
    script = await start("""
with hold(lock_for=15) as operation:
    say("held")
    sys.stdin.readline()
    for _ in range(200):
        before = operation.remaining
        time.sleep(0.1)
        if operation.remaining > before:
            break
    else:
        say("never renewed")
    operation.log("still here")
say("done")
""")
    assert await script.line() == "held"
    await server.stop(signal.SIGKILL)
    again = await serve(*in_etcd, "--listen", server.address)
    await script.go_on()
    assert await script.line() == "done"
    async with connected(again.address) as peer:
        assert [log.message for log in (await peer.get()).operation.logs] == ["still here"]


async def test_a_service_that_stays_away_loses_the_lock_by_the_clients_own_clock(
    start: StartScript, server: Server
) -> None:
    script = await start("""
before = time.monotonic()
with hold(lock_for=3) as operation:
    say("held")
    say(operation.lost.wait(60), operation.lost.error.loss.name, 2 < time.monotonic() - before < 10)
""")
    assert await script.line() == "held"
    await server.stop(signal.SIGKILL)
    assert await script.line() == "True RAN_OUT True"
    assert await script.code() == 1
