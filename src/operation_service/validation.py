"""The limits of CONTRACT section 4. All violations of a request are collected, and told at once."""

import hashlib
import re
from collections.abc import Mapping, Sequence

from google.protobuf.any_pb2 import Any
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status

from operation_service.errors import InvalidRequestError, Violation
from operation_service.model import Failure, Resource, State

FENCING_TOKEN_METADATA = "n0stack-fencing-token"  # noqa: S105, the name of a header

MAX_NAME_CHARACTERS = 253
MAX_TOKEN_BYTES = 256
MAX_LOG_MESSAGE_BYTES = 4 * 1024
MAX_REQUEST_BYTES = 256 * 1024
MAX_ERROR_BYTES = 64 * 1024
"""Not in the contract; etcd takes 1.5 MiB a change at the most, so there has to be some limit."""
MAX_DETAILS = 100
"""Not in the contract, either: the smallest take twenty times their bytes."""
MAX_STATES = 1_000
"""Far more than there are; a million would keep all other callers waiting while each is looked at."""
DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1_000
_MAX_UINT64 = 2**64 - 1

_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SEGMENT = re.compile(r"[A-Za-z0-9._:@-]+")
_NAME = re.compile(rf"(?:(?!\.{{1,2}}(?:/|\Z)){_SEGMENT.pattern}(?:/(?!\Z)|\Z))+")
_DECIMAL = re.compile(r"[0-9]{1,20}")
_TYPE_URL = re.compile(r"[A-Za-z0-9._~:%/-]*/[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")

_PROJECT_RULE = "must be 1 to 63 characters of A-Z a-z 0-9 . _ -, the first of them a letter or digit"
_NAME_RULE = (
    "must be 1 to 253 characters: segments of A-Z a-z 0-9 . _ : @ - joined by single slashes, "
    'none of them "." or "..", such as "virtual_machines/web-1"'
)


