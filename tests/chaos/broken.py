"""The service with a mistake built in, to see that a run finds it: `python -m chaos.broken MISTAKE serve ...`.

Production code has no switch for any of these, and so they reach into its privates.
"""

import asyncio
import sys
from collections.abc import Callable

from chaos.gathering import gather
from chaos.schedule import Kind

from operation_service import cli, commits
from operation_service.commits import Attempt
from operation_service.etcd_ops import Guard
from operation_service.expiry import Expiry
from operation_service.keys import Keys, ResourceKeys
from operation_service.lock_times import LockTimes, Outlived

LOCK_GUARD = "lock-guard"
"""A commit does not check that the lock is as it was when the change was decided."""
GUARDS = "guards"
"""Nor that the record is."""
EXPIRY = "expiry"
"""Nobody ends what has outlived its time: a change of etcd's leader gives every lock its whole time again."""
EARLY_EXPIRY = "early-expiry"
"""What is still there half a second before its deadline is taken for what has outlived its time."""

_LATE_SECONDS = 1.0
"""A lock has to run out between a decision and its commit for it to show that nobody checks."""
_EARLY_SECONDS = 1.5
"""The service waits for a second, to let etcd do it."""


def break_guards(*, record_too: bool) -> None:
    """Leave guards out of every transaction, each made a moment later than usual, when others have changed things."""
    gather(_LATE_SECONDS)
    whole = commits.guards

    def guards(keys: Keys, at: ResourceKeys, attempt: Attempt) -> list[Guard]:
        unchecked = {at.lock, at.record} if record_too else {at.lock}
        return [guard for guard in whole(keys, at, attempt) if guard.key not in unchecked]

    commits.guards = guards


def break_expiry() -> None:
    """End nothing."""

    async def run(self: Expiry) -> None:
        """Wait for ever, as what is well does."""
        del self
        await asyncio.Event().wait()

    Expiry.run = run  # type: ignore[method-assign]


def hasten_expiry() -> None:
    """End everything too early."""
    on_time = LockTimes.outlived

    def outlived(self: LockTimes, grace_seconds: float, limit: int) -> list[Outlived]:
        return on_time(self, grace_seconds - _EARLY_SECONDS, limit)

    LockTimes.outlived = outlived  # type: ignore[method-assign]


_BREAK: dict[str, Callable[[], None]] = {
    LOCK_GUARD: lambda: break_guards(record_too=False),
    GUARDS: lambda: break_guards(record_too=True),
    EXPIRY: break_expiry,
    EARLY_EXPIRY: hasten_expiry,
}
MISTAKES = tuple(_BREAK)
NEEDS = {EXPIRY: (*(Kind.MOVE_LEADER,) * 3, Kind.KILL_LEADER) * 4}
"""What has to happen for a mistake to show."""


if __name__ == "__main__":
    _BREAK[sys.argv.pop(1)]()
    cli.main()
