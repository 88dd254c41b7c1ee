"""How long it took until somebody else got a lock that its holder had let run out. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chaos.allowance import allowed_seconds
from chaos.checker_facts import GRANTING, Facts, Resource
from chaos.checker_holds import ENDING
from chaos.history import Call, Fault, Outcome

_POLLED_BEFORE = 0.5
_POLLED_EVERY = 0.3
"""Contenders ask every 0.05 s, and come back sooner than in this after a failure. Where all of them were stopped, were
killed, or gave up, what is measured is not the service."""
_ASKING_SECONDS = 2.5
"""Whoever waits longer than this for an answer has asked a replica that was frozen or cut off, or was frozen."""
_QUIET_SECONDS = 5.0
_SHORTEST = 2
"""A lock of 1 s is granted for 2 (ETCD_FACTS, Leases): what its holder was told may be less than what was granted."""


@dataclass(frozen=True)
class Takeover:
    """One lock that ran out and was taken by another at once.

    Attributes:
        resource: Which.
        told_until: Until when the former holder had been told to have it.
        delay: From then until the answer to whoever got it next.
        is_quiet: Whether nothing was done to the cluster since 5 s before the end.
        allowed: What the delay may be, with the faults near.
    """

    resource: str
    told_until: float
    delay: float
    is_quiet: bool
    allowed: float

    @property
    def is_late(self) -> bool:
        """Whether no correct service can be so late."""
        return self.delay > self.allowed


def takeovers(facts: Facts, faults: Sequence[Fault]) -> list[Takeover]:
    """Find them."""
    return [found for resource in facts.resources.values() for found in _of_resource(facts, resource, faults)]


def _of_resource(facts: Facts, resource: Resource, faults: Sequence[Fault]) -> Iterator[Takeover]:
    calls = resource.changes
    unclear = [call for call in calls if call.outcome is Outcome.UNKNOWN and not facts.is_never_made(call)]
    locks: dict[int, list[Call]] = defaultdict(list)
    for call in calls:
        if call.outcome is Outcome.OK and call.fencing_token:
            locks[call.fencing_token].append(call)
    for token, next_token in pairwise(sorted(locks)):
        former = max((call for call in locks[token] if call.rpc in GRANTING), key=lambda call: call.ended, default=None)
        first = min(locks[next_token], key=lambda call: call.ended)
        if (
            former is not None
            and former.told_until
            and former.lock_for_seconds >= _SHORTEST
            and first.rpc in GRANTING
            and first.token != former.token
            and not any(call.rpc in ENDING for call in locks[token])
            and _is_polled(calls, former, first)
            and not _is_unclear(unclear, former, first)
        ):
            yield _takeover(resource.name, former, first, faults)


def _takeover(resource: str, former: Call, first: Call, faults: Sequence[Fault]) -> Takeover:
    told_until = former.told_until
    is_quiet = not any(fault.began <= first.ended and fault.ended >= told_until - _QUIET_SECONDS for fault in faults)
    allowed = allowed_seconds(
        told_until,
        (first.began, first.ended),
        faults,
        taken_at=former.began,
        lock_seconds=former.lock_for_seconds,
    )
    return Takeover(resource, told_until, first.ended - told_until, is_quiet, allowed)


def _is_polled(calls: list[Call], former: Call, first: Call) -> bool:
    """Whether somebody asked for the lock all the time, from just before its end until it was granted."""
    asked = sorted(
        (call.began, call.ended)
        for call in calls
        if call.rpc in GRANTING and call.token != former.token and former.told_until - _POLLED_BEFORE <= call.ended
    )
    asked_until = former.told_until
    for began, ended in asked:
        if began > asked_until + _POLLED_EVERY:
            return False
        if began >= first.began:
            return True
        asked_until = max(asked_until, min(ended, began + _ASKING_SECONDS))
    return False


def _is_unclear(unclear: list[Call], former: Call, first: Call) -> bool:
    """Whether a call that nobody knows the outcome of may have renewed, ended or taken the lock in between."""
    return any(former.began < call.ended and call.began < first.ended for call in unclear)
