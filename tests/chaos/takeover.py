"""How long it took until somebody else got a lock that its holder had let run out. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chaos.history import Call, Fault, Outcome

_POLLED_BEFORE = 0.5
_POLLED_EVERY = 0.3
"""Contenders ask every 0.05 s, and come back sooner than in this after a failure. Where all of them were stopped, were
killed, or gave up, what is measured is not the service."""
_QUIET_SECONDS = 5.0
_SHORTEST = 2
"""A lock of 1 s is granted for 2 (ETCD_FACTS, Leases): what its holder was told may be less than what was granted."""
_TAKES = {"create", "propose"}
_ENDS = {"complete", "cancel"}


@dataclass(frozen=True)
class Takeover:
    """One lock that ran out and was taken by another at once.

    Attributes:
        resource: Which.
        told_until: Until when the former holder had been told to have it.
        delay: From then until the answer to whoever got it next.
        is_quiet: Whether nothing was done to the cluster since 5 s before the end.
    """

    resource: str
    told_until: float
    delay: float
    is_quiet: bool


def takeovers(calls: Iterable[Call], faults: Sequence[Fault]) -> list[Takeover]:
    """Find them."""
    by_resource: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        by_resource[call.resource].append(call)
    return [found for resource, some in by_resource.items() for found in _of_resource(resource, some, faults)]


def _of_resource(resource: str, calls: list[Call], faults: Sequence[Fault]) -> Iterable[Takeover]:
    locks: dict[int, list[Call]] = defaultdict(list)
    for call in calls:
        if call.outcome is Outcome.OK and call.fencing_token and call.rpc != "get":
            locks[call.fencing_token].append(call)
    tokens = sorted(locks)
    for token, next_token in pairwise(tokens):
        former = max((call for call in locks[token] if call.rpc in _TAKES), key=lambda call: call.ended, default=None)
        first = min((call for call in locks[next_token]), key=lambda call: call.ended)
        if (
            former is not None
            and former.told_until
            and former.lock_for_seconds >= _SHORTEST
            and first.rpc in _TAKES
            and first.token != former.token
            and not any(call.rpc in _ENDS for call in locks[token])
            and _is_polled(calls, former, first)
            and not _is_unclear(calls, former, first)
        ):
            is_quiet = not any(
                fault.began <= first.ended and fault.ended >= former.told_until - _QUIET_SECONDS for fault in faults
            )
            yield Takeover(resource, former.told_until, first.ended - former.told_until, is_quiet)


def _is_polled(calls: list[Call], former: Call, first: Call) -> bool:
    """Whether somebody asked for the lock all the time, from just before its end until it was granted."""
    asked = sorted(
        (call.began, call.ended)
        for call in calls
        if call.rpc in _TAKES and call.token != former.token and former.told_until - _POLLED_BEFORE <= call.ended
    )
    asked_until = former.told_until
    for began, ended in asked:
        if began > asked_until + _POLLED_EVERY:
            return False
        if began >= first.began:
            return True
        asked_until = max(asked_until, ended)
    return False


def _is_unclear(calls: list[Call], former: Call, first: Call) -> bool:
    """Whether a call that nobody knows the outcome of may have renewed, ended or taken the lock in between."""
    return any(
        call.outcome is Outcome.UNKNOWN and call.rpc != "get" and former.began < call.ended and call.began < first.ended
        for call in calls
    )
