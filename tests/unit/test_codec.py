"""What is written in etcd: read back as it was, readable to a person, and never a crash whatever is there."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from etcd3 import etcdrpc
from etcd3.etcdrpc.kv_pb2 import KeyValue
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import FieldInfo, asdict, fields, replace
from unit_support import a_lock, a_record

from operation_service import details, render
from operation_service.codec import decode_lock, decode_log, decode_record, encode
from operation_service.errors import CorruptRecordError
from operation_service.model import Event, Failure, Lock, Log, Logs, Phase, Record, Resource, View

KEY = b"/n0stack/operation/records/project/name"
FULL = a_record(phase=Phase.FAILED, event=Event.FAILED, failure=Failure(13, "the disk is gone", (b"\x0a\x01a",)))

times = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
texts = st.text(st.characters(codec="utf-8"))
counts = st.integers(0, 2**63 - 1)
logs = st.builds(Log, times, texts)
locks = st.builds(
    Lock,
    token=texts,
    holder=texts,
    locked_since=times,
    locked_until=times,
    ttl_seconds=st.integers(1, 2**31),
    is_disabled_cancel=st.booleans(),
)
failures = st.builds(Failure, st.integers(1, 16), texts, st.lists(st.binary()).map(tuple))
records = st.builds(
    Record,
    operation_id=texts,
    phase=st.sampled_from(Phase),
    event=st.sampled_from(Event),
    change_id=texts,
    lock=st.none() | locks,
    fencing_token=st.none() | counts,
    creator=texts,
    creator_token=texts,
    request_digest=texts,
    log_count=counts,
    last_log=st.none() | logs,
    failure=st.none() | failures,
)

Decode = Callable[[bytes, bytes], Record | Lock | Log]
every_kind = pytest.mark.parametrize(
    ("decode", "value"),
    [(decode_record, FULL), (decode_lock, a_lock()), (decode_log, Log(datetime(2026, 1, 1, tzinfo=UTC), "a"))],
    ids=["record", "lock", "log"],
)

every_decoder = pytest.mark.parametrize(
    "decode", [decode_record, decode_lock, decode_log], ids=["record", "lock", "log"]
)


def spoilt(value: Record | Lock | Log, **changes: Any) -> bytes:
    """A value as it is written, with parts of it changed by hand."""
    written = json.loads(encode(value))
    for path, part in changes.items():
        inner = written
        *way, last = path.split("__")
        for step in way:
            inner = inner[step]
        inner[last] = part
    return json.dumps(written).encode()


@given(records)
def test_a_record_is_read_back_as_it_was(record: Record) -> None:
    assert decode_record(KEY, encode(record)) == record


@given(locks)
def test_a_lock_is_read_back_as_it_was(lock: Lock) -> None:
    assert decode_lock(KEY, encode(lock)) == lock


@given(logs)
def test_a_log_is_read_back_as_it_was(log: Log) -> None:
    assert decode_log(KEY, encode(log)) == log


def test_a_person_can_read_it() -> None:
    assert json.loads(encode(FULL)) == {
        "operation_id": "operation-1",
        "phase": "FAILED",
        "event": "FAILED",
        "change_id": "change-1",
        "lock": {
            "token": "peer-self",
            "holder": "192.0.2.1:51234",
            "locked_since": "2026-01-02T03:03:45.678901Z",
            "locked_until": "2026-01-02T03:04:45.678901Z",
            "ttl_seconds": 60,
            "is_disabled_cancel": False,
        },
        "fencing_token": 41,
        "creator": "192.0.2.1:51234",
        "creator_token": "peer-self",
        "request_digest": "digest",
        "log_count": 2,
        "last_log": {"ts": "2026-01-02T03:03:45.678901Z", "message": "the newest log"},
        "failure": {"code": 13, "message": "the disk is gone", "details": ["CgFh"]},
    }


def test_it_is_one_line_in_the_language_of_its_author() -> None:
    written = encode(Log(datetime(2026, 1, 1, tzinfo=UTC), "起動\n済み")).decode()
    assert "起動" in written
    assert "\n" not in written


@pytest.mark.parametrize("field", ["operation_id", "phase", "event", "change_id"])
def test_a_record_without_what_every_record_has_is_corrupt(field: str) -> None:
    written = asdict(FULL)
    del written[field]
    with pytest.raises(CorruptRecordError, match=field):
        decode_record(KEY, encode(written))


@pytest.mark.parametrize("field", [field for field in fields(Record) if not field.required], ids=lambda f: f.name)
def test_what_an_older_version_did_not_write_has_its_default(field: FieldInfo) -> None:
    written = asdict(FULL)
    del written[field.name]
    older: dict[str, Any] = {field.name: field.default}
    assert decode_record(KEY, encode(written)) == replace(FULL, **older)


@every_kind
def test_what_a_newer_version_has_added_is_ignored(decode: Decode, value: Record | Lock | Log) -> None:
    newer = {"new_text": "a", "new_thing": {"deep": [1, None, {"x": "y"}]}, "new_flag": True}
    assert decode(KEY, spoilt(value, **newer)) == value


@every_decoder
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"\0",
        b"null",
        b"true",
        b"1",
        b'"text"',
        b"[]",
        b"{}",
        b"{",
        b"}",
        b"not JSON at all",
        b"\xff\xfe",
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
    ],
    ids=repr,
)
def test_what_is_none_is_corrupt_and_its_key_is_named(decode: Decode, data: bytes) -> None:
    with pytest.raises(CorruptRecordError) as caught:
        decode(KEY, data)
    assert caught.value.metadata == {"key": KEY.decode()}
    assert KEY.decode() in caught.value.message


@every_kind
def test_half_of_it_is_corrupt(decode: Decode, value: Record | Lock | Log) -> None:
    whole = encode(value)
    for length in range(len(whole)):
        with pytest.raises(CorruptRecordError):
            decode(KEY, whole[:length])


@every_kind
@given(data=st.binary() | texts.map(str.encode))
def test_whatever_it_is_it_is_read_or_corrupt(decode: Decode, value: Record | Lock | Log, data: bytes) -> None:
    try:
        read = decode(KEY, data)
    except CorruptRecordError:
        return
    assert isinstance(read, type(value))


@pytest.mark.parametrize(
    ("field", "part"),
    [
        ("phase", "SLEEPING"),
        ("phase", "LOCKED"),
        ("phase", ""),
        ("phase", 1),
        ("event", "pending"),
        ("operation_id", None),
        ("lock", {}),
        ("lock", []),
        ("lock__is_disabled_cancel", "false"),
        ("lock__ttl_seconds", None),
        ("lock__ttl_seconds", "60"),
        ("lock__locked_until", "yesterday"),
        ("lock__locked_until", 1_767_225_600),
        ("lock__locked_until", None),
        ("fencing_token", "41"),
        ("log_count", None),
        ("last_log__ts", "2026-13-01T00:00:00Z"),
        ("failure__details", "CgFh"),
        ("failure__details", ["not base64!"]),
    ],
)
def test_a_field_of_the_wrong_kind_is_corrupt_and_is_named(field: str, part: object) -> None:
    with pytest.raises(CorruptRecordError) as caught:
        decode_record(KEY, spoilt(FULL, **{field: part}))
    assert field.replace("__", ".") in caught.value.message


@pytest.mark.parametrize(
    ("field", "part"),
    [
        ("lock__ttl_seconds", -1),
        ("lock__ttl_seconds", 0),
        ("lock__ttl_seconds", 10**30),
        ("fencing_token", -1),
        ("fencing_token", 2**63),
        ("log_count", -1),
        ("log_count", 10**30),
        ("failure__code", 0),
        ("failure__code", 2**31),
    ],
)
def test_a_number_that_cannot_be_is_corrupt(field: str, part: int) -> None:
    # It could not be told, or reckoned with.
    with pytest.raises(CorruptRecordError):
        decode_record(KEY, spoilt(FULL, **{field: part}))


@pytest.mark.parametrize(
    ("field", "part"),
    [
        ("lock__ttl_seconds", 1),
        ("lock__ttl_seconds", 10 * 365 * 86_400),
        ("fencing_token", 0),
        ("fencing_token", 2**63 - 1),
        ("log_count", 0),
        ("failure__code", 1),
        ("failure__code", 2**31 - 1),
    ],
)
def test_a_number_at_the_edge_is_read_and_can_be_told(field: str, part: int) -> None:
    told(decode_record(KEY, spoilt(FULL, **{field: part})))


@pytest.mark.parametrize("field", ["lock__locked_since", "lock__locked_until", "last_log__ts"])
@pytest.mark.parametrize("time", ["2026-01-02T03:04:05", "2026-01-02T03:04:05+09:00", "2026-01-02T03:04:05-00:30"])
def test_a_time_that_is_not_in_utc_is_corrupt(field: str, time: str) -> None:
    # It could not be compared with any other, or would be told with a Z behind it all the same.
    with pytest.raises(CorruptRecordError):
        decode_record(KEY, spoilt(FULL, **{field: time}))


def test_the_same_holds_for_a_lock_and_a_log_by_themselves() -> None:
    with pytest.raises(CorruptRecordError):
        decode_lock(KEY, spoilt(a_lock(), locked_until="2026-01-02T03:04:05"))
    with pytest.raises(CorruptRecordError):
        decode_lock(KEY, spoilt(a_lock(), ttl_seconds=-1))
    with pytest.raises(CorruptRecordError):
        decode_log(KEY, spoilt(Log(datetime(2026, 1, 1, tzinfo=UTC), "a"), ts="2026-01-02T03:04:05"))


def test_a_text_that_is_not_utf_8_is_corrupt() -> None:
    with pytest.raises(CorruptRecordError):
        decode_log(KEY, b'{"ts": "2026-01-02T03:04:05Z", "message": "\xff"}')


def test_what_is_nested_too_deeply_is_corrupt() -> None:
    deep = b'{"ts": "2026-01-02T03:04:05Z", "message": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(CorruptRecordError):
        decode_log(KEY, deep)


def test_an_error_whose_details_were_spoilt_by_hand_is_corrupt() -> None:
    with pytest.raises(CorruptRecordError):
        told(decode_record(KEY, spoilt(FULL, failure__details=["/w=="])))


def test_a_request_that_was_spoilt_by_hand_is_corrupt() -> None:
    record = a_record(log_count=0, last_log=None)
    answer = etcdrpc.ResponseOp(response_range=etcdrpc.RangeResponse(kvs=[KeyValue(key=KEY, value=b"\xff")]))
    with pytest.raises(CorruptRecordError):
        told(record, details.take(record, iter([answer])).request)


def told(record: Record, request: bytes | None = None) -> None:
    """Render a record: what is read without a complaint has to be tellable."""
    render.operation_record(
        View(
            resource=Resource("project", "name"),
            record=record,
            revision=1,
            lock=None,
            remaining=None,
            request=request,
            logs=Logs(),
        )
    )
