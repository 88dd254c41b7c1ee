"""Calls and connections that stop in the middle."""

import asyncio
from random import Random

from fuzz import frames
from fuzz.connection import LIVES
from fuzz.frames import Type
from fuzz.http2_kinds import opened
from fuzz.lane import REACTION_SECONDS, Kind, Lane
from fuzz.targets import METHODS, right_request

_PATIENCE_SECONDS = 0.1


async def _silent_streams(lane: Lane, rng: Random) -> str:
    """HEADERS without an end, many of them, and then silence."""
    async with lane.fresh(abort=rng.random() < 0.5) as connection:
        count = rng.choice([1, 10, 200])
        for _ in range(count):
            method = rng.choice(METHODS)
            block = frames.block(frames.request_headers(method.path))
            await connection.send(frames.header_frames(connection.new_stream(), block))
        told = await connection.reaction(1, _PATIENCE_SECONDS)
        fate = await connection.fate(REACTION_SECONDS)
        return told if fate == LIVES else fate


async def _dripping(lane: Lane, rng: Random) -> str:
    """A right message, one byte a frame."""
    method = rng.choice(METHODS)
    data = frames.message(right_request(method, rng).SerializeToString())
    async with lane.fresh() as connection:
        stream = connection.new_stream()
        await connection.send(frames.header_frames(stream, frames.block(frames.request_headers(method.path))))
        for at in range(len(data)):
            await connection.send(frames.frame(Type.DATA, int(at == len(data) - 1), stream, data[at : at + 1]))
            if rng.random() < 0.1:
                await asyncio.sleep(0)
        return await connection.reaction(stream, REACTION_SECONDS)


async def _dropped(lane: Lane, rng: Random) -> str:
    """The connection goes away within a message, a frame, a block of headers, or the preface."""
    method = rng.choice(METHODS)
    data = frames.message(right_request(method, rng).SerializeToString())
    whole = (
        frames.PREFACE
        + frames.settings()
        + frames.header_frames(1, frames.block(frames.request_headers(method.path)))
        + frames.frame(Type.DATA, 1, 1, data)
    )
    async with lane.fresh(begun=False, abort=rng.random() < 0.5) as connection:
        await connection.send(whole[: rng.randrange(len(whole) + 1)])
        await asyncio.sleep(rng.choice([0, 0, 0.01]))
    return "closed by the client"


async def _half_closed(lane: Lane, rng: Random) -> str:
    """The client stops sending, and listens."""
    async with lane.fresh(abort=rng.random() < 0.5) as connection:
        await connection.send(opened(1, end_stream=rng.random() < 0.5))
        connection.end_sending()
        return await connection.reaction(1, REACTION_SECONDS)


async def _waiting(lane: Lane, rng: Random) -> str:
    """A connection that says little or nothing, and then goes."""
    said = rng.choice([b"", b"P", frames.PREFACE, frames.PREFACE[:10], frames.PREFACE + b"\0\0"])
    async with lane.fresh(begun=False, abort=rng.random() < 0.5) as connection:
        await connection.send(said)
        return await connection.reaction(1, _PATIENCE_SECONDS)


async def _cancelled(lane: Lane, rng: Random) -> str:
    """A right call that is cancelled at once, or a little later."""
    connection = await lane.shared()
    method = rng.choice(METHODS)
    stream = connection.new_stream()
    await connection.send(frames.header_frames(stream, frames.block(frames.request_headers(method.path))))
    await connection.send_data(stream, frames.message(right_request(method, rng).SerializeToString()))
    await asyncio.sleep(rng.choice([0, 0.001, 0.003, 0.01]))
    await connection.send(frames.rst_stream(stream, rng.choice([0, 2, 8, 99])))
    told = await connection.fate(REACTION_SECONDS)
    return "cancelled by the client" if told == LIVES else told


KINDS = [
    Kind("half-open: streams", _silent_streams, 0.8, may_be_silent=True),
    Kind("half-open: a byte at a time", _dripping, 1),
    Kind("half-open: dropped in the middle", _dropped, 2),
    Kind("half-open: half closed", _half_closed, 0.6),
    Kind("half-open: waiting connections", _waiting, 0.6, may_be_silent=True),
    Kind("half-open: cancelled calls", _cancelled, 3),
]
