"""What the client reads of etcd in transactions of ranges, as it happens."""

from collections.abc import Callable, Sequence

import pytest
from etcd3.etcdrpc import RangeResponse, TxnRequest, TxnResponse

from operation_service.clock import Deadline
from operation_service.etcd_client import EtcdClient


def on_read(monkeypatch: pytest.MonkeyPatch, note: Callable[[Sequence[RangeResponse]], None]) -> None:
    """Have the answer to the ranges of each transaction noted; single keys, as the layout's number is, are left out."""
    read = EtcdClient.read

    async def noted(client: EtcdClient, request: TxnRequest, deadline: Deadline) -> TxnResponse:
        answer = await read(client, request, deadline)
        pairs = zip(request.success, answer.responses, strict=True)
        note([part.response_range for op, part in pairs if op.request_range.range_end])
        return answer

    monkeypatch.setattr(EtcdClient, "read", noted)
