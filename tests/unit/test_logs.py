"""The newest logs of an operation: a hundred at the most, and each is written once."""

from datetime import timedelta
from sys import getsizeof

import pytest
from unit_support import NOW

from operation_service.model import LOGS_SHOWN, Log, Logs


def log(number: int) -> Log:
    return Log(NOW + timedelta(seconds=number), f"step {number} ä")


def many(count: int) -> Logs:
    logs = Logs()
    for number in range(count):
        logs = logs.followed_by(log(number))
    return logs


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
def test_they_are_the_newest_oldest_first(count: int) -> None:
    logs = many(count)
    assert list(logs) == [log(number) for number in range(count)][-LOGS_SHOWN:]
    assert logs == Logs(logs)


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
def test_their_size_is_that_of_their_messages_in_memory(count: int) -> None:
    logs = many(count)
    assert logs.size == sum(getsizeof(each.message) for each in logs) == Logs(logs).size


def test_each_is_written_once_however_often_they_are_told() -> None:
    written: list[Log] = []

    def write(each: Log) -> bytes:
        written.append(each)
        return each.message.encode() + b";"

    logs = many(3)
    for number in range(3, 250):
        assert logs.written(write) == b"".join(each.message.encode() + b";" for each in logs)
        logs = logs.followed_by(log(number))
    assert written == [log(number) for number in range(249)]


def test_those_before_stay_as_they_were() -> None:
    before = many(100)
    told = before.written(lambda each: each.message.encode())
    after = before.followed_by(log(100))
    assert list(before) == [log(number) for number in range(100)]
    assert before.written(lambda each: each.message.encode()) == told
    assert len(after) == LOGS_SHOWN