class Validator:
    """Checks the fields of one request, and remembers what is wrong."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def finish(self) -> None:
        """End the checks.

        Raises:
            InvalidRequestError: Some field was wrong; it carries all of them.
        """
        if self._violations:
            raise InvalidRequestError(self._violations)

    def wrong(self, field: str, description: str) -> None:
        """Note that a field is wrong."""
        self._violations.append(Violation(field, description))

    def resource(self, project: str, name: str) -> Resource:
        """Check project and name."""
        if not _PROJECT.fullmatch(project):
            self.wrong("project", _PROJECT_RULE)
        if not is_name(name):
            self.wrong("name", _NAME_RULE)
        return Resource(project, name)

    def filter(self, project: str, name_prefix: str) -> None:
        """Check a filter on project and name, both of which may be empty."""
        if project and not _PROJECT.fullmatch(project):
            self.wrong("project", f"{_PROJECT_RULE}; or empty, for all projects")
        if name_prefix and not is_name_prefix(name_prefix):
            self.wrong("name_prefix", "must be empty, or the beginning of a name; a name " + _NAME_RULE)

    def token(self, token: str) -> None:
        """Check a proposing_peer_token."""
        if not is_token(token):
            self.wrong("proposing_peer_token", f"must be 1 to {MAX_TOKEN_BYTES} bytes of printable characters")

    def lock_for_seconds(self, seconds: int, maximum: int) -> None:
        """Check how long to lock, where a lock is asked for."""
        if not 1 <= seconds <= maximum:
            self.wrong("lock_for_seconds", f"must be 1 to {maximum}")

    def log_message(self, message: str, *, is_required: bool = False) -> None:
        """Check a line for the logs."""
        if len(message.encode()) > MAX_LOG_MESSAGE_BYTES:
            self.wrong("log_message", f"must be {MAX_LOG_MESSAGE_BYTES} bytes in UTF-8 or less")
        if is_required and not message:
            self.wrong("log_message", "must not be empty: it is what is to be added")

    def operation_request(self, request: Any) -> tuple[bytes | None, str]:
        """Check an operation_request.

        Returns:
            It, serialized, and its digest. None and an empty digest: there is none.
        """
        if not request.type_url and not request.value:
            return None, ""
        if not _TYPE_URL.fullmatch(request.type_url):
            self.wrong(
                "operation_request.type_url",
                'must be a slash and the full name of a message type after anything such as "type.googleapis.com"',
            )
        data = request.SerializeToString(deterministic=True)
        if len(data) > MAX_REQUEST_BYTES:
            self.wrong("operation_request", f"must be {MAX_REQUEST_BYTES} bytes or less")
        return data, hashlib.sha256(data).hexdigest()

    def error(self, error: Status) -> Failure:
        """Check what went wrong with an operation."""
        if error.code not in Code.values() or error.code == Code.OK:
            self.wrong(
                "error.code",
                "must be a google.rpc.Code other than OK (1 to 16); leave error unset for an operation that succeeded",
            )
        # A million details are not worth the time that it takes to look at each.
        if len(error.details) > MAX_DETAILS:
            self.wrong("error.details", f"must be {MAX_DETAILS} or less")
            return Failure(error.code, "", ())
        if error.ByteSize() > MAX_ERROR_BYTES:
            self.wrong("error", f"must be {MAX_ERROR_BYTES} bytes or less")
            return Failure(error.code, "", ())
        return Failure(error.code, error.message, tuple(detail.SerializeToString() for detail in error.details))

    def states(self, numbers: Sequence[int], known: Mapping[int, State]) -> frozenset[State]:
        """Check the states to list; `known` are the numbers that the protocol has for them."""
        if len(numbers) > MAX_STATES:
            self.wrong("states", f"must be {MAX_STATES} or less")
            return frozenset()
        unknown = sorted({number for number in numbers if number not in known})
        if unknown:
            some = ", ".join(map(str, unknown[:10]))
            self.wrong("states", f"must be states that an operation can be in, not {some}")
        return frozenset(known[number] for number in numbers if number in known)

    def page_size(self, size: int) -> int:
        """Check how many a page may hold, and return how many it will."""
        if size < 0:
            self.wrong("page_size", f"must be 0 (for {DEFAULT_PAGE_SIZE}) or more")
        return min(size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)

    def start_revision(self, revision: int) -> None:
        """Check from where to watch."""
        if revision < 0:
            self.wrong("start_revision", "must be 0 (for the current operations first) or more")

    def fencing_token(self, values: Sequence[str | bytes]) -> int | None:
        """Check what the caller sent as request metadata n0stack-fencing-token.

        Returns:
            The token; None if none was sent.
        """
        if not values:
            return None
        value = values[0]
        if (
            len(set(values)) > 1
            or not isinstance(value, str)
            or not _DECIMAL.fullmatch(value)
            or int(value) > _MAX_UINT64
        ):
            self.wrong(FENCING_TOKEN_METADATA, f"must be one decimal number from 0 to {_MAX_UINT64} (request metadata)")
            return None
        return int(value)


def is_project(project: str) -> bool:
    """Whether that can be a project."""
    return _PROJECT.fullmatch(project) is not None


def is_name(name: str) -> bool:
    """Whether that can be a resource's name."""
    return len(name) <= MAX_NAME_CHARACTERS and _NAME.fullmatch(name) is not None


def is_token(token: str) -> bool:
    """Whether that can be a proposing_peer_token."""
    # Characters first: megabytes need not be encoded.
    return 0 < len(token) <= MAX_TOKEN_BYTES and len(token.encode()) <= MAX_TOKEN_BYTES and token.isprintable()


def is_name_prefix(prefix: str) -> bool:
    """Whether a name can begin like that."""
    *segments, last = prefix.split("/")
    is_last_right = not last or _SEGMENT.fullmatch(last) is not None
    return len(prefix) <= MAX_NAME_CHARACTERS and is_last_right and all(map(_is_segment, segments))


def _is_segment(segment: str) -> bool:
    return _SEGMENT.fullmatch(segment) is not None and segment not in {".", ".."}
