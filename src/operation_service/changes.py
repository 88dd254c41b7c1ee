"""Tells from etcd's events what happened to operations. Pure."""

import logging
from dataclasses import dataclass, replace

from etcd3.etcdrpc.kv_pb2 import Event as EtcdEvent

from operation_service.codec import decode_lock, decode_record
from operation_service.errors import CorruptRecordError
from operation_service.etcd_watch import Batch
from operation_service.keys import Keys
from operation_service.model import Event, Lock, Record, Resource

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One thing that happened to one operation.

    Attributes:
        resource: Whose.
        event: What. None: its lock has gone, and etcd does not know any more what it was: the record tells.
        revision: At which revision of etcd.
        told_up_to: Up to which revision everything has been told once this has. Several things may happen in one
            revision (keys on one lease, or deleted by hand with one command), and whoever has heard of some of them
            has to resume at that very revision.
        record: The operation after it. None: its lock has gone and the record, which did not change, is to be read.
        lock: The lock after it, if the resource is locked.
    """

    resource: Resource
    event: Event | None
    revision: int
    told_up_to: int
    record: Record | None = None
    lock: Lock | None = None


@dataclass(frozen=True, slots=True)
class _Changed:
    """What one revision did to the keys of one resource."""

    record_put: EtcdEvent | None = None
    record_deleted: EtcdEvent | None = None
    lock_put: EtcdEvent | None = None
    lock_deleted: EtcdEvent | None = None


def occurrences(batch: Batch, keys: Keys) -> list[Occurrence]:
    """Return what happened in one revision, in the order of the keys.

    A key of ours that cannot be read is logged and left out: one record spoilt by hand must not silence all the others.
    """
    happened = []
    for resource, changed in _by_resource(batch, keys).items():
        try:
            occurrence = _occurrence(resource, changed, batch.revision)
        except CorruptRecordError as error:
            _log.error("a change at revision %d cannot be told: %s", batch.revision, error)
            continue
        if occurrence is not None:
            happened.append(occurrence)
    return [
        replace(occurrence, told_up_to=batch.revision - 1) if occurrence is not happened[-1] else occurrence
        for occurrence in happened
    ]


def _by_resource(batch: Batch, keys: Keys) -> dict[Resource, _Changed]:
    by_resource: dict[Resource, _Changed] = {}
    for event in batch.events:
        try:
            resource = keys.resource_of(event.kv.key)
        except ValueError:
            _log.warning("the key %r is none of the service's", event.kv.key)
            continue
        kind = "record" if keys.is_record(event.kv.key) else "lock"
        what = "put" if event.type == EtcdEvent.PUT else "deleted"
        before = by_resource.get(resource, _Changed())
        by_resource[resource] = replace(before, **{f"{kind}_{what}": event})
    return by_resource


def _occurrence(resource: Resource, changed: _Changed, revision: int) -> Occurrence | None:
    """Tell what happened to one resource. None: nothing that is told, such as the end of the retention time."""
    if changed.record_put is not None:
        kv = changed.record_put.kv
        record = decode_record(kv.key, kv.value)
        if record.fencing_token is None:
            record = replace(record, fencing_token=revision)
        # Records are written by changes alone, and of those the ones that leave a lock behind carry its facts.
        lock = record.lock if record.event in {Event.LOCKED, Event.RENEWED, Event.LOGGED} else None
        return Occurrence(resource, record.event, revision, revision, record, lock)
    if changed.lock_deleted is not None and changed.record_deleted is None:
        kv = changed.lock_deleted.prev_kv
        # etcd leaves the former value out once the revision before the event is compacted.
        event = expiry_event(decode_lock(kv.key, kv.value)) if kv.value else None
        return Occurrence(resource, event, revision, revision)
    return None


def expiry_event(lock: Lock | None) -> Event:
    """Return what the end of a lock's time means."""
    return Event.OPERATOR_DEAD if lock is not None and lock.is_disabled_cancel else Event.EXPIRED
