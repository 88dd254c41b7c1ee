"""What a call concludes when its change was sent and the answer was lost."""

from typing import Any, cast

import msgspec
from unit_support import FakeClock, locked, propose

from operation_service.clock import Deadline
from operation_service.commits import Attempt, Committed
from operation_service.errors import StoreUnavailableError
from operation_service.model import Snapshot, View
from operation_service.operations import Operations

SOON = Deadline(3_600)
"""Made when the tests are collected, and they take minutes."""


async def test_a_renewal_at_a_replica_that_knew_nothing_is_made_though_etcd_stumbled() -> None:
    """It was tried on "nothing there", which cannot have been made: a record was there all the time.

    etcd's revision was seen to be later than the record's before the change was sent.
    """
    there = msgspec.structs.replace(locked(), is_confirmed=True)

    class Store:
        attempts = 0
        revision_seen = there.record_revision

        async def read(self, *_: object) -> Snapshot:
            return there

        async def commit(self, attempt: Attempt, _: Deadline) -> Committed | Snapshot:
            self.attempts += 1
            if self.attempts == 1:
                raise StoreUnavailableError("it did not answer in time", is_outcome_unknown=True)
            if attempt.snapshot.record_revision != there.record_revision:
                return there
            return Committed(cast("View", "made"), there)

    view = await Operations(cast("Any", Store()), FakeClock()).change(propose(), SOON)
    assert cast("Any", view) == "made"
