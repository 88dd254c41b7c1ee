"""How late a takeover may be: what rule 12 promises, and the time in which nobody could have kept that. Pure."""

from collections.abc import Iterable

from chaos.history import Fault
from chaos.schedule import TAKES_A_MEMBER, TAKES_A_REPLICA, Kind

PROMISED_SECONDS = 2.5
NOISE_SECONDS = 1.5
"""A machine with few cores runs all of it, and a client is told of its lock when it has a turn."""
_ELECTION_SECONDS = 3.0
"""Members miss their leader for 1 to 2 s before they elect another one; if the votes are split, for as long again."""
_COMES_BACK = frozenset({Kind.STOP_MEMBER, Kind.STOP_LEADER, Kind.CUT_MEMBER, Kind.CUT_LEADER})
"""There is no pre-vote: a member that was away but lived makes the others elect once more."""
_LOSES_NOTHING = frozenset({Kind.MOVE_LEADER, Kind.DEFRAGMENT})
"""The members go on as before, within a moment."""
_ONES_OWN = (TAKES_A_REPLICA - {Kind.STEP_CLOCK}) | {Kind.KILL_CLIENT, Kind.STOP_CLIENT}
"""These hurt one call in flight; the other replicas and clients go on."""

_Window = tuple[float, float]


def allowed_seconds(
    told_until: float, granted: _Window, faults: Iterable[Fault], *, taken_at: float, lock_seconds: float
) -> float:
    """Return by how much a grant may be later than the end of the lock before it.

    Args:
        told_until: That end, as its holder was told.
        granted: When the grant was asked for, and when it was answered.
        faults: What was done to the cluster.
        taken_at: When the lock before it was taken, or renewed.
        lock_seconds: For how long.

    Returns:
        The promise, some noise, and of the time between the end and the grant that in which etcd may have had no
        quorum, no leader or no space, or in which the call itself was held up. Where all replicas were killed since
        the lock was taken, nobody is left who saw that, and it may last its whole time again.
    """
    asked_at, answered_at = granted
    excused: list[_Window] = []
    extra = 0.0
    for fault in faults:
        excused += [_overlap(window, (told_until, answered_at)) for window in _without_quorum(fault)]
        if fault.kind in _ONES_OWN:
            excused.append(
                _overlap((fault.began, fault.ended + NOISE_SECONDS), (max(asked_at, told_until), answered_at))
            )
        if fault.kind == Kind.KILL_ALL and fault.began <= answered_at and taken_at <= fault.ended:
            extra = lock_seconds
    return PROMISED_SECONDS + NOISE_SECONDS + _length(excused) + extra


def _without_quorum(fault: Fault) -> list[_Window]:
    """Return when etcd may have taken no changes because of a fault."""
    if fault.kind == Kind.NO_SPACE:
        return [(fault.began, fault.ended)]
    if fault.kind == Kind.KILL_ALL:
        return [(fault.began, fault.ended + _ELECTION_SECONDS)]
    if fault.kind not in TAKES_A_MEMBER or fault.kind in _LOSES_NOTHING:
        return []
    # While a member is away the others do without it.
    elections = [(fault.began, fault.began + _ELECTION_SECONDS)]
    if fault.kind in _COMES_BACK:
        elections.append((fault.mending, fault.ended + _ELECTION_SECONDS))
    return elections


def _overlap(one: _Window, other: _Window) -> _Window:
    return max(one[0], other[0]), min(one[1], other[1])


def _length(windows: Iterable[_Window]) -> float:
    """Return how long they last together; what two of them share counts once."""
    total, up_to = 0.0, 0.0
    for began, ended in sorted(windows):
        total += max(0.0, ended - max(began, up_to))
        up_to = max(up_to, ended)
    return total
