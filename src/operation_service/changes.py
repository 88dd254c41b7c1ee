"""Tells from etcd's events what happened to operations. Pure."""

import logging
from collections.abc import Callable, Iterable

from etcd3.etcdrpc.kv_pb2 import Event as EtcdEvent
from msgspec import Struct
from msgspec.structs import replace

from operation_service.codec import decode_record
from operation_service.errors import CorruptRecordError
from operation_service.etcd_watch import Batch
from operation_service.keys import Keys, resource_named
from operation_service.layout import compare
from operation_service.model import Event, Lock, Record, Resource

_log = logging.getLogger(__name__)


class Occurrence(Struct, frozen=True, gc=False):
    """One thing that happened to one operation.

    Thousands are kept for whoever may ask (`watch_hub.py`), so the operation is kept as it is in etcd: as one object,
    and not as the fifteen that it is made of.

    Attributes:
        resource: Whose.
        event: What. None: its lock has gone; what that means, the record tells (`expiry_event`).
        revision: At which revision of etcd.
        written: The record after it, which can be read. None: the lock has gone; the record, which did not change, is
            to be read from etcd.
        together: The resources that are told of in this revision, in this order. Empty: this one alone.
        place: Which of them this one is.
    """

    resource: Resource
    event: Event | None
    revision: int
    written: bytes | None = None
    together: tuple[Resource, ...] = ()
    place: int = 0

    def record(self) -> Record | None:
        """Return the operation after it; None where `written` is."""
        if self.written is None:
            return None
        record = decode_record(str(self.resource).encode(), self.written)
        return replace(record, fencing_token=self.revision) if record.fencing_token is None else record

    @property
    def leaves_locked(self) -> bool:
        """Whether the resource is locked after it."""
        # Records are written by changes alone, and of those the ones that leave a lock behind carry its facts.
        return self.event is Event.RENEWED or self.event is Event.LOCKED or self.event is Event.LOGGED

    def told_up_to(self, is_told: Callable[[Resource], bool] = lambda _: True) -> int:
        """Return up to which revision everything has been told to somebody once this has.

        Much may happen in one revision: changes that were committed together, locks on one lease. Whoever has heard of
        some of it has to resume at that very revision; unless the rest is not for him.

        Args:
            is_told: Whether he is told of a resource.
        """
        is_last = not any(is_told(resource) for resource in self.together[self.place + 1 :])
        return self.revision if is_last else self.revision - 1


class Changed:
    """What one revision did to the keys of one resource.

    Attributes:
        resource: Whose.
        record: The record as it was written, if it was.
        record_key: Its key then.
        lock: The lock as it was written, if it was.
        is_record_deleted: Whether the record was deleted.
        is_lock_deleted: Whether the lock was deleted.
    """

    __slots__ = ("is_lock_deleted", "is_record_deleted", "lock", "record", "record_key", "resource")

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.record: bytes | None = None
        self.record_key = b""
        self.lock: bytes | None = None
        self.is_record_deleted = False
        self.is_lock_deleted = False


def occurrences(batch: Batch, keys: Keys) -> list[Occurrence]:
    """Return what happened in one revision, in the order of the keys.

    A key of ours that cannot be read is logged and left out: one record spoilt by hand must not silence all the others.
    Raises like `by_resource`.
    """
    return told(by_resource(batch, keys), batch.revision)


def told(changes: Iterable[Changed], revision: int) -> list[Occurrence]:
    """Return what `by_resource` has found as what is told of it."""
    happened = []
    for changed in changes:
        try:
            occurrence = _occurrence(changed, revision)
        except CorruptRecordError as error:
            _log.error("a change at revision %d cannot be told: %s", revision, error)
            continue
        if occurrence is not None:
            happened.append(occurrence)
    if len(happened) <= 1:
        return happened
    together = tuple([each.resource for each in happened])
    return [replace(each, together=together, place=place) for place, each in enumerate(happened)]


def by_resource(batch: Batch, keys: Keys) -> list[Changed]:
    """Return what was done to whose keys, in the order of the keys.

    Raises:
        LayoutError: From this revision on the layout is another version's.
    """
    changes: dict[bytes, Changed] = {}
    for event in batch.events:
        kv = event.kv
        try:
            name, is_record = keys.named(kv.key)
            changed = changes.get(name)
            if changed is None:
                changed = changes[name] = Changed(resource_named(name))
        except ValueError:
            if kv.key != keys.layout:
                _log.warning("the key %r is none of the service's", kv.key)
            elif event.type == EtcdEvent.PUT:
                compare(kv.key, kv.value)
            continue
        if event.type == EtcdEvent.PUT:
            if is_record:
                changed.record, changed.record_key = kv.value, kv.key
            else:
                changed.lock = kv.value
        elif is_record:
            changed.is_record_deleted = True
        else:
            changed.is_lock_deleted = True
    return list(changes.values())


def _occurrence(changed: Changed, revision: int) -> Occurrence | None:
    """Tell what happened to one resource. None: nothing that is told, such as the end of the retention time."""
    resource = changed.resource
    if changed.record is not None:
        # Read now, so that nobody is promised what cannot be told.
        record = decode_record(changed.record_key, changed.record)
        return Occurrence(resource, record.event, revision, changed.record)
    if changed.is_lock_deleted and not changed.is_record_deleted:
        return Occurrence(resource, None, revision)
    return None


def expiry_event(lock: Lock | None) -> Event:
    """Return what the end of a lock's time means."""
    return Event.OPERATOR_DEAD if lock is not None and lock.is_disabled_cancel else Event.EXPIRED
