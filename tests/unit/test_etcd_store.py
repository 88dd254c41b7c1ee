"""What becomes of leases when nobody can tell what became of a change."""

import asyncio
from typing import Any, cast

import pytest
from unit_support import FakeClock, propose

from operation_service.clock import Deadline
from operation_service.errors import StoreUnavailableError
from operation_service.etcd_client import Lease
from operation_service.etcd_store import Attempt, EtcdStore
from operation_service.keys import Keys
from operation_service.leases import Leases
from operation_service.lock_times import LockTimes
from operation_service.model import Snapshot
from operation_service.policy import Change, Moment, decide

SOON = Deadline(3_600)
"""Made when the tests are collected, and they take minutes."""


class Etcd:
    """Makes a change, and answers with what cannot be parsed: grpc.aio then hands out None, and a line in the log."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.granted = 0
        self.revoked: list[int] = []

    async def grant(self, seconds: int, _deadline: Deadline) -> Lease:
        self.granted += 1
        return Lease(self.granted, seconds, self.clock.monotonic())

    async def revoke(self, lease_id: int, _deadline: Deadline) -> None:
        self.revoked.append(lease_id)

    async def write(self, *_: object) -> None:
        return None


async def test_a_lock_whose_change_ended_with_an_unforeseen_error_keeps_its_lease() -> None:
    """Whatever is no known "not made" may have been made: without its lease the lock would be lost."""
    clock = FakeClock()
    etcd = Etcd(clock)
    leases = Leases(cast("Any", etcd), clock, 600)
    store = EtcdStore(cast("Any", etcd), Keys("/p/"), leases, LockTimes(clock), clock)
    command = propose(lock_for_seconds=300)
    change = decide(Snapshot(), command, Moment(clock.now(), "id"))
    assert isinstance(change, Change)
    with pytest.raises(StoreUnavailableError) as caught:
        await store.commit(Attempt(command, Snapshot(), change), SOON)
    assert caught.value.is_outcome_unknown
    clock.push(monotonic=20)
    await leases.for_lock(30, SOON)
    await asyncio.sleep(0)
    await leases.close()
    assert etcd.revoked == []
