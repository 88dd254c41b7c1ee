"""How long a page of a list takes, of few operations and of many: it should be the same."""

from collections.abc import AsyncIterator
from dataclasses import replace

import grpc

from benchmarks import requests
from benchmarks.bench import Bench, Spot
from benchmarks.figures import Figure
from benchmarks.held import HELD
from benchmarks.requests import SERVICE
from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.operation.v1alpha.operation_service_pb2_grpc import OperationServiceStub

PAGE_SIZE = 100
_LARGEST_PAGE = 1_000


async def _token_in_the_middle(address: str, operations: int) -> str:
    """Page through half of a list, and return where the next page begins."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = OperationServiceStub(channel)
        token, left = "", operations // 2
        while left > 0:
            size = min(left, _LARGEST_PAGE)
            request = pb.ListOperationsRequest(project=HELD, page_size=size, page_token=token)
            answer: pb.ListOperationsResponse = await stub.ListOperations(request)
            token, left = answer.next_page_token, left - len(answer.operations)
        return token


class Listing:
    """A scenario: the first page of what is held, and one in the middle.

    Args:
        operations: How many are held.
    """

    def __init__(self, operations: int) -> None:
        self._operations = operations

    async def measure(self, bench: Bench, spot: Spot) -> AsyncIterator[Figure]:
        """Ask for the same page again and again."""
        middle = await _token_in_the_middle(bench.service.address, self._operations)
        for name, token in (("list: first page of 100", ""), ("list: page in the middle", middle)):
            page = requests.page(HELD, token, PAGE_SIZE)
            plan = bench.timed(bench.service.address, SERVICE + "ListOperations", [page], spot)
            plan = replace(plan, seconds=plan.seconds / 2)
            yield (await bench.measure(name, plan, spot))[0]
