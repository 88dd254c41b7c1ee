"""The blocking client's connection; nothing is connected to."""

import grpc
import pytest

from operation_service.client import forks, rpcs
from operation_service.client.blocking import Channel
from operation_service.client.errors import OperationServiceError


def a_channel() -> Channel:
    return Channel("127.0.0.1:1", None, ())


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
