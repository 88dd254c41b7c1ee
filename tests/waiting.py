"""Waiting for what depends on etcd's own clock, or on another process: asked again and again, never slept for."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
from support import Peer


async def soon(is_true: Callable[[], Awaitable[bool]], seconds: float = 15.0) -> bool:
    """Whether something comes true within some seconds. A call that fails with a gRPC error counts as not yet."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        try:
            if await is_true():
                return True
        except grpc.aio.AioRpcError:
            pass
        await asyncio.sleep(0.05)
    return False


async def reaches(peer: Peer, state: str, *name: str) -> bool:
    """Whether an operation comes into a state."""

    async def is_reached() -> bool:
        return await peer.state(*name) == state

    return await soon(is_reached)
