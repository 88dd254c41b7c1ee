"""Everything that can go wrong with a call, with the facts as attributes.

    OperationError
    ├── UnauthenticatedError           nobody knows who calls
    │   ├── IdentityRequiredError
    │   ├── BearerTokenInvalidError
    │   └── BearerTokenExpiredError
    ├── RoleRequiredError              who calls may not do this
    ├── InvalidRequestError            the request itself is wrong
    ├── NotFoundError                  there is no such operation
    ├── RefusedError                   the rules say no
    │   ├── LockedError
    │   ├── TokenMismatchError
    │   ├── NotLockedError
    │   ├── CancelDisabledError
    │   ├── OperationCancelledError
    │   ├── OperationOverError
    │   ├── AlreadyExistsError
    │   └── FencingTokenMismatchError
    ├── ContentionError                others came first, again and again
    ├── OverloadedError                too many calls at once
    ├── TooManyWatchesError            too many watches at once
    ├── StoreError                     etcd cannot do it
    │   ├── StoreUnavailableError
    │   ├── LayoutError                its keys are laid out by another version
    │   ├── StoreOutOfSpaceError
    │   ├── RevisionCompactedError
    │   ├── RevisionInFutureError
    │   └── CorruptRecordError
    ├── PageTokenExpiredError          the moment of a listing is not kept any more
    ├── WatchEndedError                a watch cannot go on
    │   ├── WatcherTooSlowError
    │   └── WatchInterruptedError
    └── UnforeseenError                a mistake in the service itself

`status.py` says, in one table, which gRPC code and reason each has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from operation_service.model import Lock, Log, Resource, State

_LAST_LOG_MAX_BYTES = 1024
"""Trailers have to stay below the 8 KiB that gRPC peers accept; a log message may be 4 KiB."""

_SHORTEST_WAIT = timedelta(milliseconds=500)
"""etcd ends a lease up to half a second after its time: until then a caller must not be told to try at once."""


def rfc3339(moment: datetime) -> str:
    """Write a UTC time as people and protobuf's JSON write it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class OperationError(Exception):
    """A call that did not do what was asked.

    Attributes:
        metadata: The facts, for google.rpc.ErrorInfo.
        retry_after: After how long trying again makes sense. None: waiting does not help.
    """

    def __init__(
        self, message: str, *, metadata: dict[str, str] | None = None, retry_after: timedelta | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata or {}
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong with one field of a request."""

    field: str
    description: str


class InvalidRequestError(OperationError):
    """The request breaks a limit of CONTRACT section 4. Carries every violation at once."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" if v.field else v.description for v in violations))
        self.violations = tuple(violations)


class UnauthenticatedError(OperationError):
    """Nobody knows who calls; the call was not looked at."""


class IdentityRequiredError(UnauthenticatedError):
    """The caller has shown nothing that tells who it is, or a certificate that does not.

    Args:
        why: What is wrong with the certificate. Empty: nothing was shown.
    """

    def __init__(self, why: str = "") -> None:
        super().__init__(
            f"{why or 'the caller has not shown who it is'}: show a certificate of a CA that the service trusts, or a "
            'JSON Web Token in the metadata "authorization" ("Bearer TOKEN"), whichever the service takes'
        )


