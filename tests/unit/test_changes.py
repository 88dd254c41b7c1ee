"""What etcd's events of one revision say has happened."""

import logging

import pytest
from etcd3.etcdrpc.kv_pb2 import Event as EtcdEvent
from etcd3.etcdrpc.kv_pb2 import KeyValue
from msgspec.structs import replace
from unit_support import FENCE, RESOURCE, a_lock, a_record, pending

from operation_service.changes import Occurrence, expiry_event, occurrences
from operation_service.codec import encode
from operation_service.etcd_watch import Batch
from operation_service.keys import Keys
from operation_service.model import Event, Lock, Phase, Record, Resource

KEYS = Keys("/test/")
REVISION = 57
FIRST, SECOND, THIRD = (Resource("project", name) for name in ("a", "a/b", "c"))
PENDING = replace(a_record(), phase=Phase.PENDING, event=Event.CREATED, lock=None, fencing_token=0)
OVER = [
    a_record(phase=Phase.SUCCEEDED, event=Event.SUCCEEDED),
    a_record(phase=Phase.FAILED, event=Event.FAILED),
    a_record(phase=Phase.CANCELLED, event=Event.CANCELLED),
]
HELD = [Event.LOCKED, Event.RENEWED, Event.LOGGED]


def put(key: bytes, value: bytes) -> EtcdEvent:
    return EtcdEvent(type=EtcdEvent.PUT, kv=KeyValue(key=key, value=value, mod_revision=REVISION))


def deleted(key: bytes, value: bytes) -> EtcdEvent:
    before = KeyValue(key=key, value=value, mod_revision=REVISION - 5)
    return EtcdEvent(type=EtcdEvent.DELETE, kv=KeyValue(key=key, mod_revision=REVISION), prev_kv=before)


def record_put(record: Record, resource: Resource = RESOURCE) -> EtcdEvent:
    return put(KEYS.record(resource), encode(record))


def record_deleted(resource: Resource = RESOURCE) -> EtcdEvent:
    return deleted(KEYS.record(resource), encode(a_record()))


def lock_put(resource: Resource = RESOURCE) -> EtcdEvent:
    return put(KEYS.lock(resource), encode(a_lock()))


def lock_deleted(resource: Resource = RESOURCE, *, is_disabled_cancel: bool = False) -> EtcdEvent:
    return deleted(KEYS.lock(resource), encode(a_lock(is_disabled_cancel=is_disabled_cancel)))


def happened(*events: EtcdEvent) -> list[Occurrence]:
    """What happened in one revision; etcd sends its events in the order of the keys."""
    in_order = tuple(sorted(events, key=lambda event: event.kv.key))
    return occurrences(Batch(REVISION, in_order), KEYS)


def told(event: Event | None, record: Record | None = None) -> Occurrence:
    return Occurrence(RESOURCE, event, REVISION, encode(record) if record is not None else None)


def fencing_token_after(occurrence: Occurrence) -> int | None:
    record = occurrence.record()
    assert record is not None
    return record.fencing_token


class TestARecordThatIsPut:
    def test_is_created(self) -> None:
        assert happened(record_put(PENDING)) == [told(Event.CREATED, PENDING)]

    @pytest.mark.parametrize("event", [Event.LOCKED, Event.RENEWED])
    def test_with_a_lock_put_is_one_occurrence(self, event: Event) -> None:
        record = a_record(event=event)
        assert happened(record_put(record), lock_put()) == [told(event, record)]

    def test_is_logged_and_still_locked(self) -> None:
        record = a_record(event=Event.LOGGED)
        assert happened(record_put(record)) == [told(Event.LOGGED, record)]

    @pytest.mark.parametrize("record", OVER, ids=lambda record: record.event)
    def test_with_the_lock_deleted_is_one_occurrence_and_no_expiry(self, record: Record) -> None:
        assert happened(record_put(record), lock_deleted()) == [told(record.event, record)]

    def test_is_cancelled_while_nobody_held_it(self) -> None:
        record = replace(pending().record or PENDING, phase=Phase.CANCELLED, event=Event.CANCELLED)
        assert happened(record_put(record)) == [told(Event.CANCELLED, record)]

    @pytest.mark.parametrize("event", HELD)
    def test_that_was_acquired_has_the_revision_of_the_change_as_its_fencing_token(self, event: Event) -> None:
        (occurrence,) = happened(record_put(a_record(event=event, fencing_token=None)))
        assert fencing_token_after(occurrence) == REVISION

    def test_keeps_the_fencing_token_that_it_has(self) -> None:
        (occurrence,) = happened(record_put(a_record()))
        assert fencing_token_after(occurrence) == FENCE

    @pytest.mark.parametrize("event", Event)
    def test_leaves_the_resource_locked_if_its_holder_made_the_change(self, event: Event) -> None:
        (occurrence,) = happened(record_put(a_record(event=event)))
        assert occurrence.leaves_locked == (event in HELD)


