"""What is noted for the janitor is done, once for each time that it is noted."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from etcd3 import etcdrpc
from unit_support import RESOURCE, turns_until

from operation_service.janitor import Janitor
from operation_service.keys import Keys
from operation_service.landmarks import Landmarks

KEYS = Keys("/p/")


class Etcd:
    """Has nothing to remove; counts how often it is asked for the resource's details, and answers when it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = asyncio.Event()

    async def range(self, request: etcdrpc.RangeRequest, _deadline: object) -> etcdrpc.RangeResponse:
        await asyncio.sleep(0)
        if request.key == KEYS.details(RESOURCE).start:
            self.asked += 1
            await self.may_answer.wait()
        return etcdrpc.RangeResponse()


@pytest.fixture
async def etcd() -> Etcd:
    return Etcd()


@pytest.fixture
async def janitor(etcd: Etcd) -> AsyncIterator[Janitor]:
    """At work, with nothing to do."""
    janitor = Janitor(cast("Any", etcd), KEYS, Landmarks())
    working = asyncio.create_task(janitor.run())
    yield janitor
    working.cancel()
    await asyncio.wait({working})


async def rest() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


async def test_what_is_noted_is_looked_for_once(etcd: Etcd, janitor: Janitor) -> None:
    janitor.record_gone(RESOURCE)
    etcd.may_answer.set()
    await turns_until(lambda: etcd.asked)
    await rest()
    assert etcd.asked == 1


async def test_what_is_noted_of_the_same_resource_meanwhile_is_looked_for_again(etcd: Etcd, janitor: Janitor) -> None:
    """Another operation may have come and gone since etcd was asked."""
    janitor.record_gone(RESOURCE)
    await turns_until(lambda: etcd.asked)
    janitor.record_gone(RESOURCE)
    etcd.may_answer.set()
    await turns_until(lambda: etcd.asked == 2)
    await rest()
    assert etcd.asked == 2
