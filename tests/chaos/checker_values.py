"""Guarded values: what was written under a lock is there, once, in the order of the fencing tokens."""

import math
from collections import Counter
from collections.abc import Iterator

from chaos.checker_facts import Facts, Resource
from chaos.checker_violation import Kind, Violation
from chaos.history import FinalValue, Outcome, Update


def check_values(facts: Facts) -> Iterator[Violation]:
    """Yield where the values at the end do not show what their writers know."""
    for resource in facts.resources.values():
        if resource.value is not None:
            yield from _elements(resource, resource.value)
            yield from _order(resource, resource.value)


def _elements(resource: Resource, value: FinalValue) -> Iterator[Violation]:
    counts = Counter(value.elements)
    for update in resource.updates:
        count = counts.pop(update.element, 0)
        told = f"{update.client}'s {update.element!r}, under fencing token {update.fencing_token}, "
        if update.outcome is Outcome.OK and not count:
            what = told + f"was acknowledged at {update.ended:.3f}, and is not in the value"
            yield Violation(Kind.LOST_UPDATE, resource.name, what, (update, value))
        if update.outcome is Outcome.REFUSED and count:
            what = told + f"was refused at {update.ended:.3f}, and is in the value"
            yield Violation(Kind.REFUSED_UPDATE, resource.name, what, (update, value))
        if count > 1:
            what = told + f"is in the value {count} times"
            yield Violation(Kind.REPEATED_UPDATE, resource.name, what, (update, value))
    for element in counts:
        what = f"{element!r} is in the value, and nobody has written it"
        yield Violation(Kind.FOREIGN_ELEMENT, resource.name, what, (value,))


def _order(resource: Resource, value: FinalValue) -> Iterator[Violation]:
    """Each element was added behind those that were there."""
    written = {update.element: update for update in resource.updates}
    last_begun: Update | None = None
    greatest: Update | None = None
    for update in [written[element] for element in value.elements if element in written]:
        ended = update.ended if update.outcome is Outcome.OK else math.inf
        if last_begun is not None and ended < last_begun.began:
            what = (
                f"{update.element!r}, written by {ended:.3f}, comes after {last_begun.element!r}, "
                f"which was only begun at {last_begun.began:.3f}"
            )
            yield Violation(Kind.UPDATE_ORDER, resource.name, what, (last_begun, update, value))
        if greatest is not None and update.fencing_token < greatest.fencing_token:
            what = (
                f"{update.element!r}, under fencing token {update.fencing_token}, comes after {greatest.element!r} "
                f"under {greatest.fencing_token}"
            )
            yield Violation(Kind.UPDATE_ORDER, resource.name, what, (greatest, update, value))
        if last_begun is None or update.began > last_begun.began:
            last_begun = update
        if greatest is None or update.fencing_token > greatest.fencing_token:
            greatest = update
