"""Tells from etcd's events what happened to operations. Pure."""

import logging
from collections.abc import Callable, Iterable

from etcd3.etcdrpc.kv_pb2 import Event as EtcdEvent
from msgspec import Struct
from msgspec.structs import replace

from operation_service.codec import decode_record
from operation_service.errors import CorruptRecordError
from operation_service.etcd_watch import Batch
from operation_service.keys import Keys
from operation_service.model import Event, Lock, Record, Resource

_log = logging.getLogger(__name__)


class Occurrence(Struct, frozen=True):
    """One thing that happened to one operation.

    Attributes:
        resource: Whose.
        event: What. None: its lock has gone; what that means, the record tells (`expiry_event`).
        revision: At which revision of etcd.
        record: The operation after it. None: its lock has gone; the record, which did not change, is to be read.
        lock: The lock after it, if the resource is locked.
        together: The resources that are told of in this revision, in this order. Empty: this one alone.
        place: Which of them this one is.
    """

    resource: Resource
    event: Event | None
    revision: int
    record: Record | None = None
    lock: Lock | None = None
    together: tuple[Resource, ...] = ()
    place: int = 0

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
    """What one revision did to the keys of one resource."""

    __slots__ = ("lock_deleted", "lock_put", "record_deleted", "record_put", "resource")

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.record_put: EtcdEvent | None = None
        self.record_deleted: EtcdEvent | None = None
        self.lock_put: EtcdEvent | None = None
        self.lock_deleted: EtcdEvent | None = None


def occurrences(batch: Batch, keys: Keys) -> list[Occurrence]:
    """Return what happened in one revision, in the order of the keys.

    A key of ours that cannot be read is logged and left out: one record spoilt by hand must not silence all the others.
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
    """Return what was done to whose keys, in the order of the keys."""
    changes: dict[Resource, Changed] = {}
    for event in batch.events:
        try:
            resource, is_record = keys.named(event.kv.key)
        except ValueError:
            _log.warning("the key %r is none of the service's", event.kv.key)
            continue
        changed = changes.get(resource)
        if changed is None:
            changed = changes[resource] = Changed(resource)
        if event.type == EtcdEvent.PUT:
            if is_record:
                changed.record_put = event
            else:
                changed.lock_put = event
        elif is_record:
            changed.record_deleted = event
        else:
            changed.lock_deleted = event
    return list(changes.values())


def _occurrence(changed: Changed, revision: int) -> Occurrence | None:
    """Tell what happened to one resource. None: nothing that is told, such as the end of the retention time."""
    resource = changed.resource
    if changed.record_put is not None:
        kv = changed.record_put.kv
        record = decode_record(kv.key, kv.value)
        if record.fencing_token is None:
            record = replace(record, fencing_token=revision)
        # Records are written by changes alone, and of those the ones that leave a lock behind carry its facts.
        is_locked = record.event is Event.RENEWED or record.event is Event.LOCKED or record.event is Event.LOGGED
        lock = record.lock if is_locked else None
        return Occurrence(resource, record.event, revision, record, lock)
    if changed.lock_deleted is not None and changed.record_deleted is None:
        return Occurrence(resource, None, revision)
    return None


def expiry_event(lock: Lock | None) -> Event:
    """Return what the end of a lock's time means."""
    return Event.OPERATOR_DEAD if lock is not None and lock.is_disabled_cancel else Event.EXPIRED
