"""The gates: so many calls and bytes at once, and what those are told who are over it."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from operation_service.admission import FullError, Gate
from operation_service.errors import OverloadedError


async def test_a_gate_lets_in_so_many_and_others_once_there_is_room() -> None:
    gate = Gate(2, OverloadedError)
    with gate.place():
        with gate.place():
            with pytest.raises(FullError), gate.place():
                pass
            assert gate.inside == 2
        with gate.place():
            pass
    async with asyncio.timeout(5):
        await gate.emptied()


async def test_who_is_refused_is_told_the_limit_and_when_to_come_again_not_all_at_once() -> None:
    gate, delays = Gate(1, OverloadedError), []
    with gate.place():
        for _ in range(16):
            with pytest.raises(FullError) as caught, gate.place():
                pass
            trailers: dict[str, Any] = dict(caught.value.status.trailing_metadata)
            status = Status.FromString(trailers["grpc-status-details-bin"])
            info, retry = ErrorInfo(), RetryInfo()
            assert status.details[0].Unpack(info)
            assert status.details[1].Unpack(retry)
            assert (info.reason, dict(info.metadata)) == ("OVERLOADED", {"limit": "1"})
            delays.append(retry.retry_delay.ToTimedelta())
    assert min(delays) == timedelta(seconds=0.5)
    assert len(set(delays)) == 16


def test_a_gate_has_room_for_so_many_bytes_and_for_one_request_of_any_size() -> None:
    gate = Gate(10, OverloadedError, max_bytes=100)
    with gate.room(60):
        with pytest.raises(FullError), gate.room(50):
            pass
        with gate.room(40):
            pass
    with gate.room(1_000), pytest.raises(FullError), gate.room(1):
        pass
