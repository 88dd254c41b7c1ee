"""How many bytes things take: in etcd's file, and in the service's memory."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
from etcd3 import etcdrpc
from idle_connections import idle_connections

from benchmarks import requests
from benchmarks.bench import Bench
from benchmarks.http2 import Connection
from benchmarks.requests import SERVICE
from benchmarks.usage import resident_bytes

_SETTLE_SECONDS = 1.0
_DEFRAGMENT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Size:
    """What one thing takes.

    Attributes:
        what: Which thing, and where it takes that.
        count: How many of them that was seen with.
        bytes_each: The mean.
    """

    what: str
    count: int
    bytes_each: float


async def etcd_bytes(bench: Bench) -> int:
    """Compact etcd's history and defragment its file, and return how large that then is."""
    async with grpc.aio.insecure_channel(bench.etcd.address) as channel:
        kv = etcdrpc.KVStub(channel)  # type: ignore[no-untyped-call]
        maintenance = etcdrpc.MaintenanceStub(channel)  # type: ignore[no-untyped-call]
        now = await kv.Range(etcdrpc.RangeRequest(key=b"/"))
        await kv.Compact(etcdrpc.CompactionRequest(revision=now.header.revision, physical=True))
        await maintenance.Defragment(etcdrpc.DefragmentRequest(), timeout=_DEFRAGMENT_SECONDS)
        status = await maintenance.Status(etcdrpc.StatusRequest())
        return int(status.dbSize)


class Growth:
    """How much larger etcd's file and the service's memory have become.

    Args:
        in_etcd: How large that was, in bytes.
        in_memory: How large that was, in bytes.
    """

    def __init__(self, in_etcd: int, in_memory: int) -> None:
        self._in_etcd = in_etcd
        self._in_memory = in_memory

    @classmethod
    async def from_here(cls, bench: Bench) -> "Growth":
        """Begin to measure."""
        return cls(await etcd_bytes(bench), resident_bytes(bench.service.pid))

    async def sizes(self, bench: Bench, what: str, count: int) -> list[Size]:
        """Return what each of so many things has added."""
        in_memory = resident_bytes(bench.service.pid) - self._in_memory
        in_etcd = await etcd_bytes(bench) - self._in_etcd
        return [
            Size(f"{what}, in etcd's file (compacted, defragmented)", count, in_etcd / count),
            Size(f"{what}, in the service's memory", count, in_memory / count),
        ]


async def connection_sizes(bench: Bench, idle: int, watchers: int) -> list[Size]:
    """Return what connections take that only stay, and what watchers take, with their connections."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    address, pid = bench.service.address, bench.service.pid
    sizes = []
    before = resident_bytes(pid)
    async with _watchers(address, watchers):
        sizes.append(_size("a watcher, with its connection, in the service's memory", watchers, pid, before))
    await asyncio.sleep(_SETTLE_SECONDS)
    before = resident_bytes(pid)
    async with idle_connections(address, idle):
        await asyncio.sleep(_SETTLE_SECONDS)
        sizes.append(_size("an idle connection, in the service's memory", idle, pid, before))
    return sizes


def _size(what: str, count: int, pid: int, before: int) -> Size:
    return Size(what, count, (resident_bytes(pid) - before) / count)


@contextlib.asynccontextmanager
async def _watchers(address: str, count: int) -> AsyncIterator[None]:
    """Hold so many watches of a project in which nothing happens."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = Connection(address, SERVICE + "WatchOperations")
            stack.callback(connection.close)
            connection.begin(bytes.fromhex(requests.watch("nobody")))
            connection.flush()
        await asyncio.sleep(_SETTLE_SECONDS)
        yield