class BearerTokenInvalidError(UnauthenticatedError):
    """The token in `authorization` is not good. What is in it is never told.

    Args:
        why: What it lacks.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f'the token in the metadata "authorization" is not good: {why}: get another one')


class BearerTokenExpiredError(UnauthenticatedError):
    """The token in `authorization` was good once, or the watch that began with it has outlived it."""

    def __init__(self) -> None:
        super().__init__('the token in the metadata "authorization" has expired: get another one, and call again')


class RoleRequiredError(OperationError):
    """The caller has not the role that the call needs. The same whether there is such a project or not.

    Args:
        role: Which role.
        project: On which project. Empty: on any.
        subject: Who calls.
        has_some_left: Whether it is a watch that was begun with all projects, whose caller has the role on some still.

    Attributes:
        project: As above.
    """

    def __init__(self, role: str, project: str, subject: str, *, has_some_left: bool = False) -> None:
        self.project = project
        on = f"the project {project}" if project else "any project"
        what_now = "whoever keeps this service's policy can grant it"
        if has_some_left:
            on = "all projects any more, with which this watch began"
            what_now = (
                "watch again with the last revision that was received, plus 1, as start_revision, for those that are "
                f"left; {what_now}"
            )
        super().__init__(
            f"{subject} has not the role {role} on {on}: {what_now}",
            metadata={"role": role, "subject": subject} | ({"project": project} if project else {}),
        )


class NotFoundError(OperationError):
    """The resource has no operation."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(
            f"there is no operation for {resource}: it never had one, or the last one is over for too long"
        )


class RefusedError(OperationError):
    """The rules of CONTRACT section 4 say no; nothing was changed."""


def _lock_facts(lock: Lock) -> dict[str, str]:
    return {
        "holder": lock.holder,
        "locked_since": rfc3339(lock.locked_since),
        "locked_until": rfc3339(lock.locked_until),
    }


def _shortened(message: str) -> str:
    data = message.encode()
    if len(data) <= _LAST_LOG_MAX_BYTES:
        return message
    return data[: _LAST_LOG_MAX_BYTES - 3].decode(errors="ignore") + "…"


class LockedError(RefusedError):
    """Rule 3: another peer holds the resource."""

    def __init__(self, resource: Resource, lock: Lock, last_log: Log | None, remaining: timedelta) -> None:
        super().__init__(
            f"{resource} is locked by {lock.holder} since {rfc3339(lock.locked_since)} until "
            f"{rfc3339(lock.locked_until)}: wait for the end of that lock, or watch for it",
            metadata=_lock_facts(lock) | {"last_log": _shortened(last_log.message) if last_log else ""},
            retry_after=max(remaining, _SHORTEST_WAIT),
        )


class TokenMismatchError(RefusedError):
    """Rule 7: the resource is locked with another token."""

    def __init__(self, resource: Resource, lock: Lock) -> None:
        super().__init__(
            f"proposing_peer_token is not the one that {resource} is locked with; {lock.holder} holds it until "
            f"{rfc3339(lock.locked_until)}, and only the holder may do this",
            metadata=_lock_facts(lock),
        )


class NotLockedError(RefusedError):
    """Rule 8: the call needs the lock, and the resource is not locked."""

    def __init__(self, resource: Resource, state: State) -> None:
        super().__init__(
            f"{resource} is not locked (its operation is {state}): propose the operation before working on it",
            metadata={"state": state},
        )


class CancelDisabledError(RefusedError):
    """Rule 9: the holder has disabled cancelling."""

    def __init__(self, resource: Resource, lock: Lock, remaining: timedelta) -> None:
        super().__init__(
            f"cancelling the operation on {resource} is disabled until {rfc3339(lock.locked_until)} "
            f"(held by {lock.holder}): wait for it to complete, or for its lock to run out",
            metadata=_lock_facts(lock),
            retry_after=max(remaining, _SHORTEST_WAIT),
        )


class OperationCancelledError(RefusedError):
    """Rule 9: the caller's own operation was cancelled while it held the lock."""

    def __init__(self, resource: Resource, lock: Lock, remaining: timedelta) -> None:
        super().__init__(
            f"the operation that this proposing_peer_token held on {resource} was cancelled: stop working on it; "
            f"it may propose again after {rfc3339(lock.locked_until)}, when the cancelled lock would have run out",
            metadata={"locked_until": rfc3339(lock.locked_until)},
            retry_after=max(remaining, _SHORTEST_WAIT),
        )


class OperationOverError(RefusedError):
    """Rule 9: there is nothing left to cancel."""

    def __init__(self, resource: Resource, state: State) -> None:
        super().__init__(
            f"the operation on {resource} is over already ({state}): there is nothing to cancel",
            metadata={"state": state},
        )


