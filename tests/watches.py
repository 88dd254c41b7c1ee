"""Reading watches, in short words."""

import asyncio
from typing import Any

from support import (
    event_name,
)

from n0stack.operation.v1alpha import operation_service_pb2 as pb


async def read(watch: Any, count: int) -> list[pb.WatchOperationsResponse]:
    """Read so many messages."""
    async with asyncio.timeout(20):
        return [await watch.read() for _ in range(count)]


def told(responses: list[pb.WatchOperationsResponse]) -> list[str]:
    return [f"{event_name(response.event)} {response.operation.name}" for response in responses]
