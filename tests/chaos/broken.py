"""The service with a mistake built in, to see that the checker finds it: `python -m chaos.broken MISTAKE serve ...`."""

import sys

from etcd3 import etcdrpc

from operation_service import cli
from operation_service.etcd_store import Attempt, EtcdStore

LOCK_GUARD = "lock-guard"
"""A commit does not check that the lock is as it was when the change was decided."""
GUARDS = "guards"
"""Nor that the record is."""
MISTAKES = (LOCK_GUARD, GUARDS)


def break_guards(mistake: str) -> None:
    """Leave guards out of every transaction.

    Raises:
        ValueError: There is no such mistake.
    """
    if mistake not in MISTAKES:
        raise ValueError(f"there is no mistake {mistake!r}, only {', '.join(MISTAKES)}")
    whole = EtcdStore._guards  # noqa: SLF001, production code has no switch for this

    def guards(self: EtcdStore, attempt: Attempt) -> list[etcdrpc.Compare]:
        resource = attempt.command.resource
        unchecked = {self._keys.lock(resource)}
        if mistake == GUARDS:
            unchecked.add(self._keys.record(resource))
        return [guard for guard in whole(self, attempt) if guard.key not in unchecked]

    EtcdStore._guards = guards  # type: ignore[method-assign]  # noqa: SLF001


if __name__ == "__main__":
    break_guards(sys.argv.pop(1))
    cli.main()