class AlreadyExistsError(RefusedError):
    """Rule 6: another operation is not over."""

    def __init__(self, resource: Resource, state: State) -> None:
        super().__init__(
            f"{resource} has an operation that is not over ({state}): complete, cancel or take over that one first",
            metadata={"state": state},
        )


class FencingTokenMismatchError(RefusedError):
    """Rule 11: the resource is not locked with the fencing token that the caller sent."""

    def __init__(self, resource: Resource, sent: int, current: int) -> None:
        now = f"it is locked with {current}" if current else "it is not locked"
        super().__init__(
            f"{resource} is not locked with the n0stack-fencing-token {sent} that came with the call ({now}): "
            "the lock was lost, or never held: stop working on the resource",
            metadata={"fencing_token": str(current)},
        )


class ContentionError(OperationError):
    """Other calls for the resource came first, for as long as this one could try or wait.

    Args:
        resource: The resource.
        attempts: How often others changed it between this call's read and its write. 0: it never had its turn.
    """

    def __init__(self, resource: Resource, attempts: int) -> None:
        why = (
            f"{resource} was changed by others {attempts} times while this call tried"
            if attempts
            else f"earlier calls for {resource} were under way for as long as this call could wait"
        )
        super().__init__(
            f"{why}: nothing was changed, try again",
            retry_after=timedelta(milliseconds=100),
        )


class OverloadedError(OperationError):
    """The service has as much to do as it takes on, or is too slow for what it has.

    Args:
        limit: How much that is.
        retry_after: When to come again.
        what: Of what.
    """

    def __init__(self, limit: int, retry_after: timedelta, what: str = "calls") -> None:
        super().__init__(
            f"the service is busy with {limit} {what} and takes on no more: nothing was changed, try again later",
            metadata={"limit": str(limit)},
            retry_after=retry_after,
        )


class TooManyWatchesError(OperationError):
    """The service has as many watches as it takes on."""

    def __init__(self, limit: int, retry_after: timedelta) -> None:
        super().__init__(
            f"the service has {limit} watches and takes on no more: end some, or watch another replica",
            metadata={"limit": str(limit)},
            retry_after=retry_after,
        )


class StoreError(OperationError):
    """etcd cannot do what is needed.

    Attributes:
        is_outcome_unknown: Whether a change was under way that may have been made all the same.
    """

    is_outcome_unknown = False


class Fault(Enum):
    """What has to be set right before etcd can be used; to try again does not help."""

    CONNECTION = "no call gets there: a certificate, or a URL, is not what the other side wants"
    USER = "etcd does not know the service's user, or does not let it"


class StoreUnavailableError(StoreError):
    """etcd cannot be reached in time, or has no leader.

    Attributes:
        why: In a few words.
        is_refused: Whether etcd itself refused the service's call, as another attempt would be.
        fault: What `why` names to set right. None: nothing that is known.
    """

    def __init__(
        self, why: str, *, is_outcome_unknown: bool = False, is_refused: bool = False, fault: Fault | None = None
    ) -> None:
        outcome = (
            "the change may or may not have been made; send the same call again with the same token"
            if is_outcome_unknown
            else "nothing was changed; send the same call again"
        )
        super().__init__(
            f"etcd is not available ({why}): {outcome}",
            metadata={"outcome": "unknown" if is_outcome_unknown else "unchanged"},
            retry_after=timedelta(seconds=1),
        )
        self.why = why
        self.is_outcome_unknown = is_outcome_unknown
        self.is_refused = is_refused
        self.fault = fault


