"""Reads: each shows one moment between its beginning and its end, as the watchers saw it. The end of the run is one."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from chaos.checker_facts import EXPIRIES, LOGS_SHOWN, Event, Facts, Resource, is_made
from chaos.checker_violation import Kind, Violation
from chaos.history import Call, Entry, FinalRecord, Outcome, Seen


@dataclass(frozen=True, slots=True)
class Read:
    """What a read of a resource showed; revision 0: nothing there."""

    entry: Call | Seen | FinalRecord
    began: float
    ended: float
    revision: int
    state: str
    fencing_token: int
    logs: tuple[str, ...]


def check_reads(facts: Facts) -> Iterator[Violation]:
    """Yield what was read and cannot have been there."""
    for resource in facts.resources.values():
        reads = list(_reads(facts, resource))
        changes = [event for event in resource.events if event.is_change]
        by_revision = {event.revision: event for event in changes}
        for read in reads:
            yield from _shown(facts, resource, by_revision, read)
        yield from _stale(facts, resource, reads)
        yield from _from_the_future(resource, reads)
        yield from _run_out(resource, reads)
        yield from _final_logs(facts, resource)


def _reads(facts: Facts, resource: Resource) -> Iterator[Read]:
    """Yield all reads. What a watcher finds there at first is one too."""
    for get in resource.gets:
        if get.outcome is Outcome.OK:
            revision = get.revision if get.state else 0
            yield Read(get, get.began, get.ended, revision, get.state, get.fencing_token, get.logs)
        elif get.reason == "NOT_FOUND":
            yield Read(get, get.began, get.ended, 0, "", 0, ())
    for _, seen in resource.present:
        began = facts.accounts[seen.watcher, seen.account].began
        if began is not None:
            yield Read(seen, began.at, seen.at, seen.record_revision, seen.state, seen.fencing_token, seen.logs)
    final = resource.final
    if final is not None:
        logs = final.logs[-LOGS_SHOWN:]
        revision = final.revision if final.state else 0
        yield Read(final, math.inf, math.inf, revision, final.state, final.fencing_token, logs)


def _shown(facts: Facts, resource: Resource, by_revision: dict[int, Event], read: Read) -> Iterator[Violation]:
    """At one revision there is one record; only its lock can have run out since."""
    event = by_revision.get(read.revision)
    if event is None:
        if read.revision and facts.coverage.has_all(read.revision - 1, read.revision):
            what = f"revision {read.revision} was read, and the watchers know of no change there"
            yield Violation(Kind.READ, resource.name, what, (read.entry,))
        return
    seen = event.seen
    wrong = []
    if read.state != seen.state and not (seen.state == "LOCKED" and read.state in EXPIRIES):
        wrong.append(f"the state {read.state}, and not {seen.state}")
    if read.fencing_token != seen.fencing_token:
        wrong.append(f"the fencing token {read.fencing_token}, and not {seen.fencing_token}")
    if read.logs != seen.logs:
        wrong.append(f"the logs {list(read.logs)[-5:]}, and not {list(seen.logs)[-5:]}")
    if wrong:
        what = f"of revision {read.revision} was read {'; '.join(wrong)}, as a watcher was told"
        yield Violation(Kind.READ, resource.name, what, (seen, read.entry))


def _stale(facts: Facts, resource: Resource, reads: list[Read]) -> Iterator[Violation]:
    """What was known to somebody before a read began is in it."""
    known: list[tuple[float, int, Entry]] = [(read.ended, read.revision, read.entry) for read in reads]
    for event in resource.events:
        if event.is_change:
            known.append((event.at, event.revision, event.seen))
            if event.call is not None and is_made(event.call):
                known.append((event.call.ended, event.revision, event.call))
    unseen = [call for call in resource.changes if is_made(call) and call.message not in facts.places]
    known += [(call.ended, 1, call) for call in unseen]
    known.sort(key=lambda fact: fact[0])
    newest: tuple[float, int, Entry] | None = None
    number = 0
    for read in sorted(reads, key=lambda read: read.began):
        while number < len(known) and known[number][0] < read.began:
            if newest is None or known[number][1] > newest[1]:
                newest = known[number]
            number += 1
        if newest is not None and read.revision < newest[1]:
            found = f"revision {read.revision}" if read.revision else "nothing"
            what = (
                f"a read that began at {read.began:.3f} found {found}, "
                f"though revision {newest[1]} or later was known by {newest[0]:.3f}"
            )
            yield Violation(Kind.STALE_READ, resource.name, what, (newest[2], read.entry))


def _from_the_future(resource: Resource, reads: list[Read]) -> Iterator[Violation]:
    """What was only asked for when a read had ended is not in it, nor is anything later."""
    asked = sorted(
        ((event.call.began, event.revision, event.call) for event in resource.events if event.call is not None),
        key=lambda change: change[0],
    )
    times = [began for began, _, _ in asked]
    earliest = list(asked)
    for number in range(len(asked) - 2, -1, -1):
        if earliest[number + 1][1] < earliest[number][1]:
            earliest[number] = earliest[number + 1]
    for read in reads:
        place = bisect_right(times, read.ended)
        if place < len(earliest) and read.revision >= earliest[place][1]:
            began, revision, call = earliest[place][0], earliest[place][1], earliest[place][2]
            what = (
                f"revision {read.revision} was read by {read.ended:.3f}, "
                f"and the change at {revision} was only asked for at {began:.3f}"
            )
            yield Violation(Kind.FUTURE_READ, resource.name, what, (call, read.entry))


def _run_out(resource: Resource, reads: list[Read]) -> Iterator[Violation]:
    """Once a lock's end has been told, nobody reads that it is held."""
    revisions = [event.revision for event in resource.events]
    for read in reads:
        place = bisect_right(revisions, read.revision)
        if read.state != "LOCKED" or place == len(revisions):
            continue
        event = resource.events[place]
        if not event.is_change and event.at < read.began:
            what = f"LOCKED was read, though a watcher had been told of its end by {event.at:.3f}"
            yield Violation(Kind.STALE_READ, resource.name, what, (event.seen, read.entry))


