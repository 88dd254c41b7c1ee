"""Page tokens: what a listing needs to go on, as text that callers pass back unchanged."""

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec

from operation_service.errors import InvalidRequestError, Violation

_MAX_CHARACTERS = 2_000
_Count = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


@dataclass(frozen=True, slots=True)
class OperationsToken:
    """Where a listing of operations goes on.

    Attributes:
        revision: The moment that all its pages show.
        after_project: The last resource told.
        after_name: Likewise.
        query: What was asked for, so that a token cannot go on with something else.
    """

    revision: _Count
    after_project: str
    after_name: str
    query: str


@dataclass(frozen=True, slots=True)
class LogsToken:
    """Where a listing of logs goes on.

    Attributes:
        operation_id: Whose logs; they are never changed, so the operation and their count are the moment.
        count: How many there were at the first page.
        after: The number of the last log told.
        query: As above.
    """

    operation_id: str
    count: _Count
    after: _Count
    query: str


Token = TypeVar("Token", OperationsToken, LogsToken)


def write(token: OperationsToken | LogsToken) -> str:
    """Write a token."""
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


def read(text: str, kind: type[Token], query: str) -> Token:
    """Read a token of one kind.

    Raises:
        InvalidRequestError: It is none, or one for another query.
    """
    try:
        if len(text) <= _MAX_CHARACTERS:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            token = msgspec.json.decode(data, type=kind)
            if token.query == query:
                return token
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
        pass
    description = "must be the next_page_token of a page that was asked for with the same fields, or empty"
    raise InvalidRequestError([Violation("page_token", description)])
