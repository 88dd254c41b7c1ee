"""Which etcd member is used: when one fails, the next one, and whoever streams from it is told."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from etcd3 import etcdrpc
from grpc import StatusCode

from operation_service.clock import Deadline
from operation_service.errors import Fault, StoreUnavailableError
from operation_service.etcd_client import EtcdClient
from operation_service.etcd_members import bears_cancelled_reads
from operation_service.grpc_calls import RpcError
from operation_service.grpc_client import Channel

URLS = ["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"]


@pytest.fixture
async def client() -> AsyncIterator[EtcdClient]:
    client = EtcdClient(URLS)
    yield client
    await client.close()


def leave(client: EtcdClient) -> Channel:
    """Leave the member in use; returns its channel."""
    channel = client.members.channel
    client.members.leave(channel)
    return channel


async def test_members_are_used_in_turn(client: EtcdClient) -> None:
    channels = [leave(client) for _ in URLS]
    assert len(set(channels)) == len(URLS)
    assert client.members.channel is channels[0]


async def test_many_calls_that_fail_together_leave_their_member_and_not_the_next_one(client: EtcdClient) -> None:
    failed = leave(client)
    following = client.members.channel
    for _ in range(5):
        client.members.leave(failed)
    assert client.members.channel is following


async def test_the_only_one_stays_in_use() -> None:
    client = EtcdClient(URLS[:1])
    channel = leave(client)
    assert client.members.channel is channel
    await client.close()


@pytest.mark.parametrize(
    ("seconds", "code", "details", "is_left"),
    [
        (0.05, StatusCode.DEADLINE_EXCEEDED, "no answer in time", False),
        (0.05, StatusCode.UNAVAILABLE, "etcdserver: request timed out", False),
        (0.05, StatusCode.UNAVAILABLE, "the connection was closed", True),
        (60, StatusCode.DEADLINE_EXCEEDED, "no answer in time", True),
        (60, StatusCode.UNAVAILABLE, "etcdserver: request timed out", True),
    ],
)
async def test_a_member_is_left_when_it_fails_and_not_when_a_caller_is_in_a_hurry(
    client: EtcdClient, seconds: float, code: StatusCode, details: str, *, is_left: bool
) -> None:
    async def fail(request: object, *, timeout: float) -> etcdrpc.RangeResponse:  # noqa: ASYNC109
        raise RpcError(code, f"{details} ({timeout}, {request})")

    channel = client.members.channel
    for member in client.members.all:
        member.range = fail
    with pytest.raises(StoreUnavailableError):
        await client.range(etcdrpc.RangeRequest(key=b"x"), Seconds(seconds))
    assert (client.members.channel is not channel) == is_left


class Seconds(Deadline):
    """So many of them, one after the other, and then none."""

    def __init__(self, *seconds: float) -> None:
        super().__init__(seconds[0])
        self._seconds = list(reversed(seconds))

    def remaining(self) -> float:
        return self._seconds.pop() if self._seconds else 0.0


@pytest.mark.parametrize("seconds", [(2, 1), (2, 1, 0.05)], ids=["no time is left", "too little time is left"])
async def test_what_attempts_have_met_is_told_though_time_is_over(client: EtcdClient, seconds: tuple[float]) -> None:
    attempts = 0

    async def fail(request: object, *, timeout: float) -> etcdrpc.RangeResponse:  # noqa: ASYNC109
        nonlocal attempts
        attempts += 1
        if attempts > 1:
            raise RpcError(StatusCode.DEADLINE_EXCEEDED, f"no answer in time ({timeout}, {request})")
        raise RpcError(StatusCode.UNAVAILABLE, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] certificate required")

    for member in client.members.all:
        member.range = fail
    with pytest.raises(StoreUnavailableError) as caught:
        await client.range(etcdrpc.RangeRequest(key=b"x"), Seconds(*seconds))
    assert caught.value.fault is Fault.CONNECTION
    assert "certificate" in caught.value.why


async def test_who_waits_for_a_member_to_be_left_is_told(client: EtcdClient) -> None:
    first = client.members.channel
    waiting = asyncio.ensure_future(client.members.left(first))
    await asyncio.sleep(0)
    assert not waiting.done()
    client.members.leave(first)
    async with asyncio.timeout(5):
        await waiting
        # One that was left before is no news.
        await client.members.left(first)


@pytest.mark.parametrize("version", ["3.4.20", "3.4.23", "3.5.7", "3.5.12", "3.6.0-rc.1"])
def test_these_versions_of_etcd_bear_that_a_transaction_of_reads_is_cancelled(version: str) -> None:
    assert bears_cancelled_reads(version)


@pytest.mark.parametrize("version", ["3.4.21", "3.4.22", "3.5.0", "3.5.1", "3.5.6"])
def test_these_versions_of_etcd_panic_then(version: str) -> None:
    assert not bears_cancelled_reads(version)
