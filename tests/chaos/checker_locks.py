"""The lock excludes: no two holders at once, nobody before the deadline that the holder was told (rules 3 and 12)."""

from collections.abc import Iterator

from chaos.checker_facts import EXPIRIES, Facts, Resource, span
from chaos.checker_holds import Hold, holds, is_grant
from chaos.checker_violation import Kind, Violation
from chaos.history import Call, Outcome, Seen

TOLERANCE_SECONDS = 0.002
"""locked_until is told in microseconds of the wall clock; what a client makes of it on its own clock is off by as much
as it takes to read the two."""

_Granted = tuple[int, float, str, Call | Seen]


def check_locks(facts: Facts) -> Iterator[Violation]:
    """Yield where a lock did not exclude others for as long as its holder was told."""
    for resource in facts.resources.values():
        held = sorted(holds(facts, resource), key=lambda hold: hold.grant.ended)
        yield from _two_holders(resource, held)
        yield from _early_grants(resource, held)
        yield from _early_expiries(resource, held)


def _two_holders(resource: Resource, held: list[Hold]) -> Iterator[Violation]:
    """Whatever the fencing tokens say: two clients must not both believe, at one moment, that they hold the lock."""
    current: dict[tuple[str, int], Hold] = {}
    for hold in held:
        since = hold.grant.ended
        if hold.until <= since:
            continue
        current = {holder: other for holder, other in current.items() if other.until > since + TOLERANCE_SECONDS}
        for holder, other in current.items():
            both_until = min(other.until, hold.until)
            if holder != hold.holder and both_until > since + TOLERANCE_SECONDS:
                what = f"{_name(other)} and {_name(hold)} both held the lock from {since:.3f} to {both_until:.3f}"
                yield Violation(Kind.TWO_HOLDERS, resource.name, what, (other.grant, hold.grant))
        known = current.get(hold.holder)
        if known is None or known.until < hold.until:
            current[hold.holder] = hold


def _early_grants(resource: Resource, held: list[Hold]) -> Iterator[Violation]:
    """Fencing tokens tell which acquisition was the later one; it must not come before the earlier one's deadline."""
    deadlines = sorted(held, key=lambda hold: hold.grant.fencing_token)
    longest: Hold | None = None
    number = 0
    for fence, at, token, entry in sorted(_acquisitions(resource), key=lambda granted: granted[:2]):
        while number < len(deadlines) and deadlines[number].grant.fencing_token < fence:
            if longest is None or deadlines[number].until > longest.until:
                longest = deadlines[number]
            number += 1
        if longest is not None and at < longest.until - TOLERANCE_SECONDS:
            what = (
                f"{token} had the lock with fencing token {fence} by {at:.3f}, "
                f"though {_name(longest)} had been told to hold it until {longest.until:.3f}"
            )
            yield Violation(Kind.EARLY_GRANT, resource.name, what, (longest.grant, entry))


def _acquisitions(resource: Resource) -> Iterator[_Granted]:
    """Yield who held the lock with which fencing token, and by when."""
    for call in filter(is_grant, resource.changes):
        yield call.fencing_token, call.ended, call.token, call
    for event in resource.events:
        if event.seen.event == "LOCKED":
            yield event.seen.fencing_token, event.at, event.seen.token, event.seen


def _early_expiries(resource: Resource, held: list[Hold]) -> Iterator[Violation]:
    """A lock that is told to have run out has reached its deadline."""
    longest: dict[int, Hold] = {}
    for hold in held:
        known = longest.get(hold.grant.fencing_token)
        if known is None or hold.until > known.until:
            longest[hold.grant.fencing_token] = hold
    for fence, at, entry in _expired(resource):
        hold_or_none = longest.get(fence)
        if hold_or_none is not None and at < hold_or_none.until - TOLERANCE_SECONDS:
            what = (
                f"the lock of {_name(hold_or_none)} was told to have run out by {at:.3f}, "
                f"before its deadline at {hold_or_none.until:.3f}"
            )
            yield Violation(Kind.EARLY_EXPIRY, resource.name, what, (hold_or_none.grant, entry))


def _expired(resource: Resource) -> Iterator[tuple[int, float, Call | Seen]]:
    for event in resource.events:
        if event.seen.state in EXPIRIES:
            yield event.seen.fencing_token, event.at, event.seen
    for _, seen in resource.present:
        if seen.state in EXPIRIES:
            yield seen.fencing_token, seen.at, seen
    for get in resource.gets:
        if get.outcome is Outcome.OK and get.state in EXPIRIES:
            yield get.fencing_token, get.ended, get


def _name(hold: Hold) -> str:
    grant = hold.grant
    return f"{grant.token} (fencing token {grant.fencing_token}, granted {span(grant)})"
