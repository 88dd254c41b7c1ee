"""etcd's own lock service: a lease, a lock that hangs on it, and both given back."""

import contextlib
from collections.abc import AsyncIterator, Sequence

import grpc
from etcd3 import etcdrpc

from benchmarks.peers.cycles import Cycle, CyclePlan, main
from benchmarks.peers.v3lock_messages import LOCK, UNLOCK, LockRequest, LockResponse, UnlockRequest, UnlockResponse

_TTL_SECONDS = 30


def _cycle(channel: grpc.aio.Channel, name: bytes) -> Cycle:
    leases = etcdrpc.LeaseStub(channel)  # type: ignore[no-untyped-call]
    lock = channel.unary_unary(LOCK, LockRequest.SerializeToString, LockResponse.FromString)
    unlock = channel.unary_unary(UNLOCK, UnlockRequest.SerializeToString, UnlockResponse.FromString)

    async def cycle() -> None:
        lease = await leases.LeaseGrant(etcdrpc.LeaseGrantRequest(TTL=_TTL_SECONDS))
        held = await lock(LockRequest(name=name, lease=lease.ID))
        await unlock(UnlockRequest(key=held.key))
        await leases.LeaseRevoke(etcdrpc.LeaseRevokeRequest(ID=lease.ID))

    return cycle


@contextlib.asynccontextmanager
async def clients(plan: CyclePlan) -> AsyncIterator[Sequence[Cycle]]:
    """Connect."""
    async with grpc.aio.insecure_channel(plan.address) as channel:
        yield [_cycle(channel, b"bench-lock-%d" % place) for place in range(plan.in_flight)]


if __name__ == "__main__":
    main(clients)
