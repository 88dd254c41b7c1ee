"""What an operator of etcd does: find the leader, defragment, compact, raise and disarm alarms."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import grpc
from chaos.cluster import Member
from etcd3 import etcdrpc

_SECONDS = 1.0
_DEFRAGMENT_SECONDS = 10.0
_MOVE_SECONDS = 3.0
_PAUSE_SECONDS = 0.2
_WHOSE_ALARM = 1
"""Of which member the alarm is told: any id will do, as long as it is the same one that is disarmed."""
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 500),
)


class EtcdAdmin:
    """Talks to the members directly, past the links: what it is cut off from is cut off from everybody.

    Args:
        members: All of them.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._channels = [grpc.aio.insecure_channel(member.address, options=_OPTIONS) for member in members]
        rpc = cast("Any", etcdrpc)
        self._maintenance = [rpc.MaintenanceStub(channel) for channel in self._channels]
        self._kv = [rpc.KVStub(channel) for channel in self._channels]
        self._revisions: deque[tuple[float, int]] = deque(maxlen=120)

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()

    async def _status(self, number: int) -> etcdrpc.StatusResponse | None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            answer: etcdrpc.StatusResponse = await self._maintenance[number].Status(
                etcdrpc.StatusRequest(), timeout=_SECONDS
            )
            return answer
        return None

    async def leader(self) -> int | None:
        """Return which member leads, by its own word; None if none does that answers."""
        answers = await asyncio.gather(*(self._status(number) for number in range(len(self._members))))
        leaders = [
            (answer.raftTerm, number)
            for number, answer in enumerate(answers)
            if answer is not None and answer.leader == answer.header.member_id
        ]
        # A member that was frozen believes for a moment that it still leads.
        return max(leaders)[1] if leaders else None

    async def move_leader(self) -> int | None:
        """Let another member lead: nothing is lost, and every lease has its whole time again.

        Returns:
            Which; None if that could not be done.
        """
        answers = await asyncio.gather(*(self._status(number) for number in range(len(self._members))))
        leader = await self.leader()
        others = [number for number, answer in enumerate(answers) if answer is not None and number != leader]
        if leader is None or not others:
            return None
        target = answers[others[0]]
        request = etcdrpc.MoveLeaderRequest(targetID=target.header.member_id if target else 0)
        try:
            await self._maintenance[leader].MoveLeader(request, timeout=_MOVE_SECONDS)
        except grpc.aio.AioRpcError:
            return None
        return others[0]

    async def is_well(self, number: int) -> bool:
        """Whether a member answers, and knows a leader."""
        answer = await self._status(number)
        return answer is not None and answer.leader != 0

    async def until_well(self, numbers: Sequence[int], seconds: float) -> bool:
        """Wait until members answer and know a leader; False if they did not in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if all(await asyncio.gather(*(self.is_well(number) for number in numbers))):
                return True
            await asyncio.sleep(_PAUSE_SECONDS)
        return False

    async def revision(self) -> int:
        """Return the current revision as some member tells it; 0 if none does."""
        for kv in self._kv:
            with contextlib.suppress(grpc.aio.AioRpcError):
                answer = await kv.Range(etcdrpc.RangeRequest(key=b"x"), timeout=_SECONDS)
                return int(answer.header.revision)
        return 0

    async def note_revisions(self) -> None:
        """Remember once a second what the revision was, until cancelled."""
        while True:
            if revision := await self.revision():
                self._revisions.append((time.monotonic(), revision))
            await asyncio.sleep(1.0)

    async def compact(self, seconds_ago: float) -> int:
        """Forget the history up to what was current some seconds ago.

        Returns:
            The revision; 0 if nobody could be asked.
        """
        then = time.monotonic() - seconds_ago
        earlier = [revision for at, revision in self._revisions if at <= then]
        revision = (earlier[-1] if earlier else 0) if seconds_ago else await self.revision()
        for kv in self._kv if revision else ():
            try:
                await kv.Compact(etcdrpc.CompactionRequest(revision=revision), timeout=_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.OUT_OF_RANGE:
                    return 0
            else:
                return revision
        return 0

    async def defragment(self, number: int) -> bool:
        """Let a member write its database anew, during which it answers nobody."""
        try:
            await self._maintenance[number].Defragment(etcdrpc.DefragmentRequest(), timeout=_DEFRAGMENT_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return True

    async def raise_no_space(self) -> bool:
        """Raise the alarm that a member's disk quota is used up: from then on etcd takes no changes."""
        return await self._alarm(etcdrpc.AlarmRequest.ACTIVATE)

    async def disarm(self, seconds: float) -> bool:
        """Disarm what was raised, again and again until somebody has taken it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if await self._alarm(etcdrpc.AlarmRequest.DEACTIVATE):
                return True
            await asyncio.sleep(_PAUSE_SECONDS)
        return False

    async def _alarm(self, action: int) -> bool:
        request = etcdrpc.AlarmRequest(action=cast("Any", action), memberID=_WHOSE_ALARM, alarm=etcdrpc.NOSPACE)
        for maintenance in self._maintenance:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await maintenance.Alarm(request, timeout=_SECONDS)
                return True
        return False
