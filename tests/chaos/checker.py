"""Judges a history: whether what clients were told and saw is what a service that keeps its contract can have told.

It is sound: of a service that keeps the contract it says nothing, however slow calls were and whatever was lost. It
takes for granted that nothing but the recorded clients used the resources, that each change sent a log_message of its
own, that all watchers watched all resources, and that the retention time is longer than the run.
"""

from collections.abc import Iterable

from chaos.checker_changes import check_changes
from chaos.checker_deadlines import check_deadlines
from chaos.checker_facts import Facts
from chaos.checker_fencing import check_fencing
from chaos.checker_locks import check_locks
from chaos.checker_messages import check_messages
from chaos.checker_operations import check_operations
from chaos.checker_reads import check_reads
from chaos.checker_values import check_values
from chaos.checker_violation import Kind, Violation
from chaos.checker_watches import check_watches
from chaos.history import Entry

__all__ = ["Kind", "Violation", "check"]

_CHECKS = (
    check_locks,
    check_deadlines,
    check_fencing,
    check_messages,
    check_changes,
    check_operations,
    check_reads,
    check_watches,
    check_values,
)


def check(entries: Iterable[Entry]) -> list[Violation]:
    """Judge a history.

    Args:
        entries: Of all clients and watchers; those of one in the order in which they were recorded.

    Returns:
        All that a correct service cannot have done, the kinds together.

    Raises:
        ValueError: The history itself is none: two calls sent the same message, or two updates the same element.
    """
    facts = Facts(entries)
    return [violation for each in _CHECKS for violation in each(facts)]
