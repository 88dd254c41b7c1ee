"""The history, put in order: which change was told by which event, and when it can have happened.

A call takes effect at one instant between `began` and `ended`, where it was acknowledged; one whose outcome is unknown
at any instant after `began`, or never. The event that a watcher has seen says more: it tells the change's revision, and
the change is no later than the sight of it.
"""

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from chaos.checker_coverage import Account, Coverage
from chaos.history import (
    Began,
    Call,
    ClockSet,
    Entry,
    FinalRecord,
    FinalValue,
    Outcome,
    Seen,
    Update,
    UpdateBegan,
    WatchBegan,
)

EXPIRIES = frozenset({"EXPIRED", "OPERATOR_DEAD"})
LOGS_SHOWN = 100
"""Rule 10: of its logs, an operation shows the newest."""
GRANTING = frozenset({"create", "propose"})
REPEATABLE = frozenset({"create", "complete"})
"""Asked again for what is done already, they answer OK and change nothing (rules 6 and 8)."""


@dataclass(slots=True)
class Event:
    """A change, or an expiry, as the first watcher saw it.

    Attributes:
        seen: What it tells.
        at: When it had happened at the latest: the earliest sight of it.
        call: Whose change it is. None: nobody's, or it cannot be told.
    """

    seen: Seen
    at: float
    call: Call | None = None

    @property
    def revision(self) -> int:
        """Of the change."""
        return self.seen.record_revision

    @property
    def is_change(self) -> bool:
        """Whether a call made it."""
        return self.seen.event not in EXPIRIES


@dataclass(slots=True)
class Resource:
    """All that is known of one resource.

    Attributes:
        name: Its name.
        changes: The calls that were to change it, by `began`.
        gets: The reads of it, by `began`.
        events: What happened to it, by revision: the union of what all watchers saw.
        present: What watchers found there when they began, each with the revision behind which they saw changes.
        final: What it was at the end.
        updates: Of the value that its lock guards.
        value: That value at the end.
    """

    name: str
    changes: list[Call] = field(default_factory=list)
    gets: list[Call] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    present: list[tuple[int, Seen]] = field(default_factory=list)
    final: FinalRecord | None = None
    updates: list[Update] = field(default_factory=list)
    value: FinalValue | None = None


