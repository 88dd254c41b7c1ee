"""Which faults a run makes, and when: a pure function of the seed and the seconds."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What can be done to the cluster."""

    KILL_MEMBER = "kill member"
    KILL_LEADER = "kill leader"
    KILL_REPLICA = "kill replica"
    KILL_CLIENT = "kill client"
    KILL_ALL = "kill all"
    STOP_MEMBER = "stop member"
    STOP_LEADER = "stop leader"
    STOP_REPLICA = "stop replica"
    STOP_CLIENT = "stop client"
    CUT_MEMBER = "cut member off"
    CUT_LEADER = "cut leader off"
    CUT_REPLICA_FROM_ETCD = "cut replica off etcd"
    CUT_REPLICA_FROM_CLIENTS = "cut replica off clients"
    RESET_LINKS = "reset replica's links"
    SWALLOW_ANSWERS = "swallow answers"
    STEP_CLOCK = "step replica's clock"
    MOVE_LEADER = "move leader"
    DEFRAGMENT = "defragment member"
    COMPACT = "compact"
    NO_SPACE = "no space"


TAKES_A_MEMBER = frozenset(
    {
        Kind.KILL_MEMBER,
        Kind.KILL_LEADER,
        Kind.STOP_MEMBER,
        Kind.STOP_LEADER,
        Kind.CUT_MEMBER,
        Kind.CUT_LEADER,
        Kind.MOVE_LEADER,
        Kind.DEFRAGMENT,
        Kind.KILL_ALL,
    }
)
"""Two of these at once would take the quorum."""

TAKES_A_REPLICA = frozenset(
    {
        Kind.KILL_REPLICA,
        Kind.STOP_REPLICA,
        Kind.CUT_REPLICA_FROM_ETCD,
        Kind.CUT_REPLICA_FROM_CLIENTS,
        Kind.RESET_LINKS,
        Kind.SWALLOW_ANSWERS,
        Kind.STEP_CLOCK,
        Kind.KILL_ALL,
    }
)
"""Two of these at once could be two hands on one replica."""

_TAKES_A_CLIENT = frozenset({Kind.KILL_CLIENT, Kind.STOP_CLIENT})
_NEEDS_NAMESPACES = frozenset({Kind.CUT_MEMBER, Kind.CUT_LEADER})

_SECONDS = {
    Kind.KILL_MEMBER: (0.0, 5.0),
    Kind.KILL_LEADER: (0.0, 5.0),
    Kind.KILL_REPLICA: (0.0, 5.0),
    Kind.KILL_CLIENT: (0.0, 2.0),
    Kind.KILL_ALL: (0.0, 1.0),
    Kind.STOP_MEMBER: (1.0, 15.0),
    Kind.STOP_LEADER: (1.0, 15.0),
    Kind.STOP_REPLICA: (1.0, 15.0),
    Kind.STOP_CLIENT: (1.0, 15.0),
    Kind.CUT_MEMBER: (2.0, 12.0),
    Kind.CUT_LEADER: (2.0, 12.0),
    Kind.CUT_REPLICA_FROM_ETCD: (1.0, 12.0),
    Kind.CUT_REPLICA_FROM_CLIENTS: (1.0, 8.0),
    Kind.RESET_LINKS: (0.0, 0.0),
    Kind.SWALLOW_ANSWERS: (1.0, 3.0),
    Kind.STEP_CLOCK: (0.0, 0.0),
    Kind.MOVE_LEADER: (0.0, 0.0),
    Kind.DEFRAGMENT: (0.0, 0.0),
    Kind.COMPACT: (0.0, 0.0),
    Kind.NO_SPACE: (1.0, 5.0),
}
"""For how long, at least and at most. 0: it is over at once."""

_OFTEN = (Kind.KILL_LEADER, Kind.STOP_REPLICA, Kind.SWALLOW_ANSWERS, Kind.STEP_CLOCK, Kind.COMPACT, Kind.COMPACT)
"""These come twice as often as the others, or more."""
_OVERLAPPING = 0.2
_PAUSE = (1.0, 4.0)
_CALM = 0.12
_CALM_PAUSE = (9.0, 12.0)
"""So many of the pauses last long enough to see how the service does when nothing is wrong."""
_TO_THE_PRESENT = 0.4
"""Of compactions: so many leave nothing that a watch could resume from. The others leave some seconds of history."""
_HISTORY_SECONDS = 8.0


@dataclass(frozen=True)
class Planned:
    """One fault.

    Attributes:
        kind: What.
        target: To which one, counted from 0; where the kind has but one target, it says nothing.
        seconds: For how long.
        after: So many seconds after the act begins.
        amount: STEP_CLOCK: by how many seconds. COMPACT: how many seconds of history stay.
    """

    kind: Kind
    target: int
    seconds: float
    after: float = 0.0
    amount: float = 0.0


@dataclass(frozen=True)
class Act:
    """One fault or two that overlap, and how long it is quiet afterwards."""

    faults: tuple[Planned, ...]
    pause: float

    @property
    def seconds(self) -> float:
        """How long it lasts, if nothing takes longer than planned."""
        return max(fault.after + fault.seconds for fault in self.faults) + self.pause


def plan(seed: int, seconds: float, *, has_namespaces: bool = True, beginning: Sequence[Kind] = ()) -> list[Act]:
    """Plan a run.

    Args:
        seed: The same seed gives the same plan.
        seconds: What the acts last together, at least.
        has_namespaces: Whether members can be cut off.
        beginning: What comes first.

    Returns:
        The acts, one after the other. Within some minutes every kind comes once.
    """
    rng = random.Random(seed)
    kinds = [kind for kind in Kind if has_namespaces or kind not in _NEEDS_NAMESPACES]
    acts: list[Act] = []
    bag = list(reversed(beginning))
    while sum(act.seconds for act in acts) < seconds:
        if not bag:
            bag = [*kinds, *_OFTEN]
            rng.shuffle(bag)
        acts.append(_act(rng, bag))
    return acts


def _act(rng: random.Random, bag: list[Kind]) -> Act:
    first = _fault(rng, bag.pop())
    faults = [first]
    if rng.random() < _OVERLAPPING and bag and _go_together(first.kind, bag[-1]):
        faults.append(_fault(rng, bag.pop(), after=round(rng.uniform(0, first.seconds), 2)))
    pause = _CALM_PAUSE if rng.random() < _CALM else _PAUSE
    return Act(tuple(faults), round(rng.uniform(*pause), 2))


def _go_together(first: Kind, second: Kind) -> bool:
    groups = (TAKES_A_MEMBER, TAKES_A_REPLICA, _TAKES_A_CLIENT)
    return first is not second and not any(first in group and second in group for group in groups)


def _fault(rng: random.Random, kind: Kind, after: float = 0.0) -> Planned:
    amount = 0.0
    if kind is Kind.STEP_CLOCK:
        amount = rng.choice((-3600.0, 3600.0))
    elif kind is Kind.COMPACT and rng.random() >= _TO_THE_PRESENT:
        amount = _HISTORY_SECONDS
    return Planned(kind, rng.randrange(3), round(rng.uniform(*_SECONDS[kind]), 2), after, amount)
