"""How records, locks and logs are written in etcd: as JSON, so that a person with etcdctl can read them."""

from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec

from operation_service.errors import CorruptRecordError
from operation_service.model import Lock, Log, Record

T = TypeVar("T", Record, Lock, Log)

_MAX_REVISION = 2**63 - 1
_MAX_CODE = 2**31 - 1
_MAX_TTL_SECONDS = 9_000_000_000
"""The longest lease that etcd grants."""

_record = msgspec.json.Decoder(Record)
_lock = msgspec.json.Decoder(Lock)
_log = msgspec.json.Decoder(Log)

encode = msgspec.json.Encoder().encode
"""Write a Record, a Lock or a Log."""


def decode_record(key: bytes, value: bytes) -> Record:
    """Read a record.

    Raises:
        CorruptRecordError: It is none.
    """
    record = _decode(_record, key, value)
    is_sound = (
        0 <= (record.fencing_token or 0) <= _MAX_REVISION
        and 0 <= record.log_count <= _MAX_REVISION
        and (record.lock is None or _is_sound_lock(record.lock))
        and (record.last_log is None or _is_utc(record.last_log.ts))
        and (record.failure is None or 0 < record.failure.code <= _MAX_CODE)
    )
    return _sound(key, record, is_sound=is_sound)


def decode_lock(key: bytes, value: bytes) -> Lock:
    """Read a lock.

    Raises:
        CorruptRecordError: It is none.
    """
    lock = _decode(_lock, key, value)
    return _sound(key, lock, is_sound=_is_sound_lock(lock))


def decode_log(key: bytes, value: bytes) -> Log:
    """Read a log.

    Raises:
        CorruptRecordError: It is none.
    """
    log = _decode(_log, key, value)
    return _sound(key, log, is_sound=_is_utc(log.ts))


def _decode(decoder: msgspec.json.Decoder[T], key: bytes, value: bytes) -> T:
    try:
        return decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptRecordError(_told(key), str(error)) from error


def _sound(key: bytes, value: T, *, is_sound: bool) -> T:
    """Let pass what the service itself can have written: what follows reckons with these numbers and times."""
    if not is_sound:
        raise CorruptRecordError(_told(key), "a number or a time in it cannot be")
    return value


def _is_sound_lock(lock: Lock) -> bool:
    return 0 < lock.ttl_seconds <= _MAX_TTL_SECONDS and _is_utc(lock.locked_since) and _is_utc(lock.locked_until)


def _is_utc(moment: datetime) -> bool:
    # What msgspec reads of "Z" is this very object; another offset of zero is as good.
    return moment.tzinfo is UTC or moment.utcoffset() == timedelta()


def _told(key: bytes) -> str:
    return key.decode(errors="replace")
