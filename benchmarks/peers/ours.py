"""The service itself: ProposeOperation and CompleteOperation over grpc.aio, with the generated stubs."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from benchmarks.peers.cycles import Cycle, CyclePlan, main
from benchmarks.requests import HOLDER
from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.operation.v1alpha.operation_service_pb2_grpc import OperationServiceStub
from n0stack.protobuf.operation_pb2 import ProposeOperationRequest

PROJECT = "cycles"


def _cycle(stub: Any, name: str) -> Cycle:  # noqa: ANN401, the stub is typed for a blocking channel
    propose = ProposeOperationRequest(project=PROJECT, name=name, lock_for_seconds=30, proposing_peer_token=HOLDER)
    complete = pb.CompleteOperationRequest(project=PROJECT, name=name, proposing_peer_token=HOLDER)

    async def cycle() -> None:
        await stub.ProposeOperation(propose)
        await stub.CompleteOperation(complete)

    return cycle


@contextlib.asynccontextmanager
async def clients(plan: CyclePlan) -> AsyncIterator[Sequence[Cycle]]:
    """Connect."""
    async with grpc.aio.insecure_channel(plan.address) as channel:
        stub = OperationServiceStub(channel)
        yield [_cycle(stub, f"place-{place}") for place in range(plan.in_flight)]


if __name__ == "__main__":
    main(clients)
