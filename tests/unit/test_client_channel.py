"""The clients' connections; nothing is connected to."""

import asyncio

import grpc
import pytest

from operation_service.client import forks, rpcs
from operation_service.client.aio import AsyncChannel
from operation_service.client.blocking import Channel
from operation_service.client.connection import Target
from operation_service.client.errors import OperationServiceError


def a_channel() -> Channel:
    return Channel(Target("127.0.0.1:1", None, ()))


def test_in_a_child_it_is_closed_whatever_a_thread_of_the_parent_was_doing(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = a_channel()
    with channel._mutex:  # noqa: SLF001, as the thread that connects
        monkeypatch.setattr(forks, "_generation", forks.generation() + 1)
        channel.close()
    with pytest.raises(OperationServiceError, match="this client is closed"):
        channel.unary(rpcs.GET)


def test_a_child_has_a_connection_of_its_own_and_does_not_close_its_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    closed: list[str] = []

    class Connection:
        def __init__(self) -> None:
            self._name = f"number {len(made) + 1}"
            made.append(self._name)

        def unary_unary(self, *_: object, **__: object) -> str:
            return self._name

        def close(self) -> None:
            closed.append(self._name)

    monkeypatch.setattr(grpc, "insecure_channel", lambda *_, **__: Connection())
    monkeypatch.setattr(forks, "_is_grpc_prepared", True)
    channel = a_channel()
    assert [channel.unary(rpcs.GET) for _ in range(2)] == ["number 1"] * 2
    monkeypatch.setattr(forks, "_generation", forks.generation() + 1)
    assert [channel.unary(rpcs.GET) for _ in range(2)] == ["number 2"] * 2
    channel.close()
    assert closed == ["number 2"]


async def test_a_call_that_closing_the_client_cuts_off_does_not_look_as_if_its_task_was_cancelled() -> None:
    channel = AsyncChannel(Target("127.0.0.1:1", None, ()))
    call: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def calls() -> None:
        with channel.border("GetOperation"):
            await call

    task = asyncio.create_task(calls())
    await asyncio.sleep(0)
    await channel.close()
    call.cancel()  # as grpc.aio does with what is under way
    with pytest.raises(
        OperationServiceError, match="this client was closed before GetOperation was answered"
    ) as caught:
        await task
    assert caught.value.may_have_been_carried_out


@pytest.mark.parametrize("is_closed", [True, False])
async def test_a_task_that_is_cancelled_is_cancelled(is_closed: bool) -> None:
    channel = AsyncChannel(Target("127.0.0.1:1", None, ()))

    async def calls() -> None:
        with channel.border("GetOperation"):
            await asyncio.Event().wait()

    task = asyncio.create_task(calls())
    await asyncio.sleep(0)
    if is_closed:
        await channel.close()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
