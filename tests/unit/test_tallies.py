"""Plain numbers that a histogram is made of."""

from operation_service.tallies import Spread


def test_a_value_counts_in_the_first_range_that_it_does_not_exceed() -> None:
    spread = Spread((1.0, 2.0, 4.0))
    for value in (0.0, 1.0, 1.5, 2.0, 4.0, 4.1, 100.0):
        spread.note(value)
    assert spread.counts == [2, 2, 1, 2]
    assert spread.sum == 112.6
