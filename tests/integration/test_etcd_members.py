"""Which of several etcd members is asked, when one of them is silent or gone."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from etcd3.etcdrpc import RangeRequest
from etcd_proxy import EtcdProxy, proxied
from waiting import soon

from operation_service.clock import Deadline
from operation_service.errors import StoreUnavailableError
from operation_service.etcd_client import EtcdClient

GONE = "http://127.0.0.1:1"


@pytest.fixture
async def proxy(etcd: str) -> AsyncIterator[EtcdProxy]:
    async with proxied(etcd) as proxy:
        yield proxy


async def test_a_caller_in_a_hurry_says_nothing_about_a_member(proxy: EtcdProxy) -> None:
    client = EtcdClient([proxy.url, "http://127.0.0.1:1"])
    ask = RangeRequest(key=b"x")
    try:
        await client.range(ask, Deadline(10))
        member = client.channel
        proxy.holds_answers_back = True
        with pytest.raises(StoreUnavailableError):
            await client.range(ask, Deadline(0.3))
        proxy.holds_answers_back = False
        assert client.channel is member
        await client.range(ask, Deadline(10))
    finally:
        await client.close()


async def test_a_member_that_is_silent_or_gone_is_left_for_the_next(etcd: str) -> None:
    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silence.wait()
        writer.close()

    silence = asyncio.Event()
    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    for bad in (f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}", "http://127.0.0.1:1"):
        client = EtcdClient([bad, etcd])
        try:
            await client.range(RangeRequest(key=b"x"), Deadline(10))
        finally:
            await client.close()
    silence.set()
    silent.close()
    await silent.wait_closed()


async def test_a_member_that_is_known_not_to_answer_is_passed_over(etcd: str, proxy: EtcdProxy) -> None:
    client = EtcdClient([GONE, proxy.url, etcd])
    gone = client.channel
    feeling = asyncio.ensure_future(client.feel_pulses())
    try:
        async with asyncio.timeout(15):
            await client.left(gone)
        second = client.channel
        proxy.holds_answers_back = True
        async with asyncio.timeout(15):
            await client.left(second)
        third = client.channel
        assert third is not gone
        # When that one fails too, the second, which answers again by then, is better than the one that is gone.
        proxy.holds_answers_back = False

        async def second_is_next() -> bool:
            client.leave(third)
            chosen = client.channel
            client.leave(chosen)
            return chosen is second

        assert await soon(second_is_next)
    finally:
        feeling.cancel()
        await asyncio.wait({feeling})
        await client.close()
