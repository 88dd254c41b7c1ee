"""Operations: what happens to a resource, step by step, is what the contract lets happen (rules 1 to 11).

Where the watchers have a hole, what is there after it is taken as it is.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from chaos.checker_facts import EXPIRIES, LOGS_SHOWN, Event, Facts, Resource
from chaos.checker_violation import Kind, Violation
from chaos.history import Seen


class Phase(Enum):
    """How far an operation has come; its values say so in a sentence."""

    NOT_KNOWN = auto()
    NOTHING = auto()
    PENDING = auto()
    LOCKED = auto()
    RUN_OUT = auto()
    OVER = auto()


_NEEDED = {
    "CREATED": {Phase.NOTHING, Phase.OVER},
    "LOCKED": {Phase.NOTHING, Phase.PENDING, Phase.RUN_OUT, Phase.OVER},
    "RENEWED": {Phase.LOCKED},
    "LOGGED": {Phase.LOCKED},
    "SUCCEEDED": {Phase.LOCKED},
    "FAILED": {Phase.LOCKED},
    "CANCELLED": {Phase.PENDING, Phase.LOCKED, Phase.RUN_OUT},
    "EXPIRED": {Phase.LOCKED},
    "OPERATOR_DEAD": {Phase.LOCKED},
}
"""In which phase an operation has to be for an event to happen."""

_STATES = {"CREATED": "PENDING", "RENEWED": "LOCKED", "LOGGED": "LOCKED"}
"""Which state an event shows, where that has not the event's own name."""

_PHASES = {
    "PENDING": Phase.PENDING,
    "LOCKED": Phase.LOCKED,
    "EXPIRED": Phase.RUN_OUT,
    "OPERATOR_DEAD": Phase.RUN_OUT,
    "SUCCEEDED": Phase.OVER,
    "FAILED": Phase.OVER,
    "CANCELLED": Phase.OVER,
}

_GOES_ON = {Phase.PENDING, Phase.LOCKED, Phase.RUN_OUT}


@dataclass(slots=True)
class _Walk:
    """Where a resource stands, after what the watchers have told up to a revision."""

    revision: int = 0
    phase: Phase = Phase.NOTHING
    last: Seen | None = None
    greatest_fence: int = 0
    is_disabled_cancel: bool | None = None
    is_from_snapshot: bool = False


def check_operations(facts: Facts) -> Iterator[Violation]:
    """Yield what cannot have happened to an operation in the state in which it was."""
    for resource in facts.resources.values():
        walk = _Walk()
        for revision, step in _steps(resource):
            if not facts.coverage.has_all(walk.revision, revision):
                walk.phase, walk.last = Phase.NOT_KNOWN, None
            walk.revision = revision
            if isinstance(step, Seen):
                _look(walk, step)
                continue
            before = walk.last
            for kind, what in _wrong(facts, walk, step):
                entries = tuple(entry for entry in (before, step.seen, step.call) if entry is not None)
                yield Violation(kind, resource.name, f"{step.seen.event} at revision {step.revision}: {what}", entries)
            _go(walk, step)


def _steps(resource: Resource) -> list[tuple[int, Seen | Event]]:
    """Return what happened, and behind it what was found at the same revision."""
    happened = [(event.revision, event) for event in resource.events]
    return sorted([*happened, *resource.present], key=lambda step: (step[0], isinstance(step[1], Seen)))


def _look(walk: _Walk, found: Seen) -> None:
    """Take what was found as the state, if that is not known."""
    if walk.phase in {Phase.NOT_KNOWN, Phase.NOTHING}:
        walk.phase, walk.last = _PHASES.get(found.state, Phase.NOT_KNOWN), found
        walk.greatest_fence = max(walk.greatest_fence, found.fencing_token)
        walk.is_disabled_cancel, walk.is_from_snapshot = None, True


def _go(walk: _Walk, event: Event) -> None:
    seen = event.seen
    walk.phase, walk.last = _PHASES.get(seen.state, Phase.NOT_KNOWN), seen
    walk.greatest_fence = max(walk.greatest_fence, seen.fencing_token)
    walk.is_from_snapshot = False
    if seen.event in {"LOCKED", "RENEWED"}:
        # Of a call that a killed client left open, only the beginning is known.
        is_known = event.call is not None and event.call.ended < math.inf
        walk.is_disabled_cancel = event.call.is_disabled_cancel if event.call is not None and is_known else None


