"""What the service does with a command: believe, decide, commit; and, when that fails, look and decide again."""

import contextlib
from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from operation_service.beliefs import Beliefs
from operation_service.change_ids import ChangeIds
from operation_service.clock import Clock, Deadline
from operation_service.commits import Attempt, Committed, OnOutcome
from operation_service.errors import (
    ContentionError,
    LayoutError,
    NotFoundError,
    OperationError,
    StoreError,
    StoreUnavailableError,
)
from operation_service.etcd_store import EtcdStore
from operation_service.group_commit import AT_ONCE
from operation_service.model import Command, Resource, Snapshot, View
from operation_service.policy import Change, Decision, Moment, decide
from operation_service.turns import Turns
from operation_service.workers import Workers

_ATTEMPTS = 10

_WORKERS = AT_ONCE
"""Calls that are worked on at once: as many as may go to etcd together. Of more each would only take longer."""
_NOTHING_THERE = Snapshot()
"""What is believed of a resource that this replica has not seen: if it is wrong, the commit answers with what is."""


class Operations:
    """All changes of operations, and the read of one.

    Args:
        store: Where they are.
        clock: The service's time.
        on_outcome: Is told of each change that turns out to have been made, after etcd's answer was lost.
    """

    def __init__(self, store: EtcdStore, clock: Clock, on_outcome: OnOutcome | None = None) -> None:
        self._store = store
        self._clock = clock
        self._on_outcome = on_outcome
        self._beliefs = Beliefs()
        self._turns = Turns()
        self._workers = Workers(_WORKERS)
        self._ids = ChangeIds()

    async def get(self, resource: Resource, deadline: Deadline) -> View:
        """Read the current operation of a resource.

        Raises:
            NotFoundError: It has none.
            StoreError: etcd cannot answer.
        """
        async with self._workers.one(deadline):
            snapshot = await self._store.read(resource, "", deadline)
            return await self._view(resource, snapshot, deadline)

    async def change(self, command: Command, deadline: Deadline) -> View:
        """Carry out a command.

        Returns:
            The operation after it.

        Raises:
            RefusedError: The rules say no. Nothing was changed.
            NotFoundError: There is nothing to change.
            ContentionError: Others came first, again and again. Nothing was changed.
            StoreError: etcd cannot do it. Of these only StoreUnavailableError can be ambiguous, and says so.
        """
        # In this order: those who wait for one resource must not keep the workers from the others.
        async with self._turns.one(command.resource, deadline), self._workers.one(deadline):
            return await self._change(command, deadline)

    async def _change(self, command: Command, deadline: Deadline) -> View:
        resource, token, change_id = command.resource, command.caller.token, self._ids.new()
        snapshot = self._beliefs.get(resource) or _NOTHING_THERE
        unclear: _Unclear | None = None
        for _ in range(_ATTEMPTS):
            if unclear and snapshot.record_revision != unclear.record_revision:
                return await self._found_made(command, snapshot, change_id, deadline)
            decision = _decision(snapshot, command, Moment(self._clock.now(), change_id))
            if not isinstance(decision, Change):
                if snapshot.is_confirmed:
                    self._learn(resource, snapshot)
                    if isinstance(decision, OperationError):
                        raise decision
                    return await self._view(resource, snapshot, deadline)
                snapshot = await self._store.read(resource, token, deadline)
                continue
            attempt = _Unclear(snapshot.record_revision, self._store.revision_seen)
            try:
                outcome = await self._store.commit(Attempt(command, snapshot, decision), deadline)
            except StoreError as error:
                self._beliefs.forget(resource)
                if not error.is_outcome_unknown and not unclear:
                    raise
                snapshot, unclear = await self._read_back(resource, token, unclear or attempt, deadline)
                continue
            if isinstance(outcome, Committed):
                self._beliefs.keep(resource, outcome.snapshot)
                return outcome.view
            snapshot = outcome
        if unclear:
            raise StoreUnavailableError("its answer was lost", is_outcome_unknown=True)
        raise ContentionError(resource, _ATTEMPTS)

    async def _read_back(
        self, resource: Resource, token: str, unclear: "_Unclear", deadline: Deadline
    ) -> tuple[Snapshot, "_Unclear | None"]:
        """Look what became of a change whose answer was lost; return what is there, and whether it still is unclear.

        Should the change still be under way, and be made after it was looked for here, the next commit runs into it:
        both rest on the same guards, so only one is made, and the other is answered with its record.
        """
        with _outcome_unknown():
            snapshot = await self._store.read(resource, token, deadline)
        return snapshot, None if unclear.is_refuted_by(snapshot) else unclear

    def _learn(self, resource: Resource, snapshot: Snapshot) -> None:
        """Believe from now on what was read for one peer: what it says of that peer alone is nobody else's business.

        Who is refused asks again, and without this each time at the price of a change that fails.
        """
        if snapshot.record is None:
            self._beliefs.forget(resource)
        else:
            snapshot = self._detailed(resource, snapshot)
            self._beliefs.keep(resource, replace(snapshot, is_confirmed=False, cancelled_lock=None))

    async def _found_made(self, command: Command, snapshot: Snapshot, change_id: str, deadline: Deadline) -> View:
        """Conclude a change whose answer was lost, once the record is not any more what it rested on.

        Raises:
            StoreUnavailableError: Somebody else's change lies on top of what may have been ours: neither may ours be
                made again, nor would a refusal be true.
        """
        if snapshot.record is None or snapshot.record.change_id != change_id:
            raise StoreUnavailableError("its answer was lost", is_outcome_unknown=True)
        if self._on_outcome is not None:
            self._on_outcome(command, None, snapshot.record, snapshot.record_revision)
        with _outcome_unknown():
            return await self._view(command.resource, snapshot, deadline)

    async def _view(self, resource: Resource, snapshot: Snapshot, deadline: Deadline) -> View:
        if snapshot.record is None:
            raise NotFoundError(resource)
        return await self._store.view(resource, self._detailed(resource, snapshot), snapshot.record, deadline)

    def _detailed(self, resource: Resource, snapshot: Snapshot) -> Snapshot:
        """Add the details that are known, if they are those of the very operation, with the very logs that it has."""
        known, record = self._beliefs.get(resource), snapshot.record
        if known is None or known.record is None or record is None or known.details is None:
            return snapshot
        if (known.record.operation_id, known.record.log_count) != (record.operation_id, record.log_count):
            return snapshot
        return replace(snapshot, details=known.details)


class _Unclear(Struct, frozen=True, gc=False):
    """A change that was sent, and of which nobody knows whether it was made.

    Attributes:
        record_revision: The record's revision that it rests on.
        seen: etcd's revision before it was sent, or an earlier one.
    """

    record_revision: int
    seen: int

    def is_refuted_by(self, snapshot: Snapshot) -> bool:
        """Whether the record is what it was when the change was sent, which rested on something else: never made."""
        return snapshot.record_revision != self.record_revision and 0 < snapshot.record_revision <= self.seen


def _decision(snapshot: Snapshot, command: Command, moment: Moment) -> Decision | OperationError:
    """Decide; a refusal comes back as a value, since on a belief it does not count."""
    try:
        return decide(snapshot, command, moment)
    except OperationError as refusal:
        return refusal


@contextlib.contextmanager
def _outcome_unknown() -> Iterator[None]:
    """Let no error of a read say that nothing was changed, after a change that may have been made."""
    try:
        yield
    except (StoreUnavailableError, LayoutError) as error:
        raise StoreUnavailableError(error.why, is_outcome_unknown=True) from error
