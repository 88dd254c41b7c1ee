"""Watches: each account tells all that happened, once, in order, and the same as all others (section 3)."""

from bisect import bisect_right
from collections.abc import Iterator

from chaos.checker_coverage import Account
from chaos.checker_facts import EXPIRIES, Event, Facts
from chaos.checker_violation import Kind, Violation
from chaos.history import Seen


def check_watches(facts: Facts) -> Iterator[Violation]:
    """Yield where an account is not what happened."""
    events = sorted(
        (event for resource in facts.resources.values() for event in resource.events), key=lambda event: event.revision
    )
    revisions = [event.revision for event in events]
    told = {(event.seen.resource, event.revision): event.seen for event in events}
    for account in facts.accounts.values():
        yield from _in_order(account)
        for seen in account.seen:
            yield from _agreeing(told.setdefault((seen.resource, seen.record_revision), seen), seen)
        covered = events[bisect_right(revisions, account.after) : bisect_right(revisions, account.up_to)]
        yield from _complete(account, covered)
        yield from _found(facts, account)


def _in_order(account: Account) -> Iterator[Violation]:
    """Revisions never go back, and nothing is told twice, or from before the beginning.

    A watch that broke off within a revision, of which several changes are, tells all of it when it is resumed (README,
    "In etcd"): so what is told again is no violation as long as that revision had not been told in full.
    """
    after = account.after
    told: dict[tuple[str, int], Seen] = {}
    last: Seen | None = None
    for seen in account.seen:
        if last is not None and seen.revision < last.revision:
            what = f"{_name(seen)} was told revision {seen.revision} after {last.revision}"
            yield Violation(Kind.WATCH_ORDER, seen.resource, what, (last, seen))
        if not seen.is_present and seen.record_revision <= after:
            what = f"{_name(seen)} was told revision {seen.record_revision}, which is from before its beginning"
            yield Violation(Kind.WATCH_ORDER, seen.resource, what, (seen,))
        before = told.setdefault((seen.resource, seen.record_revision), seen)
        is_told_in_full = last is not None and last.revision >= seen.record_revision
        if before is not seen and (is_told_in_full or seen.is_present or before.is_present):
            what = f"{_name(seen)} was told revision {seen.record_revision} twice"
            yield Violation(Kind.WATCH_ORDER, seen.resource, what, (before, seen))
        last = seen


def _complete(account: Account, covered: list[Event]) -> Iterator[Violation]:
    """Whatever any other watcher was told of the revisions that an account covers, it was told too."""
    has = {(seen.resource, seen.record_revision) for seen in account.seen}
    for event in covered:
        if (event.seen.resource, event.revision) not in has:
            what = (
                f"{_name(account.seen[0])} was told everything from revision {account.after + 1} to {account.up_to}, "
                f"but not {event.seen.event} at {event.revision}, which {_name(event.seen)} was told"
            )
            next_one = next(seen for seen in account.seen if seen.revision >= event.revision)
            yield Violation(Kind.WATCH_GAP, event.seen.resource, what, (event.seen, next_one))


def _found(facts: Facts, account: Account) -> Iterator[Violation]:
    """What changed last before the end of what was found at the beginning was found."""
    found = {seen.resource for seen in account.seen if seen.is_present}
    for resource in facts.resources.values() if found else ():
        changes = [event for event in resource.events if event.is_change]
        if changes and changes[-1].revision <= account.after and resource.name not in found:
            what = f"{_name(account.seen[0])} began with what was there up to {account.after}, but without this one"
            yield Violation(Kind.WATCH_GAP, resource.name, what, (changes[-1].seen, account.seen[0]))


def _agreeing(first: Seen, seen: Seen) -> Iterator[Violation]:
    """Two watchers are told the same; one that begins later may find that the lock has run out since."""
    shown = (seen.token, seen.fencing_token, seen.logs)
    is_same = shown == (first.token, first.fencing_token, first.logs)
    if seen.is_present or first.is_present:
        states = {first.state, seen.state}
        is_same = is_same and (len(states) == 1 or ("LOCKED" in states and states <= {"LOCKED", *EXPIRIES}))
    else:
        is_same = is_same and (seen.event, seen.state) == (first.event, first.state)
    if not is_same:
        what = f"{_name(first)} and {_name(seen)} were told different things of revision {seen.record_revision}"
        yield Violation(Kind.WATCH_DISAGREEMENT, seen.resource, what, (first, seen))


def _name(seen: Seen) -> str:
    return f"{seen.watcher} (account {seen.account})"
