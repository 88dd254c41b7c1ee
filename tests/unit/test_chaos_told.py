"""What a client of a chaos run makes of the locked_until that it was told."""

import pytest
from chaos.told import told_until

BEGAN, ENDED, SECONDS = 100.0, 100.5, 5
HOUR = 3600.0


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        (105.0, 105.0),  # asked etcd at once
        (105.4, 105.4),
        (106.9, 106.9),  # was granted a second more
        (107.0, 107.0),
        (107.1, 105.0),  # more than can have been granted
        (104.9, 105.0),  # less than was asked for
        (105.2 + HOUR, 105.0),
        (105.2 - HOUR, 105.0),
    ],
)
def test_what_was_told_counts_where_it_can_be_right(until: float, expected: float) -> None:
    told = told_until(until, began=BEGAN, ended=ENDED, lock_for_seconds=SECONDS)
    assert told == pytest.approx(expected, abs=1e-5)