class TestALockThatIsDeletedAlone:
    def test_has_run_out_and_its_record_is_to_be_read(self) -> None:
        assert happened(lock_deleted()) == [told(None)]

    @pytest.mark.parametrize(
        ("lock", "event"),
        [
            (a_lock(is_disabled_cancel=False), Event.EXPIRED),
            (a_lock(is_disabled_cancel=True), Event.OPERATOR_DEAD),
            (None, Event.EXPIRED),
        ],
        ids=["cancel enabled", "cancel disabled", "unknown"],
    )
    def test_means_what_the_record_says_then(self, lock: Lock | None, event: Event) -> None:
        assert expiry_event(lock) is event

    def test_whose_record_goes_too_is_nothing_that_is_told(self) -> None:
        assert happened(lock_deleted(), record_deleted()) == []


class TestWhatIsNotTold:
    def test_a_record_that_is_deleted(self) -> None:
        assert happened(record_deleted()) == []

    def test_a_lock_that_is_put_alone(self) -> None:
        assert happened(lock_put()) == []

    def test_nothing(self) -> None:
        assert happened() == []


class TestSeveralResourcesInOneRevision:
    def test_are_told_one_by_one_and_only_the_last_completes_the_revision(self) -> None:
        told_of = happened(
            lock_deleted(FIRST),
            lock_deleted(SECOND),
            lock_deleted(THIRD),
            record_put(OVER[0], THIRD),
        )
        assert [(each.resource, each.event, each.revision, each.told_up_to()) for each in told_of] == [
            (FIRST, None, REVISION, REVISION - 1),
            (SECOND, None, REVISION, REVISION - 1),
            (THIRD, Event.SUCCEEDED, REVISION, REVISION),
        ]

    def test_to_somebody_who_is_told_of_some_the_last_of_these_completes_the_revision(self) -> None:
        first, second, third = happened(lock_deleted(FIRST), lock_deleted(SECOND), lock_deleted(THIRD))
        assert first.told_up_to(lambda resource: resource == FIRST) == REVISION
        assert first.told_up_to(lambda resource: resource in {FIRST, THIRD}) == REVISION - 1
        assert second.told_up_to(lambda resource: resource == SECOND) == REVISION
        assert third.told_up_to(lambda _: True) == REVISION

    def test_the_last_that_is_told_completes_the_revision_whatever_comes_behind_it(self) -> None:
        told_of = happened(lock_deleted(FIRST), lock_deleted(SECOND), record_deleted(THIRD), lock_deleted(THIRD))
        assert [(each.resource, each.told_up_to()) for each in told_of] == [(FIRST, REVISION - 1), (SECOND, REVISION)]

    def test_each_has_its_own_record_and_lock(self) -> None:
        ours, theirs = a_record(event=Event.LOCKED), PENDING
        first, second = happened(record_put(ours, FIRST), lock_put(FIRST), record_put(theirs, SECOND))
        assert (first.record(), first.leaves_locked) == (ours, True)
        assert (second.record(), second.leaves_locked) == (theirs, False)


class TestWhatCannotBeRead:
    @pytest.mark.parametrize(
        "event",
        [
            put(KEYS.record(FIRST), b"by hand"),
            put(KEYS.record(FIRST), b""),
            put(b"/test/records/no-slash", encode(a_record())),
            put(b"/test/records/project/\xff", encode(a_record())),
            put(b"/test/middle/project/name", b"in between"),
            put(b"/elsewhere", b""),
        ],
        ids=["record", "empty record", "no resource", "not ASCII", "in between", "elsewhere"],
    )
    @pytest.mark.parametrize("resource", [SECOND, Resource("a", "a")], ids=["behind", "before"])
    def test_is_left_out_and_logged_and_silences_nobody_else(
        self, caplog: pytest.LogCaptureFixture, event: EtcdEvent, resource: Resource
    ) -> None:
        (occurrence,) = happened(event, record_put(PENDING, resource))
        assert (occurrence.resource, occurrence.told_up_to()) == (resource, REVISION)
        assert [record.levelno >= logging.WARNING for record in caplog.records] == [True]