def _final_logs(facts: Facts, resource: Resource) -> Iterator[Violation]:
    """All logs of the last operation are there at the end, in order; each of its calls has one."""
    final = resource.final
    first = facts.senders.get(final.logs[0]) if final is not None and final.logs else None
    if final is None or first is None:
        return
    logged = set(final.logs)
    for call in resource.changes:
        if is_made(call) and call.message and call.message not in logged and call.began > facts.latest(first):
            what = (
                f"the log {call.message!r}, acknowledged at {call.ended:.3f}, is missing at the end from the operation "
                f"that began with {first.message!r}"
            )
            yield Violation(Kind.LOST_CHANGE, resource.name, what, (call, final))
    calls = [facts.senders[message] for message in final.logs if message in facts.senders]
    last_begun = first
    for call in calls:
        if facts.latest(call) < last_begun.began:
            what = f"at the end, {call.message!r} comes after {last_begun.message!r}, which was sent only after it"
            yield Violation(Kind.ORDER, resource.name, what, (last_begun, call, final))
        if call.began > last_begun.began:
            last_begun = call
    yield from _final_events(facts, resource, final)


def _final_events(facts: Facts, resource: Resource, final: FinalRecord) -> Iterator[Violation]:
    """The last operation's logs are those of the changes that the watchers saw since it began, one for one."""
    start = facts.places.get(final.logs[0])
    if start is None or not facts.coverage.has_all(start.revision, final.revision):
        return
    revisions = [event.revision for event in resource.events]
    since = resource.events[bisect_left(revisions, start.revision) : bisect_right(revisions, final.revision)]
    told = tuple(event.seen.logs[-1] for event in since if event.seen.logs and _is_first(facts, event))
    if told != final.logs:
        missing, added = sorted(set(told) - set(final.logs)), sorted(set(final.logs) - set(told))
        what = f"the logs at the end are not those that the watchers saw: missing {missing}, added {added}"
        yield Violation(Kind.LOGS, resource.name, what, (final,))


def _is_first(facts: Facts, event: Event) -> bool:
    """Whether an event is the change of its newest log, and not one that added none."""
    return facts.places.get(event.seen.logs[-1]) is event
