"""What a person with etcdctl can do to the keys of a test's service."""

from dataclasses import dataclass
from typing import Any, cast

import grpc
from etcd3 import etcdrpc
from etcd3.etcdrpc.kv_pb2 import KeyValue
from support import PROJECT


@dataclass(frozen=True)
class EtcdHands:
    """Reads and deletes keys below one prefix."""

    channel: grpc.aio.Channel
    prefix: str

    @property
    def kv(self) -> Any:
        return cast("Any", etcdrpc).KVStub(self.channel)

    async def entries(self, below: str = "") -> list[KeyValue]:
        """All keys that begin with the prefix and this, with their values."""
        start = f"{self.prefix}{below}".encode()
        end = start[:-1] + bytes([start[-1] + 1])
        return list((await self.kv.Range(etcdrpc.RangeRequest(key=start, range_end=end))).kvs)

    async def keys(self, below: str = "") -> list[str]:
        """The same without values, and without the prefix; the layout's number, which always stays, apart."""
        names = [entry.key.decode().removeprefix(self.prefix) for entry in await self.entries(below)]
        return [name for name in names if name != "layout"]

    async def delete(self, key: str) -> int:
        """Delete one key; returns how many there were."""
        deleted = await self.kv.DeleteRange(etcdrpc.DeleteRangeRequest(key=f"{self.prefix}{key}".encode()))
        return int(deleted.deleted)

    async def put(self, key: str, value: bytes) -> None:
        await self.kv.Put(etcdrpc.PutRequest(key=f"{self.prefix}{key}".encode(), value=value))

    async def let_lock_run_out(self, name: str, project: str = PROJECT) -> None:
        """End the lock's lease, just as etcd does when its time has passed."""
        (lock,) = await self.entries(f"locks/{project}/{name}")
        await cast("Any", etcdrpc).LeaseStub(self.channel).LeaseRevoke(etcdrpc.LeaseRevokeRequest(ID=lock.lease))

    async def ttl_of(self, key: str) -> int:
        """The granted seconds of the lease that a key hangs on; 0 for none."""
        (entry,) = await self.entries(key)
        if not entry.lease:
            return 0
        lease = cast("Any", etcdrpc).LeaseStub(self.channel)
        return int((await lease.LeaseTimeToLive(etcdrpc.LeaseTimeToLiveRequest(ID=entry.lease))).grantedTTL)

    async def proposals(self) -> int:
        """How much etcd had to agree on so far; reads cost nothing of that."""
        status = await cast("Any", etcdrpc).MaintenanceStub(self.channel).Status(etcdrpc.StatusRequest())
        return int(status.raftIndex)

    async def revision(self) -> int:
        return int((await self.kv.Range(etcdrpc.RangeRequest(key=b"x"))).header.revision)

    async def compact(self) -> int:
        """Compact all history; returns up to which revision."""
        revision = await self.revision()
        await self.kv.Compact(etcdrpc.CompactionRequest(revision=revision, physical=True))
        return revision

    async def delete_below(self, below: str) -> None:
        """Delete all keys that begin with this, in one revision."""
        start = f"{self.prefix}{below}".encode()
        end = start[:-1] + bytes([start[-1] + 1])
        await self.kv.DeleteRange(etcdrpc.DeleteRangeRequest(key=start, range_end=end))

    async def revoke(self, lease: int) -> None:
        """End a lease, and delete the keys on it."""
        await cast("Any", etcdrpc).LeaseStub(self.channel).LeaseRevoke(etcdrpc.LeaseRevokeRequest(ID=lease))

    async def granted(self, lease: int) -> int:
        """The seconds that a lease was granted for; 0 if it has ended."""
        stub = cast("Any", etcdrpc).LeaseStub(self.channel)
        return int((await stub.LeaseTimeToLive(etcdrpc.LeaseTimeToLiveRequest(ID=lease))).grantedTTL)

    async def lives(self, lease: int) -> bool:
        """Whether a lease has not ended."""
        stub = cast("Any", etcdrpc).LeaseStub(self.channel)
        return int((await stub.LeaseTimeToLive(etcdrpc.LeaseTimeToLiveRequest(ID=lease))).TTL) >= 0
