"""Which of several etcd members is asked, when one of them is silent or gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from etcd3.etcdrpc import RangeRequest, StatusRequest, TxnRequest
from etcd_hands import EtcdHands
from links import Link, Mode, linked
from waiting import soon

from operation_service import etcd_ops
from operation_service.clock import Deadline
from operation_service.errors import StoreUnavailableError
from operation_service.etcd_client import EtcdClient
from operation_service.etcd_members import bears_cancelled_reads
from operation_service.etcd_watch import EtcdWatch
from operation_service.keys import prefix_range
from operation_service.settings import Settings

GONE = "http://127.0.0.1:1"


@pytest.fixture
async def proxy(etcd: str) -> AsyncIterator[Link]:
    async with linked(etcd) as proxy:
        yield proxy


async def test_a_caller_in_a_hurry_says_nothing_about_a_member(proxy: Link) -> None:
    client = EtcdClient([proxy.url, "http://127.0.0.1:1"])
    ask = RangeRequest(key=b"x")
    try:
        await client.range(ask, Deadline(10))
        member = client.members.channel
        proxy.become(Mode.HOLD_ANSWERS)
        with pytest.raises(StoreUnavailableError):
            await client.range(ask, Deadline(0.3))
        proxy.become(Mode.PASS)
        assert client.members.channel is member
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


async def test_a_member_that_is_known_not_to_answer_is_passed_over(etcd: str, proxy: Link) -> None:
    client = EtcdClient([GONE, proxy.url, etcd])
    gone = client.members.channel
    feeling = asyncio.ensure_future(client.members.feel_pulses())
    try:
        async with asyncio.timeout(15):
            await client.members.left(gone)
        second = client.members.channel
        proxy.become(Mode.HOLD_ANSWERS)
        async with asyncio.timeout(15):
            await client.members.left(second)
        third = client.members.channel
        assert third is not gone
        # When that one fails too, the second, which answers again by then, is better than the one that is gone.
        proxy.become(Mode.PASS)

        async def second_is_next() -> bool:
            client.members.leave(third)
            chosen = client.members.channel
            client.members.leave(chosen)
            return chosen is second

        assert await soon(second_is_next)
    finally:
        feeling.cancel()
        await asyncio.wait({feeling})
        await client.close()


TWO_READS = TxnRequest(success=[etcd_ops.get(b"a"), etcd_ops.get(b"b")])


@pytest.mark.parametrize(
    ("bear_it", "together"),
    [
        ((True, True), True),
        ((True, None), True),
        ((None, None), False),
        ((None, True), False),
        ((True, False), False),
        ((False, True), False),
    ],
)
async def test_reads_go_together_only_where_no_member_is_known_to_panic_when_they_are_cancelled(
    etcd: str, bear_it: tuple[bool | None, ...], *, together: bool
) -> None:
    client = EtcdClient([etcd, etcd])
    transactions = 0
    for member, bears in zip(client.members.all, bear_it, strict=True):
        member.bears_cancelled_reads = bears
        whole = member.txn

        def txn(request: Any, *, timeout: float, whole: Any = whole) -> Any:
            nonlocal transactions
            transactions += 1
            return whole(request, timeout=timeout)

        member.txn = txn
    try:
        answer = await client.read(TWO_READS, Deadline(10))
        assert len(answer.responses) == 2
        assert transactions == together
    finally:
        await client.close()


async def test_a_member_tells_its_version_once_it_answers(etcd: str) -> None:
    client = EtcdClient([etcd])
    (member,) = client.members.all
    version = (await member.status(StatusRequest(), timeout=10)).version
    feeling = asyncio.ensure_future(client.members.feel_pulses())

    async def is_known() -> bool:
        return member.bears_cancelled_reads is bears_cancelled_reads(version)

    assert await soon(is_known)
    feeling.cancel()
    await asyncio.wait({feeling})
    await client.close()


@pytest.mark.parametrize("turns", [0, 50], ids=["before it is asked", "while it is asked"])
async def test_a_watch_leaves_a_member_that_takes_connections_and_says_nothing(
    etcd: str, settings: Settings, hands: EtcdHands, turns: int
) -> None:
    """Nothing of a call is sent there; and what waits for that, waits for ever."""

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await is_over.wait()
        writer.close()

    is_over = asyncio.Event()
    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    host, port = silent.sockets[0].getsockname()
    client = EtcdClient([f"http://{host}:{port}", etcd])
    watch = EtcdWatch(client, prefix_range(settings.key_prefix.encode()), await hands.revision() + 1)
    async with aclosing(watch.batches()) as batches:
        first = asyncio.ensure_future(anext(batches))
        for _ in range(turns):
            await asyncio.sleep(0.01)
        client.members.leave(client.members.channel)
        await hands.put("key", b"value")
        async with asyncio.timeout(20):
            (event,) = (await first).events
    assert event.kv.value == b"value"
    await client.close()
    is_over.set()
    silent.close()
