"""What a chaos run has to come to."""

from dataclasses import replace

import pytest
from chaos.report import Delays, Report, Run, Silence
from chaos.takeover import Takeover
from chaos.verdict import late_takeovers, shortcomings

ON_TIME = Takeover("r", 50.0, 0.5, is_quiet=True, allowed=4.0)
GOOD = Report(
    run=Run(seed=1, seconds=120, began=10.0, quiet_at=130.0),
    faults={"kill leader": (3, 4.0)},
    calls={"propose": {"ok": 700, "refused LOCKED": 3000}, "append": {"ok": 200}, "get": {"ok": 90}},
    events=3000,
    together=(200, 900),
    updates={"ok": 500},
    silence=Silence(3.5, 20.0, ()),
    quiet_takeovers=Delays.of([ON_TIME]),
    all_takeovers=Delays.of([ON_TIME]),
    takeovers=(ON_TIME,),
    violations=(),
)
SHORT = replace(GOOD.run, seconds=60, quiet_at=70.0)


def test_a_good_run_has_no_shortcomings() -> None:
    assert shortcomings(GOOD) == []


@pytest.mark.parametrize(("delay", "is_late"), [(4.0, False), (4.1, True)])
@pytest.mark.parametrize("is_quiet", [True, False])
def test_a_takeover_that_nothing_excuses_is_told(delay: float, is_late: bool, is_quiet: bool) -> None:
    report = replace(GOOD, takeovers=(ON_TIME, replace(ON_TIME, delay=delay, is_quiet=is_quiet)))
    assert len(late_takeovers(report)) == is_late
    assert shortcomings(report) == late_takeovers(report)


def test_a_late_takeover_is_one_clear_line() -> None:
    (line,) = late_takeovers(replace(GOOD, takeovers=(replace(ON_TIME, delay=7.25, is_quiet=False, allowed=5.5),)))
    assert line == (
        "r, whose lock ran out at 40 s, was granted 7.2 s later: "
        "2.5 s are promised, 5.5 s can be excused with the faults near"
    )


@pytest.mark.parametrize(("changes", "count"), [(120, 0), (119, 1)])
def test_so_many_changes_a_minute_have_to_be_acknowledged(changes: int, count: int) -> None:
    assert len(shortcomings(replace(GOOD, calls={"propose": {"ok": changes}, "get": {"ok": 900}}))) == count


def test_a_service_that_only_refuses_is_not_good() -> None:
    assert shortcomings(replace(GOOD, run=SHORT, calls={"propose": {"refused UNAVAILABLE": 9000}})) == [
        "0 changes were acknowledged in 60 s: less than 60 a minute"
    ]


@pytest.mark.parametrize(("seconds", "count"), [(15.0, 0), (15.1, 1)])
def test_a_long_silence_is_told(seconds: float, count: int) -> None:
    assert len(shortcomings(replace(GOOD, silence=Silence(seconds, 20.0, ())))) == count


@pytest.mark.parametrize(("together", "count"), [(45, 0), (44, 1)])
def test_a_long_run_has_changes_that_were_committed_together(together: int, count: int) -> None:
    report = replace(GOOD, together=(together, 900))
    assert len(shortcomings(report)) == count
    assert shortcomings(replace(report, run=SHORT)) == []


def test_a_long_run_measures_how_long_takeovers_take() -> None:
    nothing = replace(GOOD, quiet_takeovers=Delays.of([]), faults={})
    assert len(shortcomings(nothing)) == 2
    assert shortcomings(replace(nothing, run=SHORT)) == []
