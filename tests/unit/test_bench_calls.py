"""Which request is sent when, and what is counted."""

import pytest

from benchmarks.http2 import Connection
from benchmarks.load import Calls, Plan, percentile


class FakeConnection(Connection):
    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def begin(self, message: bytes) -> int:
        self.sent.append(message)
        return 2 * len(self.sent) - 1


def plan(*requests: bytes, first: int = 0, limit: int = 0) -> Plan:
    return Plan("127.0.0.1:1", "/path", [request.hex() for request in requests], 2, first=first, limit=limit)


def test_each_call_has_its_number_wherever_the_request_says_so() -> None:
    calls, connection = Calls(plan(b"a 0000000000 b 0000000000", first=41)), FakeConnection()
    calls.begin(connection, 0, 0.0)
    calls.begin(connection, 1, 0.0)
    assert connection.sent == [b"a 0000000041 b 0000000041", b"a 0000000042 b 0000000042"]
    assert calls.number == 43


def test_a_place_always_sends_its_own_request() -> None:
    calls, connection = Calls(plan(b"first", b"second")), FakeConnection()
    calls.begin(connection, 0, 0.0)
    calls.begin(connection, 1, 0.0)
    place = calls.ended(connection, 3, 0, 1.0)
    assert place == 1
    calls.begin(connection, place, 1.0)
    assert connection.sent == [b"first", b"second", b"second"]


def test_no_more_calls_are_made_than_the_limit() -> None:
    calls, connection = Calls(plan(b"0000000000", first=5, limit=1)), FakeConnection()
    calls.begin(connection, 0, 0.0)
    calls.begin(connection, 1, 0.0)
    assert connection.sent == [b"0000000005"]
    calls.ended(connection, 1, 9, 0.5)
    assert calls.is_done
    assert (calls.statuses, calls.took) == ({9: 1}, [0.5])


def test_what_was_before_the_time_that_counts_is_not_counted() -> None:
    calls, connection = Calls(plan(b"request")), FakeConnection()
    calls.begin(connection, 0, 0.0)
    calls.ended(connection, 1, 0, 1.0)
    calls.count_from_here()
    calls.begin(connection, 0, 1.0)
    calls.stop()
    calls.begin(connection, 1, 1.0)
    calls.ended(connection, 3, 0, 3.0)
    assert (calls.is_done, calls.took, len(connection.sent)) == (True, [2.0], 2)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, 0.0), ([7.0], 0.99, 7.0), ([1.0, 2.0, 3.0], 0.5, 2.0), ([float(n) for n in range(100)], 0.99, 99.0)],
)
def test_percentiles(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected
