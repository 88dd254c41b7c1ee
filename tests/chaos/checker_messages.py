"""Messages: each tells of one call, and is shown where that call's change is, once, nowhere else (rules 10, 13)."""

import math
from collections.abc import Iterator

from chaos.checker_facts import Facts
from chaos.checker_violation import Kind, Violation
from chaos.history import Entry, Outcome


def check_messages(facts: Facts) -> Iterator[Violation]:
    """Yield where a message is shown that should not be there."""
    for resource in facts.resources.values():
        sent = {call.message: call for call in resource.changes if call.outcome is not Outcome.REFUSED}
        for entry, logs, until in _shown(facts, resource.name):
            shown = set(logs)
            if len(shown) < len(logs):
                twice = sorted({message for message in shown if logs.count(message) > 1})
                yield Violation(Kind.REPEATED_CHANGE, resource.name, f"{twice} are logged more than once", (entry,))
            for message in shown - sent.keys():
                yield _misplaced(facts, resource.name, message, entry)
            newest = sent.get(logs[-1]) if logs else None
            if newest is not None and newest.began > until:
                what = f"{newest.message!r} was shown at {until:.3f}, and only sent at {newest.began:.3f}"
                yield Violation(Kind.FUTURE_READ, resource.name, what, (newest, entry))


def _shown(facts: Facts, name: str) -> Iterator[tuple[Entry, tuple[str, ...], float]]:
    """Yield all that shows logs of a resource, and when it had been read. The accounts' disagreements: see watches."""
    resource = facts.resources[name]
    for call in (*resource.changes, *resource.gets):
        if call.outcome is Outcome.OK:
            yield call, call.logs, call.ended
    for event in resource.events:
        yield event.seen, event.seen.logs, event.at
    for _, seen in resource.present:
        yield seen, seen.logs, seen.at
    if resource.final is not None:
        yield resource.final, resource.final.logs, math.inf


def _misplaced(facts: Facts, name: str, message: str, entry: Entry) -> Violation:
    call = facts.senders.get(message)
    if call is None:
        return Violation(Kind.FOREIGN_MESSAGE, name, f"{message!r} is logged, and nobody has sent it", (entry,))
    if call.resource != name:
        what = f"{message!r} is logged, which was sent for {call.resource}"
        return Violation(Kind.FOREIGN_MESSAGE, name, what, (call, entry))
    what = f"{message!r} is logged, though the {call.rpc} that sent it was refused ({call.reason}) at {call.ended:.3f}"
    return Violation(Kind.REFUSED_CHANGE, name, what, (call, entry))
