"""Who was told to hold what, until when: as long as nothing that the holder itself asked for can have ended it."""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from chaos.checker_facts import GRANTING, Facts, Resource, is_made
from chaos.history import Call, Outcome

ENDING = frozenset({"complete", "cancel"})


@dataclass(frozen=True, slots=True)
class Hold:
    """What one acknowledged grant, or renewal, promised.

    Attributes:
        grant: The call.
        until: Nobody else may be granted the resource before.
    """

    grant: Call
    until: float

    @property
    def holder(self) -> tuple[str, int]:
        """Of which acquisition: another token, or another fencing token, is another one."""
        return self.grant.token, self.grant.fencing_token


def is_grant(call: Call) -> bool:
    """Whether a call told its caller that it holds the lock."""
    # Whether a create without a message was a repetition, its answer does not tell.
    can_be_told = call.rpc == "propose" or bool(call.message)
    return call.rpc in GRANTING and is_made(call) and can_be_told and call.told_until > 0


def holds(facts: Facts, resource: Resource) -> Iterator[Hold]:
    """Yield what each grant of a resource promised."""
    by_token: defaultdict[str, list[Call]] = defaultdict(list)
    for call in resource.changes:
        by_token[call.token].append(call)
    for calls in by_token.values():
        ends = _Ends(facts, calls)
        for grant in filter(is_grant, calls):
            yield Hold(grant, min(grant.told_until, ends.after(grant)))


class _Ends:
    """By when the calls of one token may have ended, or shortened, its lock.

    Of two calls, the events' revisions tell which came first. Where there are none, an acknowledged call comes after
    all that was acknowledged before it began, and one whose outcome is unknown may come after anything.
    """

    def __init__(self, facts: Facts, calls: Iterable[Call]) -> None:
        self._facts = facts
        by_revision, by_time, not_told = [], [], []
        self._any_time: defaultdict[int, float] = defaultdict(lambda: math.inf)
        self._not_told: defaultdict[int, float] = defaultdict(lambda: math.inf)
        for call in calls:
            end = _end(call)
            if end == math.inf or facts.is_never_made(call):
                continue
            event = facts.places.get(call.message)
            if event is not None:
                by_revision.append((float(event.revision), end))
            if call.outcome is Outcome.OK:
                by_time.append((call.ended, end))
                if event is None:
                    not_told.append((call.ended, end))
                continue
            fence = call.sent_fencing_token
            self._any_time[fence] = min(self._any_time[fence], end)
            if event is None:
                self._not_told[fence] = min(self._not_told[fence], end)
        self._by_revision = _Earliest(by_revision)
        self._by_time = _Earliest(by_time)
        self._by_time_not_told = _Earliest(not_told)

    def after(self, grant: Call) -> float:
        """Return the earliest end that may have come after a grant."""
        event = self._facts.places.get(grant.message)
        # A call that sent another fencing token cannot touch this lock.
        fences = (0, grant.fencing_token)
        if event is None:
            return min(self._by_time.since(grant.began), *(self._any_time[fence] for fence in fences))
        return min(
            self._by_revision.since(event.revision + 1),
            self._by_time_not_told.since(grant.began),
            *(self._not_told[fence] for fence in fences),
        )


class _Earliest:
    """The earliest of the ends at a place or behind it."""

    def __init__(self, ends: Iterable[tuple[float, float]]) -> None:
        in_order = sorted(ends)
        self._places = [place for place, _ in in_order]
        self._earliest = [math.inf] * (len(in_order) + 1)
        for number in range(len(in_order) - 1, -1, -1):
            self._earliest[number] = min(in_order[number][1], self._earliest[number + 1])

    def since(self, place: float) -> float:
        return self._earliest[bisect_left(self._places, place)]


def _end(call: Call) -> float:
    """Return when the lock may have ended at the earliest if a call was made. Infinite: it ends none."""
    if call.outcome is Outcome.REFUSED:
        return math.inf
    if call.rpc in ENDING:
        return call.began
    if call.rpc not in GRANTING or (call.outcome is Outcome.OK and not is_grant(call)):
        return math.inf
    return call.told_until if call.outcome is Outcome.OK else call.began + call.lock_for_seconds
