"""Connections that do not speak HTTP/2 as one should. Each begins one of its own, and counts once, floods included."""

import asyncio
import struct
from collections.abc import Callable
from random import Random

from fuzz import frames
from fuzz.frames import Setting, Type
from fuzz.lane import REACTION_SECONDS, Kind, Lane
from fuzz.targets import METHODS, right_request

_GET = frames.request_headers(b"/n0stack.operation.v1alpha.OperationService/GetOperation")


def opened(stream: int, *, end_stream: bool = False) -> bytes:
    """The beginning of a right call."""
    return frames.header_frames(stream, frames.block(_GET), end_stream=end_stream)


def call(rng: Random, stream: int) -> bytes:
    """A whole call."""
    method = rng.choice(METHODS[:5])
    data = frames.message(right_request(method, rng).SerializeToString())
    head = frames.header_frames(stream, frames.block(frames.request_headers(method.path)))
    return head + frames.frame(Type.DATA, frames.END_STREAM, stream, data)


def _kind(name: str, make: Callable[[Random], bytes], weight: float = 0.6) -> Kind:
    """Bytes after a right beginning."""

    async def send(lane: Lane, rng: Random) -> str:
        async with lane.fresh(abort=rng.random() < 0.3) as connection:
            await connection.send(make(rng))
            return await connection.fate(REACTION_SECONDS)

    return Kind(f"http2: {name}", send, weight)


def _random_frame(rng: Random) -> bytes:
    return frames.frame(
        rng.randrange(14), rng.randrange(256), rng.choice([0, 1, 2, 3, 2**31 - 1]), rng.randbytes(rng.randrange(60))
    )


def _frames(rng: Random) -> bytes:
    return b"".join(_random_frame(rng) for _ in range(rng.choice([1, 3, 30])))


def _unknown_type(rng: Random) -> bytes:
    kinds = [rng.randrange(10, 256) for _ in range(rng.choice([1, 500]))]
    return b"".join(frames.frame(kind, rng.randrange(256), rng.randrange(4), rng.randbytes(8)) for kind in kinds)


def _oversized(rng: Random) -> bytes:
    kind, stream = rng.choice([(Type.DATA, 1), (Type.HEADERS, 1), (Type.SETTINGS, 0), (Type.PING, 0), (99, 0)])
    size = rng.choice([16_385, 100_000, 2**24 - 1])
    return frames.frame(kind, 4, stream, bytes(min(size, 50_000)), length=size)


def _wrong_size(rng: Random) -> bytes:
    kind = rng.choice([Type.PING, Type.SETTINGS, Type.WINDOW_UPDATE, Type.RST_STREAM, Type.PRIORITY, Type.GOAWAY])
    return opened(1) + frames.frame(kind, 0, rng.choice([0, 1]), rng.randbytes(rng.choice([0, 1, 3, 7, 9])))


def _stream_ids(rng: Random) -> bytes:
    return b"".join(call(rng, stream) for stream in rng.choice([[2], [0], [5, 3], [1, 1], [2**31 - 1, 1], [7, 9, 8]]))


def _data_on_idle(rng: Random) -> bytes:
    return frames.frame(Type.DATA, rng.choice([0, 1]), rng.choice([0, 1, 2, 99]), b"\0" * rng.randrange(20))


def _padding(rng: Random) -> bytes:
    flags = frames.PADDED | frames.END_HEADERS | rng.choice([0, frames.PRIORITY_FLAG])
    bad = bytes([rng.choice([0, 1, 200, 255])]) + rng.randbytes(rng.randrange(5))
    return opened(1) + frames.frame(rng.choice([Type.DATA, Type.HEADERS]), flags, rng.choice([1, 3]), bad)


def _continuation(rng: Random) -> bytes:
    """A block of headers without an end; other frames within one; one that follows nothing."""
    head = frames.frame(Type.HEADERS, 0, 1, frames.block(_GET))
    junk = frames.literal(b"x-flood", b"y" * rng.choice([0, 10, 4000]))
    match rng.randrange(4):
        case 0:
            return head + frames.frame(Type.CONTINUATION, 0, 1, junk) * rng.choice([10, 1000])
        case 1:
            return head + frames.frame(Type.CONTINUATION, 0, 1, b"") * rng.choice([10, 5000])
        case 2:
            return head + _random_frame(rng) + frames.frame(Type.CONTINUATION, 4, rng.choice([1, 3]), b"")
        case _:
            return frames.frame(Type.CONTINUATION, rng.choice([0, 4]), rng.choice([0, 1]), junk)


def _settings(rng: Random) -> bytes:
    nonsense = [(rng.choice([*Setting, 0, 7, 99, 65535]), rng.choice([0, 1, 2, 2**14 - 1, 2**24, 2**31, 2**32 - 1]))]
    nonsense += [(rng.randrange(2**16), rng.randrange(2**32)) for _ in range(rng.choice([0, 3, 300]))]
    return frames.settings(*nonsense, flags=rng.choice([0, 0, 0, 1])) + call(rng, 1)


def _settings_flood(rng: Random) -> bytes:
    return frames.settings((Setting.INITIAL_WINDOW_SIZE, rng.randrange(2**16))) * rng.choice([50, 5000])


def _ping_flood(rng: Random) -> bytes:
    return frames.frame(Type.PING, rng.choice([0, 0, 1]), 0, rng.randbytes(8)) * rng.choice([5, 5000])


