"""What becomes of leases when nobody can tell what became of a change, and what a new operation leaves to tidy up."""

import asyncio
from typing import Any, cast

import pytest
from etcd3 import etcdrpc
from stores import a_store
from unit_support import RESOURCE, FakeClock, a_record, propose

from operation_service.clock import Deadline
from operation_service.commits import Attempt, Committed
from operation_service.errors import StoreUnavailableError
from operation_service.etcd_client import Lease
from operation_service.keys import Keys
from operation_service.leases import Leases
from operation_service.model import Phase, Resource, Snapshot
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

    async def write(self, *_: object) -> etcdrpc.TxnResponse | None:
        return None


class MakesAll(Etcd):
    """Makes every change."""

    async def write(self, *_: object) -> etcdrpc.TxnResponse:
        return etcdrpc.TxnResponse(succeeded=True)


async def test_a_lock_whose_change_ended_with_an_unforeseen_error_keeps_its_lease() -> None:
    """Whatever is no known "not made" may have been made: without its lease the lock would be lost."""
    clock = FakeClock()
    etcd = Etcd(clock)
    leases = Leases(cast("Any", etcd), clock, 600)
    store = a_store(cast("Any", etcd), Keys("/p/"), clock, leases=leases)
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


@pytest.mark.parametrize(
    ("log_count", "request_digest", "is_left_something"),
    [(0, "", False), (1, "", True), (0, "digest", True)],
    ids=["nothing", "a log", "a request"],
)
async def test_who_tidies_up_is_told_of_an_operation_that_was_replaced_if_it_has_left_anything(
    log_count: int, request_digest: str, is_left_something: bool
) -> None:
    """To look for details that cannot be there would be a read of etcd for each new operation."""
    clock = FakeClock()
    etcd: Any = MakesAll(clock)
    replaced: list[tuple[Resource, str]] = []
    store = a_store(etcd, Keys("/p/"), clock, on_operation_replaced=lambda *operation: replaced.append(operation))
    over = a_record(phase=Phase.SUCCEEDED, log_count=log_count, request_digest=request_digest, operation_id="earlier")
    before = Snapshot(record=over, record_revision=3)
    command = propose()
    change = decide(before, command, Moment(clock.now(), "id"))
    assert isinstance(change, Change)
    assert isinstance(await store.commit(Attempt(command, before, change), SOON), Committed)
    assert replaced == ([(RESOURCE, "earlier")] if is_left_something else [])
