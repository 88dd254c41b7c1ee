"""Whether members of etcd can be cut off on this machine."""

import shutil

import pytest
from chaos.namespaces import are_demanded, why_not


def test_without_ip_there_are_no_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert why_not.__wrapped__() == "there is no `ip`"


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("", False), ("0", False)])
def test_they_may_be_demanded(monkeypatch: pytest.MonkeyPatch, value: str, expected: bool) -> None:
    monkeypatch.setenv("CHAOS_NEEDS_NAMESPACES", value)
    assert are_demanded() is expected
