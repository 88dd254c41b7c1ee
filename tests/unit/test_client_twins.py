"""The blocking client and that for asyncio offer the same, so that whoever knows one knows the other."""

import inspect
from typing import Any

import pytest

from operation_service.client import AsyncClient, AsyncHeldOperation, Client, HeldOperation


def offered(kind: type[Any]) -> dict[str, list[tuple[str, Any, str]]]:
    """The public methods and properties, with names, defaults and kinds of their arguments."""
    found = {"__init__": kind.__init__} | {
        name: each for name, each in inspect.getmembers(kind) if not name.startswith("_")
    }
    return {
        name: [(each.name, each.default, each.kind.name) for each in inspect.signature(method).parameters.values()]
        if callable(method)
        else []
        for name, method in found.items()
    }


@pytest.mark.parametrize(("blocking", "aio"), [(Client, AsyncClient), (HeldOperation, AsyncHeldOperation)])
def test_both_have_the_same_calls_with_the_same_arguments(blocking: type[Any], aio: type[Any]) -> None:
    assert {**offered(blocking), "__init__": []} == {**offered(aio), "__init__": []}


def test_both_are_made_in_the_same_way() -> None:
    assert offered(Client)["__init__"] == offered(AsyncClient)["__init__"]
