"""What is told of refused calls: enough to find out why, never a token, and no flood."""

import asyncio
import json
import logging
import os
from types import SimpleNamespace

import pytest

from n0stack.protobuf.operation_pb2 import ProposeOperationRequest
from operation_service import denied as room
from operation_service.audit import Audit
from operation_service.denied import Denied
from operation_service.errors import BearerTokenInvalidError, IdentityRequiredError, RoleRequiredError
from operation_service.lines import Lines

ROLE = RoleRequiredError("operate", "demo", "token:alice")


class Clock:
    def __init__(self) -> None:
        self.seconds = 1_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(room, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    return clock


def test_a_refused_call_is_told_with_who_called_and_why(caplog: pytest.LogCaptureFixture) -> None:
    Denied().tell("GetOperation", "192.0.2.1:5", BearerTokenInvalidError("it has no exp"))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("GetOperation by 192.0.2.1:5 refused: the token")
    assert "it has no exp" in record.getMessage()


def test_what_a_caller_calls_itself_stays_one_line(caplog: pytest.LogCaptureFixture) -> None:
    Denied().tell("GetOperation", "a\nb\x1b[31m", IdentityRequiredError("c\nd"))
    assert caplog.messages[0].isprintable()


def test_a_flood_is_twenty_lines_in_ten_seconds_and_then_how_many_more(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    denied = Denied()
    for _ in range(1_000):
        denied.tell("GetOperation", "192.0.2.1:5", IdentityRequiredError())
        clock.seconds += 0.005
    assert len(caplog.records) == 20
    clock.seconds += 10
    caplog.clear()
    for _ in range(500):
        denied.tell("GetOperation", "192.0.2.1:5", IdentityRequiredError())
    assert len(caplog.records) == 21
    assert caplog.messages[0] == "980 more calls were refused that were not told of"
    clock.seconds += 10
    caplog.clear()
    denied.tell("GetOperation", "192.0.2.1:5", IdentityRequiredError())
    assert len(caplog.records) == 2
    assert caplog.messages[0] == "480 more calls were refused that were not told of"


async def test_how_many_more_there_were_is_told_once_when_their_time_is_over(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room, "_LOOK_SECONDS", 0.0)
    denied = Denied()
    telling = asyncio.create_task(denied.run())
    for _ in range(25):
        denied.tell("GetOperation", "192.0.2.1:5", IdentityRequiredError())
    caplog.clear()
    for seconds in (9.9, 0.1, 10.0):
        clock.seconds += seconds
        for _ in range(5):
            await asyncio.sleep(0)
        assert caplog.messages == ["5 more calls were refused that were not told of"] * (seconds != 9.9)
    telling.cancel()
    await asyncio.wait({telling})
    assert len(caplog.messages) == 1


def test_who_calls_seldom_is_told_of_each_time_and_nothing_is_said_to_be_untold(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    denied = Denied()
    for _ in range(50):
        denied.tell("GetOperation", "192.0.2.1:5", IdentityRequiredError())
        clock.seconds += 1
    assert len(caplog.records) == 50
    assert all(message.startswith("GetOperation by") for message in caplog.messages)


def test_where_there_is_no_audit_a_missing_role_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    request = ProposeOperationRequest(project="demo", name="web-1", proposing_peer_token="a-secret")
    Denied().tell("ProposeOperation", "token:alice", ROLE, request)
    assert "has not the role operate on the project demo" in caplog.messages[0]
    assert "a-secret" not in caplog.text


async def test_a_missing_role_is_a_line_of_the_audit_each_time_and_strangers_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reading, writing = os.pipe()
    lines = Lines(writing, lambda _: b"")
    denied = Denied()
    denied.audit = Audit(lines, "json")
    request = ProposeOperationRequest(project="demo", name="web-1", proposing_peer_token="a-secret")
    for _ in range(30):
        denied.tell("ProposeOperation", "token:alice", ROLE, request)
    assert not caplog.records
    denied.tell("ProposeOperation", "192.0.2.1:5", IdentityRequiredError(), request)
    denied.audit.flush()
    assert lines.flush(10)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        written = told.read()
    assert b"a-secret" not in written
    audited = [json.loads(line) for line in written.splitlines()]
    assert len(audited) == 30
    first = audited[0]
    assert {key: first[key] for key in ("message", "rpc", "project", "name", "by", "reason")} == {
        "message": "denied",
        "rpc": "ProposeOperation",
        "project": "demo",
        "name": "web-1",
        "by": "token:alice",
        "reason": "ROLE_REQUIRED",
    }
    assert len(caplog.records) == 1
