"""Changes: what was acknowledged was made, once, in the order of real time, and as the answer says.

Where the watchers have a hole, a change that was not seen may lie in it; it is lost only if all the revisions that it
can have are covered.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from operator import itemgetter

from chaos.checker_facts import LOGS_SHOWN, Event, Facts, Resource, is_made, is_repeat, span
from chaos.checker_violation import Kind, Violation
from chaos.history import Call, Outcome

RPCS = {
    "CREATED": ("create",),
    "LOCKED": ("create", "propose"),
    "RENEWED": ("propose",),
    "LOGGED": ("append",),
    "SUCCEEDED": ("complete",),
    "FAILED": ("complete",),
    "CANCELLED": ("cancel",),
}


def check_changes(facts: Facts) -> Iterator[Violation]:
    """Yield where an acknowledged change is not what happened."""
    for resource in facts.resources.values():
        yield from _answers(facts, resource)
        yield from _lost(facts, resource)
        yield from _in_order(facts, resource)
        for event in resource.events:
            if event.call is not None:
                yield from _fitting(event, event.call)


def _answers(facts: Facts, resource: Resource) -> Iterator[Violation]:
    """An answer shows the caller's own message last; or it repeats what an earlier call has done."""
    for call in resource.changes:
        if call.outcome is not Outcome.OK or not call.message or call.logs[-1:] == (call.message,):
            continue
        if not is_repeat(call) or not _shows_first(facts, call):
            what = f"the {call.rpc} {span(call)} was acknowledged, and its log is not the last of the answer's"
            yield Violation(Kind.ANSWER, resource.name, what, (call,))
        event = facts.places.get(call.message)
        if event is not None:
            what = f"the {call.rpc} {span(call)} was not answered with its log, and was made at {event.revision}"
            yield Violation(Kind.ANSWER, resource.name, what, (call, event.seen))


def _shows_first(facts: Facts, repeat: Call) -> bool:
    """Whether an answer shows the same peer's earlier call, which has done already what was asked for again."""
    shown = repeat.logs[-1:] if repeat.rpc == "complete" else repeat.logs
    first = [facts.senders[message] for message in shown if message in facts.senders]
    is_shown = any((call.rpc, call.token) == (repeat.rpc, repeat.token) for call in first)
    return is_shown or (repeat.rpc == "create" and len(repeat.logs) >= LOGS_SHOWN)


def _lost(facts: Facts, resource: Resource) -> Iterator[Violation]:
    bounds = _later_revisions(resource)
    times = [time for time, _ in bounds]
    for call in resource.changes:
        if not is_made(call) or not call.message or call.message in facts.places:
            continue
        place = bisect_right(times, call.ended)
        if place == len(bounds):
            continue
        after, up_to = facts.revision_known_at(call.began), bounds[place][1]
        if facts.coverage.has_all(after, up_to):
            what = (
                f"the {call.rpc} {span(call)} was acknowledged, and no watcher was told of its log {call.message!r}, "
                f"though all revisions from {after + 1} to {up_to} were watched"
            )
            yield Violation(Kind.LOST_CHANGE, resource.name, what, (call,))


def _later_revisions(resource: Resource) -> list[tuple[float, int]]:
    """Return, by time, a revision that all that had happened to a resource before that time does not exceed."""
    known = [(event.call.began, event.revision) for event in resource.events if event.call is not None]
    known += [(get.began, get.revision) for get in resource.gets if get.outcome is Outcome.OK and get.state]
    if resource.final is not None and resource.final.state:
        known.append((math.inf, resource.final.revision))
    known.sort(key=itemgetter(0))
    smallest = math.inf
    for number in range(len(known) - 1, -1, -1):
        smallest = min(smallest, known[number][1])
        known[number] = (known[number][0], int(smallest))
    return known


def _in_order(facts: Facts, resource: Resource) -> Iterator[Violation]:
    """A change that is over before another one is asked for has the smaller revision."""
    last_begun: Event | None = None
    for event in resource.events:
        if event.call is None:
            continue
        latest = facts.latest(event.call)
        if last_begun is not None and last_begun.call is not None and latest < last_begun.call.began:
            what = (
                f"{event.call.message!r} was made by {latest:.3f}, at revision {event.revision}; "
                f"{last_begun.call.message!r} was only sent at {last_begun.call.began:.3f}, "
                f"and was made at the smaller revision {last_begun.revision}"
            )
            yield Violation(Kind.ORDER, resource.name, what, (last_begun.call, event.call))
        if last_begun is None or last_begun.call is None or event.call.began > last_begun.call.began:
            last_begun = event


def _fitting(event: Event, call: Call) -> Iterator[Violation]:
    """What the watchers were told of a change is what was asked for, and what was answered."""
    seen = event.seen
    wrong = []
    if call.rpc not in RPCS.get(seen.event, ()):
        wrong.append(f"a {call.rpc} is told as {seen.event}")
    if call.rpc != "cancel" and seen.token != call.token:
        wrong.append(f"{call.token}'s change is told as {seen.token}'s")
    if call.sent_fencing_token and seen.fencing_token != call.sent_fencing_token:
        wrong.append(f"a change for fencing token {call.sent_fencing_token} was made under {seen.fencing_token}")
    if call.sent_fencing_token and seen.event in {"LOCKED", "CREATED"}:
        wrong.append("what was to renew a lock, or to use it, has begun something new")
    if call.outcome is Outcome.OK and call.fencing_token != seen.fencing_token:
        wrong.append(f"the fencing token {call.fencing_token} was answered, and {seen.fencing_token} is told")
    if call.outcome is Outcome.OK and call.logs != seen.logs:
        wrong.append("other logs were answered than are told")
    if wrong:
        what = f"at revision {event.revision}: {'; '.join(wrong)}"
        yield Violation(Kind.ANSWER, event.seen.resource, what, (call, event.seen))