class Facts:
    """A history.

    Args:
        entries: Of all clients and watchers; those of one in the order in which they were recorded.

    Raises:
        ValueError: Two calls sent the same message, or two updates the same element: nothing can be judged then.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.resources: defaultdict[str, Resource] = _Resources()
        self.accounts: defaultdict[tuple[str, int], Account] = defaultdict(Account)
        self.clocks: defaultdict[str, list[ClockSet]] = defaultdict(list)
        """By replica, how its wall clock was set."""
        self.senders: dict[str, Call] = {}
        """By message, who sent it."""
        self.places: dict[str, Event] = {}
        """By message, the event of its change."""
        self._began: dict[tuple[str, str, str, str], list[Began]] = defaultdict(list)
        self._answered: Counter[tuple[str, str, str, str]] = Counter()
        self._begun_updates: dict[str, UpdateBegan] = {}
        for entry in entries:
            if isinstance(entry, ClockSet):
                self.clocks[entry.replica].append(entry)
            else:
                self._add(entry)
        for update in self._begun_updates.values():
            self.resources[update.resource].updates.append(_unanswered_update(update))
        for key, began in self._began.items():
            for left_open in began[self._answered[key] :]:
                self.resources[left_open.resource].changes.append(_unanswered(left_open))
        self.coverage = Coverage(self.accounts.values())
        self._gather_events()
        for resource in self.resources.values():
            self._order(resource)
        self._times, self._revisions = self._known_revisions()

    def revision_known_at(self, time: float) -> int:
        """Return the newest revision that somebody had heard of before a time: what begins then is newer."""
        place = bisect_left(self._times, time)
        return self._revisions[place - 1] if place else 0

    def latest(self, call: Call) -> float:
        """Return when a change was made at the latest; if it was made."""
        event = self.places.get(call.message)
        answered = call.ended if call.outcome is Outcome.OK else math.inf
        return min(answered, event.at) if event is not None else answered

    def is_never_made(self, call: Call) -> bool:
        """Whether it is certain that a call has changed nothing."""
        if call.outcome is Outcome.REFUSED or is_repeat(call):
            return True
        final = self.resources[call.resource].final
        if call.outcome is Outcome.OK or not call.message or call.message in self.places or final is None:
            return False
        is_told = self.coverage.has_all(self.revision_known_at(call.began), final.revision)
        return bool(final.state) and call.message not in final.logs and is_told

    def _add(self, entry: Entry) -> None:
        match entry:
            case Call(rpc="get"):
                self.resources[entry.resource].gets.append(entry)
            case Call():
                self._answered[entry.client, entry.resource, entry.rpc, entry.message] += 1
                self.resources[entry.resource].changes.append(entry)
            case Began():
                self._began[entry.client, entry.resource, entry.rpc, entry.message].append(entry)
            case WatchBegan():
                self.accounts[entry.watcher, entry.account].began = entry
            case Seen():
                self.accounts[entry.watcher, entry.account].seen.append(entry)
            case UpdateBegan():
                self._begun_updates[entry.element] = entry
            case Update():
                self._begun_updates.pop(entry.element, None)
                self.resources[entry.resource].updates.append(entry)
            case FinalValue():
                self.resources[entry.resource].value = entry
            case FinalRecord():
                self.resources[entry.resource].final = entry
            case _:
                pass

    def _gather_events(self) -> None:
        events: dict[tuple[str, int], Event] = {}
        for account in self.accounts.values():
            after = account.after
            for seen in account.seen:
                if seen.is_present:
                    self.resources[seen.resource].present.append((after, seen))
                    continue
                event = events.setdefault((seen.resource, seen.record_revision), Event(seen, seen.at))
                event.at = min(event.at, seen.at)
        for event in sorted(events.values(), key=lambda event: event.revision):
            self.resources[event.seen.resource].events.append(event)

    def _order(self, resource: Resource) -> None:
        resource.changes.sort(key=lambda call: call.began)
        resource.gets.sort(key=lambda call: call.began)
        resource.present.sort(key=lambda present: present[0])
        for call in resource.changes:
            if call.message and self.senders.setdefault(call.message, call) is not call:
                raise ValueError(f"two calls sent the message {call.message!r}")
        elements = [update.element for update in resource.updates]
        if len(set(elements)) < len(elements):
            raise ValueError(f"two updates of {resource.name} added the same element")
        for event in resource.events:
            message = event.seen.logs[-1] if event.is_change and event.seen.logs else ""
            if message and message not in self.places:
                self.places[message] = event
                event.call = self.senders.get(message)

    def _known_revisions(self) -> tuple[list[float], list[int]]:
        known = [(seen.at, seen.record_revision) for account in self.accounts.values() for seen in account.seen]
        for resource in self.resources.values():
            known += [(get.ended, get.revision) for get in resource.gets if get.outcome is Outcome.OK]
        known += [(self.latest(event.call), event.revision) for event in self.places.values() if event.call is not None]
        known.sort()
        newest, revisions = 0, []
        for _, revision in known:
            newest = max(newest, revision)
            revisions.append(newest)
        return [time for time, _ in known], revisions


class _Resources(defaultdict[str, Resource]):
    def __missing__(self, name: str) -> Resource:
        return self.setdefault(name, Resource(name))


def is_made(call: Call) -> bool:
    """Whether a call was acknowledged, and made a change: its message is the newest that it answers with."""
    return call.outcome is Outcome.OK and not is_repeat(call)


def is_repeat(call: Call) -> bool:
    """Whether a call was acknowledged because an earlier one had done already what it asks for."""
    if call.outcome is not Outcome.OK or call.rpc not in REPEATABLE or not call.message:
        return False
    return call.logs[-1:] != (call.message,)


def span(call: Call) -> str:
    """Tell when a call was under way."""
    return f"from {call.began:.3f} to {call.ended:.3f}"


def _unanswered(began: Began) -> Call:
    return Call(
        client=began.client,
        rpc=began.rpc,
        resource=began.resource,
        began=began.began,
        ended=math.inf,
        outcome=Outcome.UNKNOWN,
        token=began.token,
        reason="the client was killed",
        message=began.message,
        sent_fencing_token=began.sent_fencing_token,
        lock_for_seconds=began.lock_for_seconds,
    )


def _unanswered_update(began: UpdateBegan) -> Update:
    return Update(
        client=began.client,
        resource=began.resource,
        fencing_token=began.fencing_token,
        element=began.element,
        began=began.began,
        ended=math.inf,
        outcome=Outcome.UNKNOWN,
    )
