"""Blocks of headers that are no HPACK, or too much of it."""

from collections.abc import Callable
from random import Random

from fuzz import frames
from fuzz.lane import REACTION_SECONDS, Kind, Lane

_GET = frames.block(frames.request_headers(b"/n0stack.operation.v1alpha.OperationService/GetOperation"))


def _kind(name: str, make: Callable[[Random], bytes], weight: float = 0.6) -> Kind:
    async def send(lane: Lane, rng: Random) -> str:
        async with lane.fresh() as connection:
            await connection.send(frames.header_frames(1, make(rng), end_stream=rng.random() < 0.5))
            return await connection.fate(REACTION_SECONDS)

    return Kind(f"hpack: {name}", send, weight)


def _random(rng: Random) -> bytes:
    return rng.randbytes(rng.choice([1, 5, 100, 10_000]))


def _flipped(rng: Random) -> bytes:
    out = bytearray(_GET)
    for _ in range(rng.choice([1, 5])):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _index(rng: Random) -> bytes:
    """Of an entry that is not there, up to integers that overflow."""
    return _GET + rng.choice(
        [b"\x80", b"\xff\x00", b"\xbe", b"\xff" + b"\xff" * 4 + b"\x0f", b"\xff" * 30, b"\x7f\xff"]
    )


def _table_size(rng: Random) -> bytes:
    sizes = b"".join(
        frames.table_size(rng.choice([0, 1, 4096, 4097, 2**31])) for _ in range(rng.choice([1, 2, 3, 500]))
    )
    return sizes + _GET if rng.random() < 0.7 else _GET + sizes


def _huffman(rng: Random) -> bytes:
    """Padding that is too long, the end-of-string symbol, noise."""
    value = rng.choice([b"\xff\xff\xff\xff", b"\x00", b"\xff" * 200, rng.randbytes(30)])
    return _GET + b"\x00\x01x" + bytes([0x80 | min(len(value), 126)]) + value[:126]


def _bomb(rng: Random) -> bytes:
    """A large entry of the dynamic table, named again and again."""
    return _GET + frames.literal(b"x-bomb", b"y" * 3900, 0x40) + b"\xbe" * rng.choice([3, 100, 15_000])


def _churn(rng: Random) -> bytes:
    """Entries that push each other out of the table."""
    return _GET + b"".join(
        frames.literal(b"x-%d" % number, b"y" * 50, 0x40) for number in range(rng.choice([100, 2000]))
    )


def _length(rng: Random) -> bytes:
    return _GET + b"\x00\x7f" + rng.choice([b"\xff\xff\xff\x7f", b"\x80\x80\x80\x80\x80\x80\x01", b"\x00"]) + b"x"


KINDS = [
    _kind("noise", _random, 1.5),
    _kind("bits flipped", _flipped, 1.5),
    _kind("index of nothing", _index),
    _kind("table size", _table_size),
    _kind("huffman", _huffman),
    _kind("bomb", _bomb, 0.3),
    _kind("table churn", _churn, 0.2),
    _kind("length claims", _length),
]
