"""The checker of chaos runs, on the locked_until that holders are told."""

import msgspec
import pytest
from chaos.checker import Kind, check
from chaos.history import Call, ClockSet, Outcome

HOUR = 3600.0
GRANT = Call(
    client="a",
    rpc="propose",
    resource="r",
    began=100.0,
    ended=100.5,
    outcome=Outcome.OK,
    token="a",
    lock_for_seconds=5,
    fencing_token=7,
    told_until=105.0,
    replica="s1",
)


def kinds(said_until: float, *clocks: ClockSet) -> list[Kind]:
    call = msgspec.structs.replace(GRANT, said_until=said_until)
    return [violation.kind for violation in check([call, *clocks])]


def clock(at: float, ahead: float, replica: str = "s1") -> ClockSet:
    return ClockSet(replica=replica, at=at, ahead=ahead)


@pytest.mark.parametrize("ahead", [-HOUR, 0.0, HOUR])
@pytest.mark.parametrize(
    ("until", "expected"),
    [
        (105.0, []),
        (107.0, []),  # granted a second more, at the end of the call
        (104.9, [Kind.LOCKED_UNTIL]),
        (107.1, [Kind.LOCKED_UNTIL]),
        (100.0, [Kind.LOCKED_UNTIL]),
        (3705.0, [Kind.LOCKED_UNTIL]),
    ],
)
def test_what_is_told_is_right_by_the_clock_of_who_tells_it(ahead: float, until: float, expected: list[Kind]) -> None:
    assert kinds(until + ahead, clock(50.0, ahead)) == expected


@pytest.mark.parametrize(
    "clocks",
    [
        [],
        [clock(50.0, 0.0, "s2")],
        [clock(50.0, 0.0), clock(98.5, HOUR)],
        [clock(50.0, 0.0), clock(100.3, HOUR)],
        [clock(101.0, 0.0)],
    ],
    ids=["none", "another's", "just set", "set meanwhile", "set later"],
)
def test_of_a_clock_that_is_not_known_nothing_is_said(clocks: list[ClockSet]) -> None:
    assert kinds(200.0, *clocks) == []


def test_the_latest_setting_counts() -> None:
    assert kinds(105.0 + HOUR, clock(50.0, 0.0), clock(90.0, HOUR), clock(101.0, 0.0)) == []