class LayoutError(StoreError):
    """What etcd holds was laid out by a newer version of the service, or the number that says so was spoilt.

    To a caller it is like an etcd that is out of reach: nothing was changed, and another replica may do it.

    Args:
        key: That of the layout's number.
        found: What it says.
        known: The layout of this version.

    Attributes:
        why: What is there, what this version knows, and what to do.
    """

    def __init__(self, key: str, found: str, known: int) -> None:
        if found.isascii() and found.isdigit() and int(found[:9]) > known:
            why = (
                f"what etcd holds there is of a newer version of the service: {key} says layout {found[:9]}, and this "
                f"version knows {known}; run that newer version"
            )
        else:
            why = (
                f"{key} in etcd says {found[:40]!r}, which is no layout, and this version knows {known}: it was spoilt "
                f"by hand; if all replicas are of this version, put {known} there with etcdctl"
            )
        super().__init__(
            f"{why}: nothing was changed; send the same call again, to another replica",
            metadata={"outcome": "unchanged"},
            retry_after=timedelta(seconds=1),
        )
        self.why = why
        self._facts = key, found, known

    def again(self) -> "LayoutError":
        """Return the same error anew."""
        return LayoutError(*self._facts)


class StoreOutOfSpaceError(StoreError):
    """etcd's disk quota is used up (its NOSPACE alarm): it reads, but does not write."""

    def __init__(self) -> None:
        super().__init__(
            "etcd has used up its disk quota and takes no changes: nothing was changed; its operator has to compact, "
            "defragment and disarm the NOSPACE alarm"
        )


def again(error: StoreError) -> StoreError:
    """Return the same error anew, for each of those who are told of it: to raise one adds to its traceback."""
    if isinstance(error, LayoutError):
        return error.again()
    if isinstance(error, StoreUnavailableError):
        return StoreUnavailableError(
            error.why, is_outcome_unknown=error.is_outcome_unknown, is_refused=error.is_refused, fault=error.fault
        )
    return StoreOutOfSpaceError() if isinstance(error, StoreOutOfSpaceError) else error


class RevisionCompactedError(StoreError):
    """The history that far back is not there, or of another layout.

    Args:
        compact_revision: Up to where, at least.
        why: What became of it.
    """

    def __init__(self, compact_revision: int, why: str = "etcd has compacted that history away") -> None:
        super().__init__(
            f"start_revision must be greater than {compact_revision}, since {why}: watch again with start_revision 0",
            metadata={"compact_revision": str(compact_revision)},
        )
        self.compact_revision = compact_revision


class RevisionInFutureError(StoreError):
    """The caller asks for a history that is yet to come."""

    def __init__(self, current_revision: int) -> None:
        super().__init__(
            f"start_revision lies in the future; the current revision is {current_revision}, "
            f"so the greatest start_revision is {current_revision + 1}",
            metadata={"current_revision": str(current_revision)},
        )


class CorruptRecordError(StoreError):
    """A key of ours holds what this version of the service cannot read."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(
            f"{key} in etcd cannot be read ({why}): it was changed by hand or by another version of the "
            "service; restore or delete it with etcdctl",
            metadata={"key": key},
        )


class PageTokenExpiredError(OperationError):
    """The moment that a page token stands for is not kept any more."""

    def __init__(self) -> None:
        super().__init__(
            "page_token: the moment that this listing shows is not kept any more: list again without a page_token"
        )


class WatchEndedError(OperationError):
    """A watch cannot go on; `resume_revision` is the start_revision to go on with."""

    def __init__(self, message: str, resume_revision: int) -> None:
        super().__init__(
            f"{message}; watch again with start_revision {resume_revision}",
            metadata={"resume_revision": str(resume_revision)},
            retry_after=timedelta(seconds=1),
        )


class WatcherTooSlowError(WatchEndedError):
    """The caller read its watch too slowly and was left behind."""

    def __init__(self, resume_revision: int) -> None:
        super().__init__("this watch was read too slowly and was left behind", resume_revision)


class WatchInterruptedError(WatchEndedError):
    """The service cannot serve the watch any longer."""

    def __init__(self, why: str, resume_revision: int) -> None:
        super().__init__(f"this watch was interrupted ({why})", resume_revision)


class UnforeseenError(OperationError):
    """A mistake in the service, which is in its log and nowhere else."""

    def __init__(self) -> None:
        super().__init__("a mistake in the service, which has logged it: please report it")
