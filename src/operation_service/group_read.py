"""Reads that wait while one is under way leave together, as the ranges of one transaction.

None is answered from before it was asked for: what joins a read that is yet to leave is read after it came. If the
answer never comes, they are read again, together, as long as the most patient of their callers waits.
"""

import asyncio
from collections.abc import Sequence

from etcd3 import etcdrpc
from msgspec import Struct

from operation_service import etcd_ops
from operation_service.clock import Deadline
from operation_service.errors import StoreError, again
from operation_service.etcd_client import EtcdClient
from operation_service.layout import Layout
from operation_service.together import Sharing, Together

_OPERATIONS_AT_ONCE = 120
"""etcd takes 128 in a transaction."""


class Found(Struct, frozen=True, gc=False):
    """The answers to some ranges, in their order, all at one revision."""

    revision: int
    responses: Sequence[etcdrpc.ResponseOp]


class GroupRead:
    """Reads keys as they are now.

    Args:
        etcd: Where.
        layout: By way of which.
        sharing: Sees who shares.
    """

    def __init__(self, etcd: EtcdClient, layout: Layout, sharing: Sharing | None = None) -> None:
        self._etcd = etcd
        self._layout = layout
        self._together = Together(
            self._carry_out,
            max_requests=_OPERATIONS_AT_ONCE,
            max_size=_OPERATIONS_AT_ONCE,
            is_repeatable=True,
            sharing=sharing,
        )

    async def read(self, ranges: Sequence[etcd_ops.Op], deadline: Deadline) -> Found:
        """Read some ranges at one revision, no older than anything that was acknowledged before.

        Raises:
            StoreUnavailableError: etcd could not be reached before the deadline.
            LayoutError: What is there is laid out by another version.
        """
        return await self._together.do(ranges, len(ranges), deadline)

    async def _carry_out(
        self, requests: Sequence[Sequence[etcd_ops.Op]], deadline: Deadline
    ) -> Sequence[Found | Exception]:
        if len(requests) == 1 or not self._etcd.members.reads_at_once:
            return await asyncio.gather(*(self._alone(ranges, deadline) for ranges in requests))
        found = await self._alone([op for ranges in requests for op in ranges], deadline)
        if isinstance(found, StoreError):
            return [again(found) for _ in requests]
        answers, at = [], 0
        for ranges in requests:
            answers.append(Found(found.revision, found.responses[at : at + len(ranges)]))
            at += len(ranges)
        return answers

    async def _alone(self, ranges: Sequence[etcd_ops.Op], deadline: Deadline) -> Found | StoreError:
        try:
            response = await self._layout.read(etcdrpc.TxnRequest(success=ranges), deadline)
        except StoreError as error:
            return error
        return Found(response.header.revision, response.responses)