def _rapid_reset(rng: Random) -> bytes:
    streams = range(1, 2 * rng.choice([10, 100, 300]), 2)
    return b"".join(call(rng, stream) + frames.rst_stream(stream, rng.choice([0, 8, 99])) for stream in streams)


def _reset_nonsense(rng: Random) -> bytes:
    return frames.rst_stream(rng.choice([0, 1, 2, 99]), rng.randrange(2**32)) * rng.choice([1, 1000])


def _windows(rng: Random) -> bytes:
    increment = rng.choice([0, 2**31 - 1, 2**31, 2**32 - 1])
    return opened(1) + frames.window_update(rng.choice([0, 1, 2, 99]), increment) * rng.choice([1, 2, 1000])


def _small_windows(rng: Random) -> bytes:
    """Nothing may be answered."""
    return frames.settings((Setting.INITIAL_WINDOW_SIZE, 0)) + b"".join(call(rng, stream) for stream in (1, 3, 5))


def _flow_control(rng: Random) -> bytes:
    return opened(1) + frames.frame(Type.DATA, 0, 1, bytes(16_384)) * rng.choice([5, 100])


def _priority(rng: Random) -> bytes:
    on = rng.choice([0, 1, 3])
    return opened(1) + frames.frame(Type.PRIORITY, 0, on, struct.pack(">IB", on, rng.randrange(256))) * 50


def _push(rng: Random) -> bytes:
    return frames.frame(Type.PUSH_PROMISE, 4, rng.choice([0, 1]), struct.pack(">I", 2) + frames.block(_GET))


def _goaway(rng: Random) -> bytes:
    payload = struct.pack(">II", rng.randrange(2**32), rng.randrange(2**32)) + rng.randbytes(20)
    return frames.frame(Type.GOAWAY, 0, rng.choice([0, 1]), payload) * rng.choice([1, 100]) + call(rng, 1)


def _after_end(rng: Random) -> bytes:
    """DATA, or trailers, on a stream that was closed from this side."""
    more = rng.choice([frames.frame(Type.DATA, 0, 1, b"\0"), opened(1), frames.window_update(1, 1)])
    return call(rng, 1) + more


def _client_trailers(rng: Random) -> bytes:
    trailers = frames.header_frames(1, frames.literal(b"x-trailer", rng.randbytes(9)), end_stream=rng.random() < 0.7)
    return opened(1) + frames.frame(Type.DATA, 0, 1, frames.message(b"")) + trailers


async def _nonsense_instead(lane: Lane, rng: Random) -> str:
    """No preface: another protocol, or noise."""
    hello = bytes.fromhex("16030100c8010000c40303") + rng.randbytes(198)
    http = b"%s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\r\n"
    first = rng.choice([hello, http % b"GET /", http % b"POST /x", http % b"OPTIONS *", b"SSH-2.0-x\r\n", b"\0" * 50])
    if rng.random() < 0.5:
        first = rng.choice([rng.randbytes(60), frames.PREFACE[:-2] + b"xx", opened(1), frames.settings(), b"\n" * 40])
    async with lane.fresh(begun=False, abort=rng.random() < 0.5) as connection:
        await connection.send(first)
        return await connection.fate(REACTION_SECONDS)


async def _noise_after_preface(lane: Lane, rng: Random) -> str:
    async with lane.fresh(begun=False, abort=rng.random() < 0.5) as connection:
        await connection.send(frames.PREFACE + rng.randbytes(rng.choice([9, 20, 2000])))
        # What claims to be a long frame waits for its end: the end of what is sent decides it.
        connection.end_sending()
        return await connection.fate(REACTION_SECONDS)


async def _at_once(lane: Lane, rng: Random) -> str:
    """Opened and closed, several times."""
    for _ in range(rng.choice([1, 5])):
        async with lane.fresh(begun=rng.random() < 0.5, abort=rng.random() < 0.5):
            await asyncio.sleep(0)
    return "closed by the client"


KINDS = [
    Kind("http2: other protocols", _nonsense_instead, 0.6),
    Kind("http2: noise after the preface", _noise_after_preface, 0.6),
    Kind("http2: opened and closed", _at_once, 0.6),
    _kind("random frames", _frames, 2),
    _kind("unknown types of frames", _unknown_type),
    _kind("oversized frames", _oversized),
    _kind("frames of a wrong size", _wrong_size),
    _kind("wrong stream ids", _stream_ids),
    _kind("DATA on idle streams", _data_on_idle),
    _kind("padding", _padding),
    _kind("CONTINUATION", _continuation),
    _kind("SETTINGS nonsense", _settings),
    _kind("SETTINGS flood", _settings_flood, 0.1),
    _kind("PING flood", _ping_flood, 0.1),
    _kind("rapid reset", _rapid_reset, 0.1),
    _kind("RST_STREAM nonsense", _reset_nonsense),
    _kind("WINDOW_UPDATE nonsense", _windows),
    _kind("windows of nothing", _small_windows, 0.2),
    _kind("flow control ignored", _flow_control, 0.2),
    _kind("PRIORITY on itself", _priority),
    _kind("PUSH_PROMISE", _push),
    _kind("GOAWAY", _goaway),
    _kind("frames after the end", _after_end),
    _kind("trailers of a client", _client_trailers),
]
