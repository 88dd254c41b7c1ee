"""An audit line tells who changed what, and neither the token nor what the request says."""

import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from unit_support import NOW

from operation_service.audit import Audit, fingerprint
from operation_service.lines import Lines
from operation_service.logs import LogFormat
from operation_service.model import Caller, Create, Event, Lock, Phase, Propose, Record, Resource

TOKEN = "a-secret-token"
RESOURCE = Resource("demo", "virtual_machines/web-1")
LOCK = Lock(TOKEN, "192.0.2.1:5", NOW, NOW, 30.0, False)
RECORD = Record("id", Phase.PROPOSED, Event.RENEWED, "change", LOCK, 33)
PROPOSE = Propose(RESOURCE, Caller(TOKEN, "192.0.2.1:5"), 30, log_message="a secret message")

Told = Callable[..., tuple[Audit, Callable[[], bytes]]]


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    files: list[int] = []

    def make(log_format: LogFormat = "json", **more: Any) -> tuple[Audit, Callable[[], bytes]]:
        reading, writing = os.pipe()
        files.extend((reading, writing))
        os.set_blocking(reading, False)
        lines = Lines(writing, lambda _: b"")
        audit = Audit(lines, log_format, **more)

        def read() -> bytes:
            audit.flush()
            assert lines.flush(10)
            try:
                return os.read(reading, 1_000_000)
            except BlockingIOError:
                return b""

        return audit, read

    yield make
    for file in files:
        os.close(file)


async def test_a_change_is_told_with_all_its_facts(told: Told) -> None:
    audit, read = told(who="worker 3")
    audit.outcome(PROPOSE, RECORD, RECORD, 44)
    line = json.loads(read())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "INFO",
        "logger": "operation_service.audit",
        "message": "changed",
        "rpc": "ProposeOperation",
        "project": "demo",
        "name": "virtual_machines/web-1",
        "by": "192.0.2.1:5",
        "token": hashlib.sha256(TOKEN.encode()).hexdigest()[:12],
        "event": "RENEWED",
        "fencing_token": 33,
        "revision": 44,
        "worker": "3",
    }


async def test_a_line_for_people_has_the_same_facts(told: Told) -> None:
    audit, read = told("text")
    audit.outcome(PROPOSE, None, RECORD, 44)
    line = read().decode()
    assert line.count("\n") == 1
    expected = (
        " INFO operation_service.audit: changed: RENEWED demo/virtual_machines/web-1 by 192.0.2.1:5 "
        f"(ProposeOperation, token {fingerprint(TOKEN)}, fencing token 33, revision 44)\n"
    )
    assert line.endswith(expected)


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_neither_tokens_nor_contents_are_told(told: Told, log_format: LogFormat) -> None:
    audit, read = told(log_format)
    audit.outcome(PROPOSE, None, RECORD, 44)
    create = Create(RESOURCE, Caller(TOKEN, "me"), b"a secret request", "digest", log_message="a secret message")
    audit.outcome(create, None, RECORD, 45)
    audit.denied("GetOperation", "PERMISSION", project="demo", name="x", by="me", token=TOKEN)
    assert b"secret" not in read()


async def test_a_lock_that_a_change_takes_has_its_revision_for_a_fencing_token(told: Told) -> None:
    audit, read = told()
    taken = Record("id", Phase.PROPOSED, Event.LOCKED, "change", LOCK, None)
    audit.outcome(PROPOSE, None, taken, 44)
    assert json.loads(read())["fencing_token"] == 44


async def test_a_change_that_perhaps_was_made_says_so(told: Told) -> None:
    audit, read = told()
    audit.outcome(PROPOSE, None, RECORD, 0)
    assert json.loads(read())["message"] == "perhaps changed"


async def test_what_is_denied_is_told_with_its_reason_also_when_changes_are_not(told: Told) -> None:
    audit, read = told(tells_changes=False)
    audit.outcome(PROPOSE, None, RECORD, 44)
    audit.denied("CancelOperation", "NOT_PERMITTED", project="demo", name="web", by="mallory", token="")
    line = json.loads(read())
    assert (line["message"], line["level"], line["reason"]) == ("denied", "WARNING", "NOT_PERMITTED")


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_nothing_that_a_caller_sends_makes_a_line(told: Told, log_format: LogFormat) -> None:
    audit, read = told(log_format)
    evil = "x\n2026-11-25 00:00:00,000 INFO operation_service.audit: changed\r\x1b[2J"
    audit.denied("GetOperation", "PERMISSION", project=evil, name=evil, by=evil, token=evil)
    line = read()
    assert line.count(b"\n") == 1
    assert b"\r" not in line
    assert b"\x1b" not in line
