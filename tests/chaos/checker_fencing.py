"""Fencing tokens: each acquisition's is greater than all before, renewals keep it, no two peers share one (rule 11)."""

from collections.abc import Iterator
from operator import attrgetter

from chaos.checker_facts import Facts, Resource, is_made, span
from chaos.checker_holds import ENDING
from chaos.checker_violation import Kind, Violation
from chaos.history import Call, Entry, Outcome


def check_fencing(facts: Facts) -> Iterator[Violation]:
    """Yield where a fencing token was told that cannot be."""
    for resource in facts.resources.values():
        yield from _kept(resource)
        yield from _shared(resource)
        yield from _grown(resource)


def _kept(resource: Resource) -> Iterator[Violation]:
    """Whoever sends a fencing token is answered with that one, or refused."""
    for call in resource.changes:
        sent, told = call.sent_fencing_token, call.fencing_token
        if call.outcome is Outcome.OK and sent and told != sent:
            what = f"{call.token}'s {call.rpc} sent the fencing token {sent}, and was answered with {told}"
            yield Violation(Kind.FENCING, resource.name, what, (call,))


def _shared(resource: Resource) -> Iterator[Violation]:
    owners: dict[int, tuple[str, Entry]] = {}
    for fence, token, entry in _told(resource):
        owner, first = owners.setdefault(fence, (token, entry))
        if owner != token:
            what = f"the fencing token {fence} was told to be {owner}'s, and {token}'s"
            yield Violation(Kind.FENCING, resource.name, what, (first, entry))


def _told(resource: Resource) -> Iterator[tuple[int, str, Entry]]:
    for call in resource.changes:
        # Whoever cancels what has run out is answered with the fencing token of whoever held it.
        if call.outcome is Outcome.OK and call.fencing_token and call.rpc != "cancel":
            yield call.fencing_token, call.token, call
    for event in resource.events:
        if event.seen.fencing_token:
            yield event.seen.fencing_token, event.seen.token, event.seen
    for _, seen in resource.present:
        if seen.fencing_token:
            yield seen.fencing_token, seen.token, seen


def _grown(resource: Resource) -> Iterator[Violation]:
    """What is told after something else was told is not older; and newer, where that had ended the lock."""
    told = [call for call in (*resource.changes, *resource.gets) if call.outcome is Outcome.OK and call.fencing_token]
    told.sort(key=attrgetter("began"))
    answered = iter(sorted(told, key=attrgetter("ended")))
    newest: Call | None = None
    newest_ended: Call | None = None
    earlier = next(answered, None)
    for call in told:
        while earlier is not None and earlier.ended < call.began:
            if newest is None or earlier.fencing_token > newest.fencing_token:
                newest = earlier
            if _is_ended(earlier) and (newest_ended is None or earlier.fencing_token > newest_ended.fencing_token):
                newest_ended = earlier
            earlier = next(answered, None)
        if newest is not None and call.fencing_token < newest.fencing_token:
            yield _not_grown(resource, newest, call, "is smaller than")
        elif newest_ended is not None and _needs_lock(call) and call.fencing_token <= newest_ended.fencing_token:
            yield _not_grown(resource, newest_ended, call, "is not greater than that of the ended lock,")


def _needs_lock(call: Call) -> bool:
    """Whether a call can only be acknowledged, and changed something, while its caller holds the lock."""
    return call.rpc in {"propose", "append", "complete"} and is_made(call)


def _is_ended(call: Call) -> bool:
    """Whether an answer tells that the lock with its fencing token is no more."""
    return call.rpc in ENDING or (call.rpc == "get" and call.state != "LOCKED")


def _not_grown(resource: Resource, earlier: Call, later: Call, how: str) -> Violation:
    what = (
        f"the fencing token {later.fencing_token}, told to {later.client}'s {later.rpc} {span(later)}, {how} "
        f"{earlier.fencing_token}, told to {earlier.client}'s {earlier.rpc} {span(earlier)}"
    )
    return Violation(Kind.FENCING, resource.name, what, (earlier, later))
