"""Parses requests: bytes in, a message out, or what is wrong with them and in which field.

The parser of protobuf itself says only that it cannot, and takes up to 28 times a message's size for it.
"""

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from operation_service.compression import DecompressionError, decompressed
from operation_service.errors import InvalidRequestError, Violation

_LENGTH_DELIMITED = 2
_MAX_LOOKED_INTO_BYTES = 32 * 1024
"""Megabytes of the smallest fields there are would keep all other callers waiting for seconds."""

_MAX_BYTES = {
    "n0stack.operation.v1alpha.CreateOperationRequest": 512 * 1024,
    "n0stack.operation.v1alpha.CompleteOperationRequest": 128 * 1024,
    # Is shortened before it is kept.
    "grpc.health.v1.HealthCheckRequest": 4 * 1024 * 1024,
}
"""Of a request: about twice what a valid one can have. Larger ones are not parsed: that can take 28 times as much."""
_MAX_BYTES_OF_OTHERS = 32 * 1024
_MAX_FIELDS_LOOKED_AT = 1_000

Shorten = Callable[[Message], Message]


def parser(
    request_class: type[Message], shorten: Shorten | None = None
) -> Callable[[bytes], Message | InvalidRequestError]:
    """Return what parses requests of a type.

    Args:
        request_class: The type.
        shorten: Makes of a request that was parsed what is kept of it. None: all of it is.
    """
    max_bytes = _MAX_BYTES.get(request_class.DESCRIPTOR.full_name, _MAX_BYTES_OF_OTHERS)

    def parse(data: bytes) -> Message | InvalidRequestError:
        try:
            data = decompressed(data)
            if len(data) > max_bytes:
                return InvalidRequestError([_largest(data, request_class, max_bytes)])
            request = request_class.FromString(data)
            return shorten(request) if shorten else request
        except DecompressionError as error:
            return InvalidRequestError([Violation("", str(error))])
        except DecodeError:
            return InvalidRequestError(_violations(data, request_class))

    return parse


def _largest(data: bytes, request_class: type[Message], max_bytes: int) -> Violation:
    """Name the field that makes a request too large, without parsing it."""
    sizes: Counter[int] = Counter()
    with contextlib.suppress(IndexError):
        at = 0
        for _ in range(_MAX_FIELDS_LOOKED_AT):
            begin = at
            tag, at = _varint(data, at)
            match tag & 7:
                case 0:
                    _, at = _varint(data, at)
                case 1:
                    at += 8
                case 2:
                    size, at = _varint(data, at)
                    at += size
                case 5:
                    at += 4
                case _:
                    break
            sizes[tag >> 3] += at - begin
    field = request_class.DESCRIPTOR.fields_by_number.get(sizes.most_common(1)[0][0]) if sizes else None
    if field is None:
        return Violation("", f"the request must be {max_bytes} bytes or less")
    return Violation(field.name, f"is too large: the whole request must be {max_bytes} bytes or less")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number; return it, and where it ends.

    Raises:
        IndexError: The data end in it, or it has no end.
    """
    value = 0
    for place in range(10):
        value |= (data[at + place] & 0x7F) << 7 * place
        if data[at + place] < 0x80:  # noqa: PLR2004, the flag of a byte that is followed by another
            return value, at + place + 1
    raise IndexError


def _violations(data: bytes, request_class: type[Message]) -> list[Violation]:
    """Name the fields that keep a request from being parsed: the parser itself says only that it cannot."""
    whole = [Violation("", f"the request is not a serialized {request_class.DESCRIPTOR.full_name}")]
    if len(data) > _MAX_LOOKED_INTO_BYTES:
        return whole
    try:
        # To a message without fields all fields are unknown, and nothing in them is looked into.
        unknown: Any = UnknownFieldSet(Empty.FromString(data))
    except DecodeError:
        return whole
    wrong: dict[str, str] = {}
    for each in unknown:
        field: Any = request_class.DESCRIPTOR.fields_by_number.get(each.field_number)
        if field is None or each.wire_type != _LENGTH_DELIMITED:
            continue
        if field.type == FieldDescriptor.TYPE_STRING and not _is_utf8(each.data):
            wrong[field.name] = "must be valid UTF-8"
        elif field.type == FieldDescriptor.TYPE_MESSAGE and not _is_parsable(field, each.data):
            wrong[field.name] = f"must be a {field.message_type.full_name}, its strings valid UTF-8"
    return [Violation(name, description) for name, description in wrong.items()] or whole


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_parsable(field: Any, data: bytes) -> bool:  # noqa: ANN401, the stubs know two kinds of descriptors
    try:
        GetMessageClass(field.message_type).FromString(data)
    except DecodeError:
        return False
    return True
