"""How records, locks and logs are written in etcd: as JSON, so that a person with etcdctl can read them."""

from typing import TypeVar

import msgspec

from operation_service.errors import CorruptRecordError
from operation_service.model import Lock, Log, Record

T = TypeVar("T", Record, Lock, Log)

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
    return _decode(_record, key, value)


def decode_lock(key: bytes, value: bytes) -> Lock:
    """Read a lock.

    Raises:
        CorruptRecordError: It is none.
    """
    return _decode(_lock, key, value)


def decode_log(key: bytes, value: bytes) -> Log:
    """Read a log.

    Raises:
        CorruptRecordError: It is none.
    """
    return _decode(_log, key, value)


def _decode(decoder: msgspec.json.Decoder[T], key: bytes, value: bytes) -> T:
    try:
        return decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptRecordError(key.decode(errors="replace"), str(error)) from error
