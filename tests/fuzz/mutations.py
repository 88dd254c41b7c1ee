"""Ways to spoil the bytes of a message."""

from collections.abc import Callable
from random import Random

Mutation = Callable[[Random, bytes], bytes]

_WIRE_TYPES = 8
_TAGS = (1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 100, 2**29 - 1)


def varint(value: int, *, extra: int = 0) -> bytes:
    """A varint, with as many needless bytes at its end as are asked for."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    for _ in range(extra):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def delimited(number: int, data: bytes) -> bytes:
    return tag(number, 2) + varint(len(data)) + data


def _insert(rng: Random, data: bytes, more: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + more + data[at:]


def flip_bits(rng: Random, data: bytes) -> bytes:
    out = bytearray(data or b"\0")
    for _ in range(rng.choice([1, 1, 2, 8])):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def truncate(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def insert_bytes(rng: Random, data: bytes) -> bytes:
    return _insert(rng, data, rng.randbytes(rng.randrange(1, 20)))


def duplicate_span(rng: Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    span = data[start : start + rng.randrange(1, 60)]
    return _insert(rng, data, span * rng.choice([1, 1, 3, 100]))


def duplicate_fields(rng: Random, data: bytes) -> bytes:
    return data * rng.choice([2, 3, 50])


def wrong_wire_type(rng: Random, data: bytes) -> bytes:
    return _insert(rng, data, tag(rng.choice(_TAGS), rng.randrange(_WIRE_TYPES)) + rng.randbytes(rng.randrange(12)))


def huge_varint(rng: Random, data: bytes) -> bytes:
    value = rng.choice([2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1, 2**64, 2**70, 2**200])
    return data + tag(rng.choice(_TAGS), 0) + varint(value)


def overlong_varint(rng: Random, data: bytes) -> bytes:
    return data + tag(rng.choice(_TAGS), 0) + varint(rng.randrange(300), extra=rng.choice([1, 5, 9, 10, 40]))


def length_claim(rng: Random, data: bytes) -> bytes:
    claim = rng.choice([len(data) + 100, 2**31 - 1, 2**31, 2**32 - 1, 5 * 10**9, 2**63, 2**64 - 1])
    return data + tag(rng.choice(_TAGS), 2) + varint(claim) + rng.randbytes(rng.randrange(10))


def groups(rng: Random, data: bytes) -> bytes:
    number, depth = rng.choice(_TAGS), rng.choice([1, 5, 99, 101, 1000, 20_000])
    ends = rng.choice([depth, depth - 1, 0, depth + 1])
    return data + tag(number, 3) * depth + tag(number, 4) * ends


def nested_messages(rng: Random, data: bytes) -> bytes:
    """Any in Any in Status, deeper than parsers go."""
    inner, number = b"", rng.choice(_TAGS)
    for _ in range(rng.choice([2, 50, 101, 1000])):
        inner = delimited(number, inner)
    return data + inner


def wrong_utf_8(rng: Random, data: bytes) -> bytes:
    bad = rng.choice([b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"\x80" * 50])
    return data + delimited(rng.choice(_TAGS), bad)


def spoil_strings(rng: Random, data: bytes) -> bytes:
    """Replace one printable byte, which keeps all lengths."""
    printable = [at for at, byte in enumerate(data) if 0x61 <= byte <= 0x7A]
    if not printable:
        return data + b"\xff"
    at = rng.choice(printable)
    return data[:at] + rng.choice([b"\xff", b"\x00", b"\x80", b"\n", b"\xc3"]) + data[at + 1 :]


def unknown_fields(rng: Random, data: bytes) -> bytes:
    for _ in range(rng.choice([1, 10, 1000])):
        data += delimited(rng.randrange(20, 2**20), rng.randbytes(rng.randrange(8)))
    return data


def field_zero(rng: Random, data: bytes) -> bytes:
    return _insert(rng, data, tag(0, rng.randrange(_WIRE_TYPES)))


def nonsense_times(rng: Random, data: bytes) -> bytes:
    """A Timestamp, or a Status, with numbers that no clock shows."""
    seconds = tag(1, 0) + varint(rng.choice([2**63 - 1, 2**64 - 1, 253402300800]))
    return data + delimited(rng.choice(_TAGS), seconds + tag(2, 0) + varint(rng.choice([10**9, 2**64 - 1])))


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    truncate,
    insert_bytes,
    duplicate_span,
    duplicate_fields,
    wrong_wire_type,
    huge_varint,
    overlong_varint,
    length_claim,
    groups,
    nested_messages,
    wrong_utf_8,
    spoil_strings,
    unknown_fields,
    field_zero,
    nonsense_times,
)


def mutated(rng: Random, data: bytes) -> bytes:
    """Spoil a message in one way, or in several at once."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        data = rng.choice(MUTATIONS)(rng, data)
    return data
