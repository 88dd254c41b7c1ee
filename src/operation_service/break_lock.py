"""Breaks a lock from outside, for the day when nobody can wait: by way of etcd, past the service.

One transaction, guarded by the revisions of what a person was shown: the lock goes, the operation's log says who did it
and why, and the holder is refused like one that was cancelled. Whatever happened to the operation meanwhile, a renewal
or a line in its log, is a sign of life, and then nothing is done.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence

from etcd3 import etcdrpc
from msgspec import Struct

from operation_service.change_ids import ChangeIds
from operation_service.clock import Deadline, SystemClock
from operation_service.commits import Commits, puts
from operation_service.errors import NotFoundError, NotLockedError, StoreError, StoreUnavailableError
from operation_service.etcd_client import EtcdClient, LeaseGoneError
from operation_service.etcd_ops import Guard, Transaction
from operation_service.etcd_store import EtcdStore
from operation_service.keys import Keys
from operation_service.layout import Layout
from operation_service.leases import Leases
from operation_service.lock_times import LockTimes
from operation_service.model import Details, Lock, Log, Record, Resource, Snapshot, View, view_of
from operation_service.policy import Change, broken, details_after
from operation_service.settings_tls import EtcdAccess

_ANY_RETENTION_SECONDS = 1
"""No lease is granted here: the record stays on the one that it hangs on."""
_READ_BACK_SECONDS = 2.0
"""The time that somebody wanted to wait may be over by then, and whether the lock is broken is worth a little more."""


class Shown(Struct, frozen=True):
    """A lock as a person was shown it.

    Attributes:
        view: The operation, as the service would tell it.
        snapshot: What etcd had.
        record: The operation, as it is stored.
        lock: The lock.
    """

    view: View
    snapshot: Snapshot
    record: Record
    lock: Lock


class LockChangedError(Exception):
    """The operation is not any more as it was shown; nothing was done."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(
            f"the operation on {resource} has changed since it was shown (its holder is at work, or its lock has "
            "ended): nothing was done; look again before you break anything"
        )


class NoOperationError(Exception):
    """A lock without an operation: there is no log to write into."""

    def __init__(self, resource: Resource, key: bytes) -> None:
        super().__init__(
            f"the lock of {resource} has no operation, so there is no log to say in who broke it: its record was "
            f"deleted by hand; delete the lock in the same way: etcdctl del {key.decode()}"
        )


class LockBreaker:
    """Looks at locks in etcd, and breaks them.

    Args:
        etcd: The client.
        key_prefix: What all keys begin with.
    """

    def __init__(self, etcd: EtcdClient, key_prefix: str) -> None:
        clock = SystemClock()
        times = LockTimes(clock)
        self._keys = Keys(key_prefix)
        self._layout = Layout(etcd, self._keys)
        commits = Commits(etcd, self._keys, Leases(etcd, clock, _ANY_RETENTION_SECONDS), times, clock)
        self._store = EtcdStore(etcd, self._keys, times, commits)
        self._clock = clock

    async def look(self, resource: Resource, deadline: Deadline) -> Shown:
        """Look at the lock of a resource.

        Raises:
            NotFoundError: The resource has neither an operation nor a lock.
            NotLockedError: Nobody holds it.
            NoOperationError: Its lock has no operation.
            StoreError: etcd cannot answer, or what it holds cannot be read.
        """
        snapshot = await self._store.read(resource, "", deadline)
        record, lock = snapshot.record, snapshot.lock
        if record is None:
            raise NotFoundError(resource) if lock is None else NoOperationError(resource, self._keys.lock(resource))
        view = await self._store.view(resource, snapshot, record, deadline)
        if lock is None:
            raise NotLockedError(resource, view.state)
        return Shown(view, snapshot, record, lock)

    async def break_lock(self, shown: Shown, message: str, deadline: Deadline) -> View:
        """Break a lock, if the operation still is as it was shown.

        Args:
            shown: What `look` has returned.
            message: The line for the operation's log.
            deadline: For etcd's answer.

        Returns:
            The operation after it: EXPIRED or OPERATOR_DEAD.

        Raises:
            LockChangedError: It is not. Nothing was done.
            StoreUnavailableError: etcd could not be reached; `is_outcome_unknown`: the lock may be broken.
            StoreError: etcd takes no changes, or what it holds cannot be read.
        """
        why = Log(self._clock.now(), message)
        change = broken(shown.record, shown.lock, why, ChangeIds().new())
        request = etcdrpc.TxnRequest()
        self._transaction(shown, change).write_into(request)
        resource = shown.view.resource
        try:
            response = await self._layout.write(request, deadline)
        except LeaseGoneError:
            # The lock has run out between the look and now.
            raise LockChangedError(resource) from None
        except StoreUnavailableError as error:
            if not error.is_outcome_unknown or not (revision := await self._made_at(resource, change)):
                raise
            return _after(shown.view, change, revision)
        if not response.succeeded:
            raise LockChangedError(resource)
        return _after(shown.view, change, response.header.revision)

    def _transaction(self, shown: Shown, change: Change) -> Transaction:
        resource, snapshot = shown.view.resource, shown.snapshot
        at = self._keys.of(resource)
        return Transaction(
            guards=[Guard(at.lock, snapshot.lock_revision), Guard(at.record, snapshot.record_revision)],
            puts=puts(self._keys, resource, at, change, snapshot, record_lease=snapshot.record_lease),
            deletes=(at.lock,),
        )

    async def _made_at(self, resource: Resource, change: Change) -> int:
        """Return at which revision a change was made whose answer was lost. 0: that cannot be told.

        It may still be on its way, or another one may have come on top: only a yes is certain.
        """
        with contextlib.suppress(StoreError):
            snapshot = await self._store.read(resource, "", Deadline(_READ_BACK_SECONDS))
            if snapshot.record is not None and snapshot.record.change_id == change.record.change_id:
                return snapshot.record_revision
        return 0


@contextlib.asynccontextmanager
async def lock_breaker(
    endpoints: Sequence[str], key_prefix: str, access: EtcdAccess | None = None
) -> AsyncIterator[LockBreaker]:
    """Connect to etcd for as long as a lock is looked at and broken.

    Args:
        endpoints: URLs of members.
        key_prefix: What all keys begin with.
        access: How etcd knows who breaks it.

    Raises:
        SettingsError: A file of `access` cannot be used.
    """
    # Whoever breaks the lock is told what etcd says: a line of the log beside it would say it twice.
    etcd = EtcdClient(endpoints, access=access, is_telling=False)
    try:
        yield LockBreaker(etcd, key_prefix)
    finally:
        await etcd.close()


def _after(view: View, change: Change, revision: int) -> View:
    details = details_after(change, Details(view.request, view.logs)) or Details()
    snapshot = Snapshot(revision=revision, record=change.record, record_revision=revision)
    return view_of(view.resource, snapshot, change.record, details)
