"""The locked_until that a holder is told is right by the clock of the replica that told it, however wrong (rule 1)."""

from collections.abc import Iterator, Sequence

from chaos.checker_facts import Facts
from chaos.checker_holds import is_grant
from chaos.checker_violation import Kind, Violation
from chaos.history import Call, ClockSet
from chaos.told import MOST_SECONDS

_UNSURE_SECONDS = 2.0
"""For so long after its clock was set a replica may go by the one before."""
_TOLERANCE_SECONDS = 0.05
"""The machine's own clock may be put right meanwhile."""


def check_deadlines(facts: Facts) -> Iterator[Violation]:
    """Yield where a holder was told a time that is neither what it asked for nor a second more."""
    for resource in facts.resources.values():
        for call in filter(is_grant, resource.changes):
            ahead = _ahead(facts.clocks.get(call.replica, ()), call)
            if ahead is None or not call.said_until:
                continue
            until = call.said_until - ahead
            earliest, latest = call.began + call.lock_for_seconds, call.ended + call.lock_for_seconds + MOST_SECONDS
            if not earliest - _TOLERANCE_SECONDS <= until <= latest + _TOLERANCE_SECONDS:
                what = (
                    f"{call.token} was told a locked_until of {until:.3f}, by a clock that is {ahead:+.0f} s off, "
                    f"which should be between {earliest:.3f} and {latest:.3f}"
                )
                yield Violation(Kind.LOCKED_UNTIL, resource.name, what, (call,))


def _ahead(clocks: Sequence[ClockSet], call: Call) -> float | None:
    """Return how wrong a replica's clock was during a call; None if that is not sure."""
    known = [clock for clock in clocks if clock.at <= call.ended]
    if not known or known[-1].at > call.began - _UNSURE_SECONDS:
        return None
    return known[-1].ahead
