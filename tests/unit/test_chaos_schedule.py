"""The schedule of faults of a chaos run."""

import pytest
from chaos.schedule import TAKES_A_MEMBER, TAKES_A_REPLICA, Act, Kind, plan

TEN_MINUTES = 600.0


def kinds(acts: list[Act]) -> set[Kind]:
    return {fault.kind for act in acts for fault in act.faults}


def test_the_same_seed_gives_the_same_plan() -> None:
    assert plan(7, TEN_MINUTES) == plan(7, TEN_MINUTES)


def test_another_seed_gives_another_plan() -> None:
    assert plan(7, TEN_MINUTES) != plan(8, TEN_MINUTES)


def test_a_shorter_plan_is_the_beginning_of_a_longer_one() -> None:
    short = plan(7, 60)
    assert plan(7, TEN_MINUTES)[: len(short)] == short


def test_a_plan_may_begin_as_is_wanted() -> None:
    wanted = [Kind.KILL_LEADER, Kind.COMPACT, Kind.KILL_LEADER]
    acts = plan(7, TEN_MINUTES, beginning=wanted)
    assert [fault.kind for act in acts for fault in act.faults][: len(wanted)] == wanted
    assert kinds(acts) == set(Kind)


@pytest.mark.parametrize("seed", range(20))
def test_ten_minutes_see_every_kind(seed: int) -> None:
    assert kinds(plan(seed, TEN_MINUTES)) == set(Kind)


@pytest.mark.parametrize("seed", range(20))
def test_it_lasts_as_long_as_asked(seed: int) -> None:
    acts = plan(seed, TEN_MINUTES)
    assert sum(act.seconds for act in acts) >= TEN_MINUTES > sum(act.seconds for act in acts[:-1])


@pytest.mark.parametrize("seed", range(20))
def test_no_two_faults_take_a_member_or_a_replica_at_once(seed: int) -> None:
    for act in plan(seed, TEN_MINUTES):
        for group in (TAKES_A_MEMBER, TAKES_A_REPLICA):
            assert sum(fault.kind in group for fault in act.faults) <= 1


def test_some_faults_overlap() -> None:
    assert any(len(act.faults) == 2 for act in plan(7, TEN_MINUTES))


def test_without_namespaces_no_member_is_cut_off() -> None:
    without = kinds(plan(7, TEN_MINUTES, has_namespaces=False))
    assert without == set(Kind) - {Kind.CUT_MEMBER, Kind.CUT_LEADER}


def test_clocks_step_by_an_hour() -> None:
    steps = [fault for act in plan(7, TEN_MINUTES) for fault in act.faults if fault.kind is Kind.STEP_CLOCK]
    assert {abs(step.amount) for step in steps} == {3600.0}
