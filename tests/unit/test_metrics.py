"""What is told to Prometheus, given some facts."""

from typing import Any, cast

from scraping import Scraped, parsed
from support import TestClock

from operation_service.admission import Admission
from operation_service.census import Census
from operation_service.lock_times import LockTimes
from operation_service.metrics import Facts, Metrics
from operation_service.tallies import Tallies


def told(worker: str = "", **facts: Any) -> Scraped:
    times, tallies = LockTimes(TestClock()), Tallies()
    of_nothing = Facts(
        version="1.2.3",
        tallies=facts.pop("tallies", tallies),
        times=times,
        census=Census(lambda: cast("Any", None), times, tallies),
        admission=Admission(1, 1),
        is_healthy=lambda: True,
        deaf_seconds=lambda: 0.0,
        **facts,
    )
    return parsed(Metrics(of_nothing, worker).text().decode())


async def test_a_certificate_tells_when_it_ends() -> None:
    assert told(certificate_ends_at=lambda: 1.5e9).get("certificate_expiry_timestamp_seconds") == 1.5e9
    assert not told().has("certificate_expiry_timestamp_seconds")


async def test_what_is_not_known_yet_is_not_told() -> None:
    assert not told().has("locks_held")
    assert not told().has("dead_operators")


async def test_a_histogram_counts_all_values_up_to_each_bound() -> None:
    tallies = Tallies()
    for changes in (1, 1, 3, 100, 101):
        tallies.batches.note(changes)
    scraped = told(tallies=tallies)
    bounds = {"1": 2, "2": 2, "4": 3, "64": 3, "100": 4, "+Inf": 5}
    assert {bound: scraped.get("commit_changes_bucket", le=bound) for bound in bounds} == bounds
    assert scraped.get("commit_changes_count") == 5
    assert scraped.get("commit_changes_sum") == 206


async def test_all_that_a_worker_tells_names_it() -> None:
    values = told("7").values
    assert values
    assert all(("worker", "7") in labels for _, labels in values)