def _wrong(facts: Facts, walk: _Walk, event: Event) -> Iterator[tuple[Kind, str]]:
    """Yield what is wrong with what happened next."""
    seen, name = event.seen, event.seen.event
    if seen.state != _STATES.get(name, name):
        yield Kind.EVENT, f"it shows the state {seen.state}"
    if name == "LOCKED" and seen.fencing_token <= walk.greatest_fence:
        yield Kind.FENCING, f"its fencing token {seen.fencing_token} is not greater than {walk.greatest_fence} before"
    if walk.phase is Phase.NOT_KNOWN:
        return
    if walk.phase not in _needed(event) and not _is_old_news(walk, event):
        yield Kind.EVENT, f"the operation is {_told(walk)} there"
        return
    logs: tuple[str, ...] = ()
    if walk.last is not None and not _begins_anew(walk, event):
        logs = walk.last.logs
        yield from _changed_holder(walk, walk.last, event)
    yield from _changed_logs(facts, logs, event)


def _needed(event: Event) -> set[Phase]:
    if event.seen.event == "LOCKED" and event.call is not None and event.call.rpc == "create":
        return _NEEDED["CREATED"]
    return _NEEDED.get(event.seen.event, set())


def _is_old_news(walk: _Walk, event: Event) -> bool:
    """Whether an expiry is told that a snapshot, of which a watcher heard only a part, had shown already."""
    return walk.is_from_snapshot and walk.phase is Phase.RUN_OUT and not event.is_change


def _begins_anew(walk: _Walk, event: Event) -> bool:
    return event.seen.event == "CREATED" or (event.seen.event == "LOCKED" and walk.phase not in _GOES_ON)


def _changed_holder(walk: _Walk, last: Seen, event: Event) -> Iterator[tuple[Kind, str]]:
    """Only an acquisition changes who holds the lock, and under which fencing token."""
    seen, call = event.seen, event.call
    if seen.event == "LOCKED":
        return
    if seen.token != last.token:
        yield Kind.EVENT, f"by {seen.token}, while the operation is {_told(walk)}"
    if seen.fencing_token != last.fencing_token:
        yield Kind.FENCING, f"the fencing token {seen.fencing_token} took the place of {last.fencing_token}"
    if seen.event == "CANCELLED" and walk.phase is Phase.LOCKED:
        if call is not None and call.token != last.token:
            yield Kind.EVENT, f"by {call.token}, while the operation is {_told(walk)}"
        if walk.is_disabled_cancel:
            yield Kind.EVENT, "cancelling is disabled"
    if seen.event in EXPIRIES and walk.is_disabled_cancel is not None:
        right = "OPERATOR_DEAD" if walk.is_disabled_cancel else "EXPIRED"
        if seen.event != right:
            yield Kind.EVENT, f"the news should be {right}"


def _changed_logs(facts: Facts, before: tuple[str, ...], event: Event) -> Iterator[tuple[Kind, str]]:
    """A change adds its own log, which was nowhere before, or none; an expiry none. A new operation has none before."""
    after = event.seen.logs
    if after == before:
        return
    if not event.is_change or not after or after != (*before, after[-1])[-LOGS_SHOWN:]:
        yield Kind.LOGS, f"the logs {_shortened(before)} became {_shortened(after)}"
        return
    first = facts.places.get(after[-1])
    if first is not None and first is not event:
        yield Kind.REPEATED_CHANGE, f"the change with the log {after[-1]!r} was made at {first.revision} already"


def _shortened(logs: tuple[str, ...]) -> str:
    return str(list(logs)) if len(logs) <= 10 else f"[{len(logs)} of them, ..., {', '.join(map(repr, logs[-5:]))}]"


def _told(walk: _Walk) -> str:
    phase = walk.phase.name.replace("_", " ").lower()
    if walk.last is None:
        return phase
    return f"{phase} ({walk.last.token}, fencing token {walk.last.fencing_token})"
