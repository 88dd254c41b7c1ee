"""About how much memory things take, for those who keep some and have to know when it is enough. Pure."""

from sys import getsizeof

from operation_service.model import Failure, Logs, Record, Snapshot, View

_RECORD = 1_500
"""What a record takes, with its lock and what is kept beside it, at common lengths."""
_LOG = 250
DETAIL = 60
"""What the smallest detail of an error takes, beside its bytes."""
_VIEW = 500


def of_record(record: Record | None) -> int:
    """Return about how many bytes a record takes in memory."""
    if record is None:
        return _RECORD
    size = _RECORD
    if record.last_log is not None:
        size += getsizeof(record.last_log.message)
    if record.failure is not None:
        size += _of_failure(record.failure)
    return size


def of_view(view: View) -> int:
    """Return about how many bytes a view takes in memory."""
    return _VIEW + of_record(view.record) + _of_details(view.request, view.logs)


def of_snapshot(snapshot: Snapshot) -> int:
    """Return about how many bytes a snapshot takes in memory."""
    details = snapshot.details
    return of_record(snapshot.record) + (_of_details(details.request, details.logs) if details else 0)


def _of_details(request: bytes | None, logs: Logs) -> int:
    # Each is kept as it is, as it is told, and with the others (`Logs.written`).
    return len(request or b"") + len(logs) * _LOG + 3 * logs.size


def _of_failure(failure: Failure) -> int:
    return getsizeof(failure.message) + sum(len(detail) + DETAIL for detail in failure.details)
