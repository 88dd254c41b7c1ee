"""Puts a run's cluster together, and takes all of it away again at any end."""

import asyncio
import contextlib
import random
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from chaos import cluster
from chaos.cluster import Member
from chaos.etcd_admin import EtcdAdmin
from chaos.faults import Client, Targets
from chaos.namespaces import Network, Place, are_demanded, why_not
from chaos.process import Process
from chaos.replica import Replica, find_libfaketime
from chaos.store import StoreServer, Values
from links import Link

_MEMBERS = 3
_REPLICAS = 3
_CLIENTS = 3
_TASKS = 6
_WATCHERS = (("w1", "w2"), ("w3",))
_START_SECONDS = 30.0
RESOURCES = tuple(f"machines/r{number}" for number in range(1, 9))


class ArenaError(Exception):
    """It cannot be put together here."""


@dataclass
class Arena:
    """All that a run consists of.

    Attributes:
        directory: The run's own, with logs.
        history: Where the entries go.
        targets: What faults are made to.
        admin: Talks to etcd.
        values: What the locks guard.
        watchers: Their processes.
        left_out: What this machine cannot do.
    """

    directory: Path
    history: Path
    seed: int
    targets: Targets
    admin: EtcdAdmin
    values: Values
    store: StoreServer
    watchers: list[Process] = field(default_factory=list)
    left_out: tuple[str, ...] = ()

    @property
    def watcher_names(self) -> list[str]:
        """All watchers, of all processes."""
        return [name for names in _WATCHERS for name in names]

    @property
    def doors(self) -> list[str]:
        """The replicas' addresses, as clients know them."""
        return [replica.address for replica in self.targets.replicas]

    @property
    def processes(self) -> list[Process]:
        """Everything that runs, those who call first."""
        clients = [client.process for client in self.targets.clients]
        replicas = [replica.process for replica in self.targets.replicas]
        return [*self.watchers, *clients, *replicas, *(member.process for member in self.targets.members)]

    async def start_watchers(self) -> None:
        """Start the watchers, and wait until they stand: nothing may have happened before."""
        for names, process in zip(_WATCHERS, self.watchers, strict=True):
            path = self.history / f"{process.name}.jsonl"
            arguments = ["--names", *names, "--seed", str(self.seed), "--history", str(path), "--replicas", *self.doors]
            await process.start([sys.executable, "-m", "chaos.watcher", *arguments])
        end = time.monotonic() + _START_SECONDS
        while not all(f'"watcher":"{name}"' in self.watched() for name in self.watcher_names):
            if time.monotonic() > end:
                raise ArenaError("the watchers do not stand")
            await asyncio.sleep(0.1)

    def watched(self) -> str:
        """Return all that the watchers have recorded."""
        paths = [self.history / f"{process.name}.jsonl" for process in self.watchers]
        return "".join(path.read_text() for path in paths if path.exists())

    async def start_clients(self) -> None:
        """Start the clients."""
        for client in self.targets.clients:
            await client.start()


@contextlib.asynccontextmanager
async def arena(directory: Path, seed: int, broken: str) -> AsyncIterator[Arena]:
    """Put everything together: members and replicas run, watchers and clients are yet to be started."""
    async with contextlib.AsyncExitStack() as stack:
        places, left_out = await _places(stack)
        members = cluster.members(places, directory)
        for member in members:
            stack.push_async_callback(member.process.kill)
            stack.callback(shutil.rmtree, member.data_dir, ignore_errors=True)
        await cluster.start_all(members)
        admin = EtcdAdmin(members)
        stack.push_async_callback(admin.close)
        if not await admin.until_well(range(_MEMBERS), _START_SECONDS):
            raise ArenaError(f"etcd does not come up, see {directory}")

        values = Values()
        store = StoreServer(values)
        await store.open()
        stack.push_async_callback(store.close)
        replicas = [
            await _replica(number, members, directory, seed=seed, broken=broken, stack=stack)
            for number in range(_REPLICAS)
        ]
        if find_libfaketime() is None:
            left_out.append("replicas with wrong wall clocks: there is no libfaketime")
        history = directory / "history"
        history.mkdir()
        found = Arena(directory, history, seed, Targets(members, replicas, []), admin, values, store)
        found.left_out = tuple(left_out)
        found.watchers = [Process(f"watchers{number}", directory / f"watchers{number}.log") for number in (1, 2)]
        clients = [_client(number, found) for number in range(1, _CLIENTS + 1)]
        found.targets = Targets(members, replicas, clients)
        for process in (*found.watchers, *(client.process for client in clients)):
            stack.push_async_callback(process.kill)
        yield found


async def _places(stack: contextlib.AsyncExitStack) -> tuple[list[Place], list[str]]:
    if why := why_not():
        if are_demanded():
            raise ArenaError(f"members of etcd cannot be cut off: {why}")
        return [Place("127.0.0.1")] * _MEMBERS, [f"cutting members of etcd off: {why}; they all run on loopback"]
    network = Network()
    stack.push_async_callback(network.close)
    return await network.open(_MEMBERS), []


async def _replica(
    number: int,
    members: list[Member],
    directory: Path,
    *,
    seed: int,
    broken: str,
    stack: contextlib.AsyncExitStack,
) -> Replica:
    links = [Link(member.place.host, member.client_port) for member in members]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    door = Link("127.0.0.1", port)
    for link in (*links, door):
        await link.open()
        stack.push_async_callback(link.close)
    name = f"s{number + 1}"
    process = Process(name, directory / f"{name}.log")
    stack.push_async_callback(process.kill)
    replica = Replica(
        process,
        port,
        # Each begins with another member, as replicas beside the members of a cluster would.
        links=[*links[number:], *links[:number]],
        door=door,
        libfaketime=find_libfaketime(),
        rng=random.Random(f"{seed} {name}"),
        broken=broken,
        is_gathering=number > 0,
    )
    await replica.start()
    end = time.monotonic() + _START_SECONDS
    while not replica.has_said_serving:
        if time.monotonic() > end or not process.is_running:
            raise ArenaError(f"{name} does not come up: {process.log[-2000:]}")
        await asyncio.sleep(0.1)
    return replica


def _client(number: int, found: Arena) -> Client:
    process = Process(f"c{number}", found.directory / f"c{number}.log")

    async def start() -> None:
        name = f"c{number}.{process.starts + 1}"
        arguments = ["--name", name, "--seed", str(found.seed), "--tasks", str(_TASKS)]
        paths = ["--store", str(found.store.port), "--history", str(found.history / f"{name}.jsonl")]
        where = ["--replicas", *found.doors, "--resources", *RESOURCES]
        await process.start([sys.executable, "-m", "chaos.client", *arguments, *paths, *where])

    return Client(process, start)
