"""How late a takeover of a chaos run may be."""

import pytest
from chaos.allowance import NOISE_SECONDS, PROMISED_SECONDS, allowed_seconds
from chaos.history import Fault
from chaos.schedule import Kind

TAKEN_AT, TOLD_UNTIL = 94.0, 100.0
LOCK_SECONDS = 6.0
GRANTED = (109.9, 110.0)


def fault(kind: Kind, began: float, ended: float, mending: float = 0.0) -> Fault:
    return Fault(kind=kind, target="m1", began=began, ended=ended, mending=mending or ended)


def excused(*faults: Fault, granted: tuple[float, float] = GRANTED) -> object:
    allowed = allowed_seconds(TOLD_UNTIL, granted, faults, taken_at=TAKEN_AT, lock_seconds=LOCK_SECONDS)
    return pytest.approx(allowed - PROMISED_SECONDS - NOISE_SECONDS)


def test_with_no_fault_near_only_noise_is_excused() -> None:
    assert excused() == 0


@pytest.mark.parametrize(
    ("kind", "began", "mending", "ended", "expected"),
    [
        (Kind.KILL_LEADER, 99.0, 103.0, 105.0, 2.0),  # the election ends at 102, and coming back makes no other
        (Kind.KILL_LEADER, 101.0, 101.0, 101.5, 3.0),
        (Kind.KILL_LEADER, 90.0, 95.0, 96.0, 0.0),  # this is what stretches a lock
        (Kind.KILL_LEADER, 109.0, 111.0, 112.0, 1.0),
        (Kind.KILL_LEADER, 111.0, 112.0, 113.0, 0.0),
        (Kind.CUT_MEMBER, 90.0, 98.0, 98.5, 1.5),  # comes back with an election
        (Kind.CUT_LEADER, 99.0, 104.0, 105.0, 6.0),  # one until 102, one until 108
        (Kind.STOP_LEADER, 99.0, 101.0, 101.5, 4.5),  # both in one
        (Kind.NO_SPACE, 98.0, 101.0, 104.0, 4.0),
        (Kind.STOP_REPLICA, 95.0, 105.0, 105.0, 0.0),  # the others go on
        (Kind.STOP_REPLICA, 95.0, 109.5, 109.5, 0.1),  # the grant itself was held up
        (Kind.MOVE_LEADER, 101.0, 101.0, 101.0, 0.0),  # stretches a lock, and takes nothing
        (Kind.STEP_CLOCK, 95.0, 112.0, 112.0, 0.0),
        (Kind.COMPACT, 95.0, 112.0, 112.0, 0.0),
    ],
)
def test_the_time_without_a_quorum_is_excused(
    kind: Kind, began: float, mending: float, ended: float, expected: float
) -> None:
    assert excused(fault(kind, began, ended, mending)) == expected


def test_what_faults_share_is_excused_once() -> None:
    assert excused(fault(Kind.NO_SPACE, 100.0, 103.0), fault(Kind.KILL_LEADER, 102.0, 103.0)) == 5.0


def test_a_grant_that_was_held_up_is_excused_from_the_end_on() -> None:
    assert excused(fault(Kind.STOP_CLIENT, 96.0, 104.0), granted=(99.9, 104.1)) == pytest.approx(4.1)


@pytest.mark.parametrize(
    ("began", "ended", "expected"),
    [
        (98.0, 101.0, 4.0 + LOCK_SECONDS),
        (95.0, 96.0, LOCK_SECONDS),
        (93.5, 94.5, LOCK_SECONDS),
        (92.0, 93.9, 0.0),  # the lock was taken of a replica that lives
        (110.1, 111.0, 0.0),
    ],
)
def test_a_lock_that_no_living_replica_saw_taken_may_last_its_time_again(
    began: float, ended: float, expected: float
) -> None:
    assert excused(fault(Kind.KILL_ALL, began, ended)) == expected
