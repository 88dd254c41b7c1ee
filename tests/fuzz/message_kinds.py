"""Bad messages in right calls."""

import functools
import gzip
import zlib
from collections.abc import Callable
from random import Random

from fuzz import frames
from fuzz.frames import Header
from fuzz.lane import Kind, Lane
from fuzz.mutations import MUTATIONS, Mutation, delimited, mutated
from fuzz.nonsense import refused_for_one_field, violating
from fuzz.targets import METHODS, Method, right_request

_BIG = 5 * 1024 * 1024


async def _send(lane: Lane, method: Method, data: bytes, *more: Header) -> str:
    """One call with DATA as it is."""
    return await lane.request([*frames.request_headers(method.path), *more], data)


def _bytes_kind(name: str, make: Callable[[Method, Random], bytes], weight: float) -> Kind:
    async def send(lane: Lane, rng: Random) -> str:
        method = rng.choice(METHODS)
        return await _send(lane, method, frames.message(make(method, rng)))

    return Kind(f"message: {name}", send, weight)


def _right(method: Method, rng: Random) -> bytes:
    return right_request(method, rng).SerializeToString()


def _random_bytes(_method: Method, rng: Random) -> bytes:
    return rng.randbytes(rng.choice([0, 1, 2, 3, 10, 100, 1000, 20_000]))


def _large(_method: Method, rng: Random) -> bytes:
    size = rng.choice([300_000, 1_000_000, 2**20 + 1, 3_000_000, 4 * 2**20 - 10, 4 * 2**20 + 1, _BIG])
    data = rng.choice([rng.randbytes(1000), b"\0" * 1000, delimited(4, b"x" * 996)])
    return (data * (size // 1000 + 1))[:size]


async def _compressed(lane: Lane, rng: Random) -> str:
    """A flag that says compressed, with an encoding and bytes that need not agree."""
    method = rng.choice(METHODS)
    plain = _right(method, rng)
    data = rng.choice([plain, gzip.compress(plain, mtime=0), zlib.compress(plain), rng.randbytes(50), b"", b"\x1f\x8b"])
    encoding = rng.choice([b"gzip", b"deflate", b"identity", b"snappy", b"br", b"", b"GZIP", b"gzip,gzip", b"x" * 5000])
    flag = rng.choice([0, 1, 1, 1, 2, 3, 127, 128, 255])
    more = [] if rng.random() < 0.25 else [(b"grpc-encoding", encoding)]
    if rng.random() < 0.2:
        more.append((b"grpc-encoding", b"gzip"))
    return await _send(lane, method, frames.message(data, flag=flag), *more)


@functools.cache
def _bomb_of(mib: int) -> bytes:
    return gzip.compress(bytes(mib * 2**20), compresslevel=1, mtime=0)


async def _bomb(lane: Lane, rng: Random) -> str:
    """A little gzip that is many megabytes when it is out."""
    method = rng.choice(METHODS)
    bomb = _bomb_of(rng.choice([5, 20, 100]))
    if rng.random() < 0.3:
        bomb = bomb[:-9]
    return await _send(lane, method, frames.message(bomb, flag=1), (b"grpc-encoding", b"gzip"))


async def _prefix(lane: Lane, rng: Random) -> str:
    """A length that is not that of the message."""
    method = rng.choice(METHODS)
    data = _right(method, rng)
    claim = rng.choice([0, 1, max(len(data) - 3, 0), len(data) + 1, 2**20, 2**22 + 1, 2**31, 2**32 - 1])
    return await _send(lane, method, frames.message(data, length=claim, flag=rng.choice([0, 0, 0, 1])))


async def _partial_prefix(lane: Lane, rng: Random) -> str:
    method = rng.choice(METHODS)
    return await _send(lane, method, frames.message(_right(method, rng))[: rng.randrange(8)])


async def _several(lane: Lane, rng: Random) -> str:
    method = rng.choice(METHODS)
    count = rng.choice([2, 3, 50])
    return await _send(lane, method, b"".join(frames.message(_right(method, rng)) for _ in range(count)))


async def _trailing(lane: Lane, rng: Random) -> str:
    method = rng.choice(METHODS)
    return await _send(lane, method, frames.message(_right(method, rng)) + rng.randbytes(rng.randrange(1, 50)))


async def _none(lane: Lane, rng: Random) -> str:
    method = rng.choice(METHODS)
    return await lane.request(frames.request_headers(method.path), rng.choice([None, b""]))


async def _raw_data(lane: Lane, rng: Random) -> str:
    return await _send(lane, rng.choice(METHODS), rng.randbytes(rng.randrange(1, 3000)))


def _mutation_kind(mutation: Mutation) -> Kind:
    def make(method: Method, rng: Random) -> bytes:
        return mutation(rng, _right(method, rng))

    return _bytes_kind(f"right, {getattr(mutation, '__name__', '').replace('_', ' ')}", make, 1.5)


_UNKNOWN = (
    b"/n0stack.operation.v1alpha.OperationService/DestroyEverything",
    b"/n0stack.operation.v1alpha.OperationService/",
    b"/n0stack.operation.v1alpha.OperationService",
    b"/n0stack.operation.v2.OperationService/GetOperation",
    b"/grpc.health.v1.Health/check",
    b"/grpc.channelz.v1.Channelz/GetServers",
    b"//n0stack.operation.v1alpha.OperationService/GetOperation",
    b"/n0stack.operation.v1alpha.OperationService/GetOperation/",
    b"/n0stack.operation.v1alpha.OperationService/GetOperation?x=1",
    b"/n0stack.operation.v1alpha.OperationService/Get%4fperation",
    b"/",
    b"",
    b"*",
    b"nonsense",
    b"/\xff\xfe/\xc3\x28",
    "/ä/ö".encode(),
    b"/a/b\n",
    b"/a/b\0c",
    b"/" + b"a" * 6000 + b"/b",
    b"http://localhost/grpc.health.v1.Health/Check",
)


async def _unknown(lane: Lane, rng: Random) -> str:
    return await lane.request(frames.request_headers(rng.choice(_UNKNOWN)), frames.message(rng.randbytes(8)))


KINDS = [
    _bytes_kind("random bytes", _random_bytes, 12),
    _bytes_kind("right, spoilt", lambda method, rng: mutated(rng, _right(method, rng)), 12),
    *(_mutation_kind(mutation) for mutation in MUTATIONS),
    _bytes_kind("every field nonsense", violating, 8),
    _bytes_kind("one field nonsense, at kept records", refused_for_one_field, 6),
    _bytes_kind(
        "right, at kept records, refused", lambda m, rng: right_request(m, rng, is_kept=True).SerializeToString(), 4
    ),
    _bytes_kind("large", _large, 0.15),
    Kind("framing: flag and encoding disagree", _compressed, 4),
    Kind("framing: gzip bomb", _bomb, 0.1),
    Kind("framing: wrong length", _prefix, 3),
    Kind("framing: part of the prefix", _partial_prefix, 2),
    Kind("framing: several messages", _several, 2),
    Kind("framing: garbage after the message", _trailing, 2),
    Kind("framing: no message", _none, 2),
    Kind("framing: random DATA", _raw_data, 3),
    Kind("unknown method or service", _unknown, 3),
]
