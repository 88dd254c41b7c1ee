"""Messages that parse, and whose every field is nonsense."""

from random import Random
from typing import Any

from fuzz.targets import KEPT_PROJECT, Method, right_request
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_STRINGS = [
    "",
    " ",
    "/",
    "..",
    "../../etc/passwd",
    "a//b",
    "vms/../vms/locked",
    "vms/locked\0",
    "vms/locked\n",
    "\u202evms",
    "ä" * 130,
    "\U0010ffff",
    "%s%n%x",
    "#",
    "x" * 254,
    "x" * 5000,
    "type.googleapis.com/",
    "type.googleapis.com/google.protobuf.Any",
    "no slash",
    "/n0stack/operation/records/",
    "\x1b[31m",
    "{{7*7}}",
    "AAAA",
    "eyJyZXZpc2lvbiI6IDF9",
    "n0stack.protobuf.Operation",
    "google.protobuf.FieldOptions",
]
_INTEGERS = [0, 1, -1, 2, 16, 17, 1000, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1]
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def fill(message: Message, rng: Random, depth: int = 0) -> None:
    """Set the fields of a message to nonsense of their types."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.15:
            continue
        times = rng.choice([1, 2, 300]) if field.is_repeated else 1
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            if depth < 4:
                for _ in range(min(times, 3)):
                    _fill_message(message, field, rng, depth)
        elif field.is_repeated:
            getattr(message, field.name).extend(_value(field, rng) for _ in range(times))
        else:
            setattr(message, field.name, _value(field, rng))


def _fill_message(message: Message, field: Any, rng: Random, depth: int) -> None:
    inner = getattr(message, field.name)
    inner = inner.add() if field.is_repeated else inner
    inner.SetInParent()
    fill(inner, rng, depth + 1)


def _value(field: Any, rng: Random) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return rng.randbytes(rng.choice([0, 1, 50, 70_000]))
        return rng.choice(_STRINGS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    low, high = _RANGES[field.cpp_type]
    return rng.choice([number for number in _INTEGERS if low <= number <= high])


def violating(method: Method, rng: Random) -> bytes:
    """A request whose every field is nonsense."""
    request = method.request_class()
    fill(request, rng)
    return request.SerializeToString()


def refused_for_one_field(method: Method, rng: Random) -> bytes:
    """A request about a kept operation that would change it, but for one field."""
    request: Any = right_request(method, rng, is_kept=True)
    names = request.DESCRIPTOR.fields_by_name
    if "name" in names and "proposing_peer_token" in names:
        request.project = KEPT_PROJECT
        request.name = rng.choice(["vms/pending", "vms/locked", "vms/expired", "vms/succeeded"])
        request.proposing_peer_token = rng.choice(["", "x" * 257, "a\nb", "\0", "\u202e", "ä" * 129, "\x7f"])
    return bytes(request.SerializeToString())
