"""What is kept of resources, by what it weighs."""

import sys

from unit_support import FakeClock

from operation_service import weights
from operation_service.beliefs import Beliefs
from operation_service.model import Details, Event, Failure, Log, Logs, Phase, Record, Resource, Snapshot


def a_snapshot(failure: Failure | None = None) -> Snapshot:
    return Snapshot(record=Record("0" * 32, Phase.PROPOSED, Event.LOCKED, "1" * 32, failure=failure))


def test_beliefs_are_kept_by_weight_and_the_oldest_go_first() -> None:
    beliefs = Beliefs(max_bytes=400_000)
    small = a_snapshot()
    large = a_snapshot(Failure(13, "x" * 60_000))
    for number in range(100):
        beliefs.keep(Resource("p", f"small/{number}"), small)
    assert len(beliefs) == 100
    beliefs.keep(Resource("p", "small/0"), small)
    for number in range(5):
        beliefs.keep(Resource("p", f"large/{number}"), large)
    assert beliefs.get(Resource("p", "small/1")) is None
    assert beliefs.get(Resource("p", "small/0")) is small
    assert beliefs.get(Resource("p", "large/4")) is large
    for number in range(100):
        beliefs.keep(Resource("p", f"large/{number}"), large)
    assert len(beliefs) == 6


def test_the_smallest_details_weigh_what_they_take_in_memory() -> None:
    small = a_snapshot(Failure(13, "", (b"xx",) * 10_000)).record
    assert weights.of_record(small) > 10_000 * (2 + 41)


def test_what_is_forgotten_gives_its_weight_back() -> None:
    beliefs, resource = Beliefs(max_bytes=5_000), Resource("p", "n")
    for _ in range(100):
        beliefs.keep(resource, a_snapshot())
        beliefs.forget(resource)
        beliefs.forget(resource)
    assert beliefs.get(resource) is None
    beliefs.keep(resource, a_snapshot())
    assert beliefs.get(resource) is not None


def test_what_a_belief_weighs_is_no_less_than_half_of_what_it_takes() -> None:
    """Each log is kept as text, and as the bytes that are told."""
    logs = Logs(Log(FakeClock().now(), chr(0x1F600 + number % 50) * 1_024) for number in range(100))
    written = len(logs.written(lambda log: log.message.encode()))
    takes = written + sum(sys.getsizeof(log.message) for log in logs)
    snapshot = Snapshot(details=Details(None, logs))
    assert weights.of_snapshot(snapshot) * 2 >= takes
