"""Does to the cluster what the schedule says, mends it again, and records it."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from chaos import cluster, namespaces
from chaos.cluster import Member
from chaos.etcd_admin import EtcdAdmin
from chaos.history import Fault, Recorder
from chaos.process import Process
from chaos.replica import Replica
from chaos.schedule import Act, Kind, Planned
from links import Mode

_WELL_SECONDS = 20.0
_CLOCK_SECONDS = 1.2
"""After a step the replica looks at its clock's file within a second."""


@dataclass(frozen=True)
class Client:
    """A client process, and how to start it again as another one."""

    process: Process
    start: Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Targets:
    """What faults are made to."""

    members: Sequence[Member]
    replicas: Sequence[Replica]
    clients: Sequence[Client]


class Faults:
    """Makes faults.

    Args:
        targets: To what.
        admin: Talks to etcd.
        recorder: Where to.
    """

    def __init__(self, targets: Targets, admin: EtcdAdmin, recorder: Recorder) -> None:
        self._members = list(targets.members)
        self._replicas = targets.replicas
        self._clients = targets.clients
        self._admin = admin
        self._recorder = recorder
        self.skipped = 0
        """How many found nothing to be done to: no leader for example."""

    async def run(self, acts: Sequence[Act], until: float) -> None:
        """Make one act after the other, until a moment of the monotonic clock."""
        for act in acts:
            left = until - time.monotonic()
            if left <= act.seconds - act.pause:
                break
            async with asyncio.TaskGroup() as group:
                for fault in act.faults:
                    group.create_task(self._make(fault))
            await asyncio.sleep(max(0.0, min(act.pause, until - time.monotonic())))
        await asyncio.sleep(max(0.0, until - time.monotonic()))

    async def _make(self, fault: Planned) -> None:
        await asyncio.sleep(fault.after)
        began = time.monotonic()
        target = await self._do(fault)
        if target:
            ended = time.monotonic()
            mending = min(began + fault.seconds, ended)
            self._recorder.add(Fault(kind=fault.kind, target=target, began=began, ended=ended, mending=mending))
        else:
            self.skipped += 1

    async def _do(self, fault: Planned) -> str:
        """Make one fault, and mend it; return what it was done to, or nothing if it could not be done."""
        match fault.kind:
            case Kind.KILL_MEMBER | Kind.STOP_MEMBER | Kind.CUT_MEMBER:
                return await self._hurt_member(fault, self._members[fault.target])
            case Kind.KILL_LEADER | Kind.STOP_LEADER | Kind.CUT_LEADER:
                leader = await self._admin.leader()
                return "" if leader is None else await self._hurt_member(fault, self._members[leader])
            case Kind.KILL_CLIENT | Kind.STOP_CLIENT:
                return await self._hurt_client(fault, self._clients[fault.target % len(self._clients)])
            case Kind.KILL_ALL:
                return await self._kill_all(fault.seconds)
            case Kind.MOVE_LEADER | Kind.DEFRAGMENT | Kind.COMPACT | Kind.NO_SPACE:
                return await self._operate(fault)
            case _:
                return await self._hurt_replica(fault, self._replicas[fault.target])

    async def _hurt_member(self, fault: Planned, member: Member) -> str:
        match fault.kind:
            case Kind.KILL_MEMBER | Kind.KILL_LEADER:
                await member.process.kill()
                await asyncio.sleep(fault.seconds)
                await cluster.start(member, self._members)
            case Kind.STOP_MEMBER | Kind.STOP_LEADER:
                await _frozen(member.process, fault.seconds)
            case _:
                await namespaces.cut(member.place)
                try:
                    await asyncio.sleep(fault.seconds)
                finally:
                    await namespaces.heal(member.place)
        await self._admin.until_well([self._members.index(member)], _WELL_SECONDS)
        return member.name

    async def _hurt_client(self, fault: Planned, client: Client) -> str:
        name = client.process.name
        if fault.kind is Kind.STOP_CLIENT:
            await _frozen(client.process, fault.seconds)
        else:
            await client.process.kill()
            await asyncio.sleep(fault.seconds)
            await client.start()
        return name

    async def _kill_all(self, seconds: float) -> str:
        everything = [*(member.process for member in self._members), *(replica.process for replica in self._replicas)]
        await asyncio.gather(*(process.kill() for process in everything))
        await asyncio.sleep(seconds)
        await cluster.start_all(self._members)
        for replica in self._replicas:
            await replica.start()
        await self._admin.until_well(range(len(self._members)), _WELL_SECONDS)
        await asyncio.gather(*(_serving(replica) for replica in self._replicas))
        return "all members and replicas"

    async def _operate(self, fault: Planned) -> str:
        """Do what an operator of etcd may do, or forget to do, at any time."""
        match fault.kind:
            case Kind.MOVE_LEADER:
                leader = await self._admin.move_leader()
                return "" if leader is None else f"to {self._members[leader].name}"
            case Kind.DEFRAGMENT:
                member = self._members[fault.target]
                return member.name if await self._admin.defragment(fault.target) else ""
            case Kind.COMPACT:
                revision = await self._admin.compact(fault.amount)
                return f"up to {revision}" if revision else ""
            case _:
                if not await self._admin.raise_no_space():
                    return ""
                await asyncio.sleep(fault.seconds)
                await self._admin.disarm(_WELL_SECONDS)
                return "etcd"

    async def _hurt_replica(self, fault: Planned, replica: Replica) -> str:
        match fault.kind:
            case Kind.KILL_REPLICA:
                await replica.process.kill()
                await asyncio.sleep(fault.seconds)
                await replica.start()
                await _serving(replica)
            case Kind.STOP_REPLICA:
                await _frozen(replica.process, fault.seconds)
            case Kind.CUT_REPLICA_FROM_ETCD:
                await self._on_links(replica, Mode.HOLD, fault.seconds)
            case Kind.CUT_REPLICA_FROM_CLIENTS:
                replica.door.become(Mode.HOLD)
                await asyncio.sleep(fault.seconds)
                replica.door.become(Mode.PASS)
            case Kind.SWALLOW_ANSWERS:
                await self._on_links(replica, Mode.SWALLOW, fault.seconds)
                for link in replica.links:
                    link.cut()
            case Kind.RESET_LINKS:
                for link in (*replica.links, replica.door):
                    link.cut()
            case _:
                replica.step_clock(fault.amount)
                await asyncio.sleep(_CLOCK_SECONDS)
        return replica.name

    @staticmethod
    async def _on_links(replica: Replica, mode: Mode, seconds: float) -> None:
        for link in replica.links:
            link.become(mode)
        try:
            await asyncio.sleep(seconds)
        finally:
            for link in replica.links:
                link.become(Mode.PASS)


async def _frozen(process: Process, seconds: float) -> None:
    process.freeze()
    try:
        await asyncio.sleep(seconds)
    finally:
        process.thaw()


async def _serving(replica: Replica) -> None:
    """Wait until a replica has come up; whether it serves is for the end of the run to see."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_WELL_SECONDS):
            while not replica.has_said_serving:
                await asyncio.sleep(0.1)
