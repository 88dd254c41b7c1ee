"""An operation's request and logs: keys of their own, written once, never changed, gone with the operation.

So what was read of them once holds for as long as the operation does, and a read by their exact keys costs the same
however many logs there are (rule 10).
"""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

from etcd3 import etcdrpc
from etcd3.etcdrpc.kv_pb2 import KeyValue

from operation_service import etcd_ops
from operation_service.codec import decode_log
from operation_service.errors import CorruptRecordError
from operation_service.keys import KeyRange, Keys
from operation_service.model import LOGS_SHOWN, Details, Log, Logs, Record, Resource

_log = logging.getLogger(__name__)

_LONG_AGO = datetime.fromtimestamp(0, UTC)


def ask(keys: Keys, resource: Resource, record: Record, revision: int = 0) -> list[etcd_ops.Op]:
    """Return the reads, 0 to 2 of them, that bring an operation's details; at a revision, or (0) as they are now."""
    ops = []
    if record.request_digest:
        ops.append(etcd_ops.get(keys.request(resource, record.operation_id), revision=revision))
    if record.log_count:
        newest = log_range(keys, resource, record.operation_id, record.log_count - LOGS_SHOWN + 1, record.log_count)
        ops.append(etcd_ops.get_range(newest, revision=revision))
    return ops


def reads(record: Record) -> int:
    """Return how many reads `ask` returns."""
    return bool(record.request_digest) + bool(record.log_count)


def take(record: Record, responses: Iterator[etcdrpc.ResponseOp]) -> Details:
    """Take the answers to `ask` for the same record."""
    request = None
    if record.request_digest:
        request = next((kv.value for kv in next(responses).response_range.kvs), None)
    logs = Logs()
    if record.log_count:
        logs = Logs(read_log(kv) for kv in next(responses).response_range.kvs)
    return Details(request, logs)


def are_in(record: Record) -> bool:
    """Whether a record itself tells all of an operation's details: there is no request, and no log but the newest."""
    return not record.request_digest and record.log_count == (record.last_log is not None)


def told_by(record: Record) -> Details:
    """Return the details that are in a record."""
    return Details(logs=Logs([record.last_log])) if record.last_log is not None else Details()


def is_whole(record: Record, found: Details) -> bool:
    """Whether everything is there that a record says there is."""
    has_request = found.request is not None or not record.request_digest
    return has_request and len(found.logs) == min(record.log_count, LOGS_SHOWN)


def read_log(kv: KeyValue) -> Log:
    """Read a log. One that was spoilt by hand is no reason to lose sight of the operation, or to fail a change."""
    try:
        return decode_log(kv.key, kv.value)
    except CorruptRecordError as error:
        _log.error("a log cannot be read: %s", error)
        return Log(_LONG_AGO, f"({error.message})")


def log_range(keys: Keys, resource: Resource, operation_id: str, first: int, last: int) -> KeyRange:
    """Return the keys of the logs number `first` (at least 1) to `last`."""
    start = keys.log(resource, operation_id, max(1, first))
    return KeyRange(start, keys.log(resource, operation_id, last + 1))
