"""A process that calls as fast as it is answered, with many calls at once: `flood.py ADDRESS SECONDS CALLS NAME`.

Prints, as JSON, how often it was answered with what, and how long the answers that were OK took.
"""

import asyncio
import collections
import json
import sys
import time
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from n0stack.operation.v1alpha.operation_service_pb2_grpc import OperationServiceStub
from n0stack.protobuf.operation_pb2 import ProposeOperationRequest


def outcome(error: grpc.aio.AioRpcError) -> str:
    """The code and the reason."""
    info = ErrorInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            Status.FromString(value).details[0].Unpack(info)
    return f"{error.code().name} {info.reason}"


async def flood(address: str, seconds: float, calls: int, name: str) -> None:
    """Propose for one new resource after the other."""
    outcomes: collections.Counter[str] = collections.Counter()
    took: list[float] = []
    end = time.monotonic() + seconds

    async def call(stub: Any, caller: int) -> None:
        number = 0
        while time.monotonic() < end:
            number += 1
            request = ProposeOperationRequest(
                project="flood", name=f"{name}/{caller}/{number}", lock_for_seconds=600, proposing_peer_token="flood"
            )
            begin = time.monotonic()
            try:
                await stub.ProposeOperation(request, timeout=30)
            except grpc.aio.AioRpcError as error:
                outcomes[outcome(error)] += 1
            else:
                outcomes["OK"] += 1
                took.append(time.monotonic() - begin)

    async with grpc.aio.insecure_channel(address) as channel:
        await asyncio.gather(*(call(OperationServiceStub(channel), caller) for caller in range(calls)))
    took.sort()
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    seconds_of_ok = {name: round(took[int((len(took) - 1) * share)], 3) for name, share in shares.items() if took}
    sys.stdout.write(json.dumps({"outcomes": outcomes, "seconds_of_ok": seconds_of_ok}) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    asyncio.run(flood(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
