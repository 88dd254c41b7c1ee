"""What log lines look like, and that nothing in a message can pass for another line."""

import json
import logging
import re
import sys
from typing import Any

import pytest

from operation_service.logs import JsonFormatter, TextFormatter, written

EVIL = "a\n2026-11-25 00:00:00,000 INFO forged: line\r\x1b[31m\x00\x85\u2028end"


def record(message: str, *args: object, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("operation_service.some", logging.WARNING, "", 0, message, args, None)
    for key, value in more.items():
        setattr(made, key, value)
    return made


def with_exception(message: str) -> logging.LogRecord:
    made = record("it failed")
    try:
        int(message)
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def as_json(formatter: logging.Formatter, made: logging.LogRecord) -> dict[str, Any]:
    line = written(formatter, made)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    told: dict[str, Any] = json.loads(line)
    return told


def test_a_line_for_people_has_time_level_logger_and_message() -> None:
    line = written(TextFormatter(), record("%s is %d", "it", 3)).decode()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING operation_service\.some: it is 3\n", line)


def test_a_worker_says_which_it_is() -> None:
    assert " WARNING worker 2 operation_service.some: x\n" in written(TextFormatter("worker 2"), record("x")).decode()
    assert as_json(JsonFormatter("worker 2"), record("x"))["worker"] == "2"


def test_json_has_the_time_in_utc_and_what_a_text_line_has() -> None:
    told = as_json(JsonFormatter(), record("%s is %d", "it", 3))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", told.pop("time"))
    assert told == {"level": "WARNING", "logger": "operation_service.some", "message": "it is 3"}


def test_fields_of_a_record_stand_beside_its_message() -> None:
    told = as_json(JsonFormatter(), record("x", fields={"project": "demo", "name": EVIL}))
    assert (told["project"], told["name"]) == ("demo", EVIL)


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_what_a_caller_sends_stays_within_its_line(formatter: logging.Formatter) -> None:
    line = written(formatter, record("the key %s is none of the service's", EVIL))
    assert line.count(b"\n") == 1
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", line)


def test_no_line_of_an_exception_can_be_taken_for_a_log_line() -> None:
    first, *others = written(TextFormatter(), with_exception(EVIL)).decode().splitlines()
    assert first.endswith("it failed")
    assert others
    assert all(line.startswith("  ") for line in others)
    assert "forged" in "".join(others)


def test_an_exception_is_a_field_of_its_line() -> None:
    told = as_json(JsonFormatter(), with_exception(EVIL))
    assert told["message"] == "it failed"
    assert told["exception"].startswith("Traceback")
    assert "forged" in told["exception"]


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_half_a_character_can_be_written(formatter: logging.Formatter) -> None:
    assert b"udc80" in written(formatter, record("%s", "\udc80"))
