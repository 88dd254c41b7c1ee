"""Several rounds come to a median, a spread, and a ratio to what was measured beside it."""

from dataclasses import replace

import pytest

from benchmarks.figures import Figure, Spread, summaries

CEILING = "ceiling"


def figure(name: str, round_: int, per_second: float, condition: str = "few", in_flight: int = 1) -> Figure:
    return Figure(name, condition, in_flight, round_, per_second, p50_ms=1000 / per_second, p99_ms=5.0)


def test_medians_and_spread_over_the_rounds() -> None:
    (row,) = summaries([figure("call", 1, 100), figure("call", 2, 400), figure("call", 3, 200)], {}, ())
    assert row.per_second == Spread(200, 100, 400)
    assert (row.p50_ms, row.p99_ms, row.server_cpu, row.ratios) == (5.0, 5.0, None, {})


def test_a_figure_is_compared_with_the_ceiling_of_its_own_round() -> None:
    # The machine is twice as fast in the second round, and the call as well.
    rows = summaries(
        [figure(CEILING, 1, 1000), figure("call", 1, 100), figure(CEILING, 2, 2000), figure("call", 2, 220)],
        {},
        (CEILING,),
    )
    assert rows[0].ratios == {}
    ratio = rows[1].ratios[CEILING]
    assert (ratio.middle, ratio.low, ratio.high) == pytest.approx((0.105, 0.1, 0.11))


def test_nor_with_one_of_other_calls_in_flight_or_another_condition() -> None:
    others = [figure(CEILING, 1, 1000, in_flight=64), figure(CEILING, 1, 1000, "many"), figure(CEILING, 2, 1000)]
    rows = summaries([*others, figure("call", 1, 100)], {}, (CEILING,))
    assert rows[-1].ratios == {}


def test_but_with_the_phase_that_a_condition_was_measured_in() -> None:
    rows = summaries([figure(CEILING, 1, 1000), figure("call", 1, 100, "long")], {"long": "few"}, (CEILING,))
    assert rows[1].ratios[CEILING].middle == pytest.approx(0.1)


def test_what_was_not_measured_in_each_round_is_the_median_of_the_others() -> None:
    first = replace(figure("call", 1, 100), server_cpu=2.0, p50_ms=None)
    (row,) = summaries([first, figure("call", 2, 100)], {}, ())
    assert (row.server_cpu, row.p50_ms) == (2.0, 10.0)
