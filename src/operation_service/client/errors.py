"""What a call can fail with, as typed exceptions that carry the facts of the error details.

    OperationServiceError
    ├── UnauthenticatedError          the service does not know who calls, or takes no such token
    │   └── BearerTokenExpiredError   the token has expired
    ├── RoleRequiredError             the caller has not the role that the call needs
    ├── InvalidArgumentError          the request is wrong; `violations` names each field
    ├── NotFoundError                 the resource has no operation
    ├── RefusedError                  the rules say no, and nothing was changed
    │   ├── LockedError               another peer holds the resource
    │   │   └── HeldHereError         this very process does
    │   ├── TokenMismatchError        it is locked with another peer token
    │   ├── NotLockedError            the call needs the lock
    │   ├── CancelDisabledError       the holder has disabled cancelling
    │   ├── OperationCancelledError   the caller's own operation was cancelled
    │   ├── OperationOverError        there is nothing to cancel
    │   ├── AlreadyExistsError        another operation is not over
    │   └── FencingTokenMismatchError the lock that the caller names is gone
    ├── ContentionError               others came first, again and again
    ├── OverloadedError               the service has too many calls at once
    │   └── TooManyWatchesError       or too many watches
    ├── UnavailableError              no answer: from the service, or for it from etcd
    ├── EtcdOutOfSpaceError           etcd takes no changes
    ├── RevisionCompactedError        the history that a watch asks for is not kept any more
    ├── RevisionInFutureError         or is yet to come
    ├── PageTokenExpiredError         the moment of a listing is not kept any more
    ├── WatchEndedError               a watch cannot go on; `resume_revision` is where to begin again
    ├── CorruptRecordError            what etcd holds cannot be read
    ├── UnforeseenError               a mistake in the service
    └── LockLostError                 the lock of a hold is gone: stop working on the resource

A code or reason that a later service adds is an OperationServiceError as such.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Self


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong with one field of a request."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What came with an error.

    Attributes:
        code: The gRPC code's name, "FAILED_PRECONDITION" say.
        reason: The reason of the google.rpc.ErrorInfo, "LOCKED" say. Empty: there was none, as with errors that gRPC
            itself makes.
        metadata: The metadata of the ErrorInfo.
        violations: The fields of the google.rpc.BadRequest.
        retry_after: After how many seconds trying again makes sense (google.rpc.RetryInfo). None: waiting does not
            help.
    """

    code: str = "UNKNOWN"
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()
    retry_after: float | None = None


class OperationServiceError(Exception):
    """A call that did not do what was asked.

    Attributes:
        message: What the service said, for people.
        facts: What came with it, for programs.
        may_have_been_carried_out: Whether the change may have been made all the same, by this attempt or by one
            before it that was not answered. Sending the call again with the same token does no harm, but that an
            append may then stand in the log twice, and a cancel may meet another operation.
    """

    def __init__(self, message: str, facts: Facts | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts or Facts()
        self.may_have_been_carried_out = False

    @property
    def code(self) -> str:
        """The gRPC code's name."""
        return self.facts.code

    @property
    def reason(self) -> str:
        """The reason, a value of ErrorReason without its prefix, or empty."""
        return self.facts.reason

    @property
    def retry_after(self) -> float | None:
        """After how many seconds trying again makes sense. None: waiting does not help."""
        return self.facts.retry_after

    def _moment(self, name: str) -> datetime | None:
        text = self.facts.metadata.get(name, "")
        return datetime.fromisoformat(text) if text else None


class UnauthenticatedError(OperationServiceError):
    """The service does not know who calls: no certificate, no token, or a token that is not good."""


class BearerTokenExpiredError(UnauthenticatedError):
    """The token has expired, maybe while a watch went on: get another one."""


class RoleRequiredError(OperationServiceError):
    """The caller has not the role that the call needs; nothing was changed."""

    @property
    def role(self) -> str:
        """Which role."""
        return self.facts.metadata.get("role", "")

    @property
    def project(self) -> str:
        """On which project. Empty: on any."""
        return self.facts.metadata.get("project", "")

    @property
    def subject(self) -> str:
        """Whom the service takes the caller for."""
        return self.facts.metadata.get("subject", "")


class InvalidArgumentError(OperationServiceError):
    """The request itself is wrong: mend it."""

    @property
    def violations(self) -> tuple[Violation, ...]:
        """What is wrong, field by field."""
        return self.facts.violations


class NotFoundError(OperationServiceError):
    """The resource has no operation."""


class RefusedError(OperationServiceError):
    """The rules say no; nothing was changed."""

    @property
    def holder(self) -> str:
        """Who holds the resource, or empty where that is not told."""
        return self.facts.metadata.get("holder", "")

    @property
    def locked_since(self) -> datetime | None:
        """Since when, by the service's clock, in UTC."""
        return self._moment("locked_since")

    @property
    def locked_until(self) -> datetime | None:
        """Until when, by the service's clock, in UTC."""
        return self._moment("locked_until")

    @property
    def state(self) -> str:
        """The operation's state, where the refusal rests on it: "EXPIRED" say."""
        return self.facts.metadata.get("state", "")


class LockedError(RefusedError):
    """Another peer holds the resource. `retry_after` is the time that is left."""

    @property
    def last_log(self) -> str:
        """The newest line of the holder's log, up to 1 KiB of it."""
        return self.facts.metadata.get("last_log", "")


class HeldHereError(LockedError):
    """This very process holds the resource already, with the same peer token: proposing again would only renew."""


class TokenMismatchError(RefusedError):
    """The resource is locked with another peer token; only its holder may do this."""


class NotLockedError(RefusedError):
    """The call needs the lock, and the resource is not locked."""


class CancelDisabledError(RefusedError):
    """The holder has disabled cancelling. `retry_after` is the time that is left."""


class OperationCancelledError(RefusedError):
    """This peer's operation was cancelled while it held the lock: it may propose again after `locked_until`."""


class OperationOverError(RefusedError):
    """The operation is over already; there is nothing to cancel."""


class AlreadyExistsError(RefusedError):
    """The resource has an operation that is not over."""


class FencingTokenMismatchError(RefusedError):
    """The resource is not locked with the fencing token that was sent: the lock was lost."""

    @property
    def current_fencing_token(self) -> int:
        """The fencing token of the lock that the resource has now. 0: it is not locked."""
        return int(self.facts.metadata.get("fencing_token") or 0)


class ContentionError(OperationServiceError):
    """Other calls for the resource came first, for as long as this one could try; nothing was changed."""


class OverloadedError(OperationServiceError):
    """The service takes on no more calls for now; nothing was changed."""


class TooManyWatchesError(OverloadedError):
    """The service takes on no more watches for now."""


class UnavailableError(OperationServiceError):
    """No answer in time: the service cannot be reached, or has none from etcd."""


class EtcdOutOfSpaceError(OperationServiceError):
    """etcd's disk quota is used up; nothing was changed, and its operator has to make room."""


class RevisionCompactedError(OperationServiceError):
    """The history from the asked revision on is not kept any more: watch again with start_revision 0."""


class RevisionInFutureError(OperationServiceError):
    """The asked revision is yet to come."""


class PageTokenExpiredError(OperationServiceError):
    """The moment that a listing shows is not kept any more: list again."""


class WatchEndedError(OperationServiceError):
    """A watch cannot go on."""

    @property
    def resume_revision(self) -> int:
        """The start_revision to go on with."""
        return int(self.facts.metadata.get("resume_revision") or 0)


class CorruptRecordError(OperationServiceError):
    """What etcd holds for the resource cannot be read."""


class UnforeseenError(OperationServiceError):
    """A mistake in the service, which has logged it."""


class Loss(StrEnum):
    """How a lock was lost."""

    RAN_OUT = "ran out"
    """Its time passed on this process's own clock: renewals did not come through, or the process was asleep."""
    EXPIRED = "expired"
    """The service ended it: its time had passed there, or somebody broke it."""
    TAKEN_OVER = "taken over"
    """Another operator has the resource."""
    CANCELLED = "cancelled"
    """Somebody cancelled the operation."""
    COMPLETED = "completed elsewhere"
    """Somebody completed the operation with this peer's token."""
    GIVEN_UP = "given up"
    """The client was closed, or the process ended, in the midst of the operation, which was completed as failed."""
    FORKED = "forked"
    """This process is a child: the lock belongs to the one that it was forked from."""
    GIVEN_BACK = "given back"
    """Its block has ended. That is no loss, of which `lost` and `on_lost` would tell; but the lock is gone."""


class LockLostError(OperationServiceError):
    """The lock is gone: stop working on the resource.

    Attributes:
        resource: Which resource's, as "project/name".
        loss: How it was lost.
        fencing_token: The fencing token that the lock had; it is worth nothing any more.
    """

    def __init__(self, resource: str, loss: Loss, fencing_token: int) -> None:
        super().__init__(
            f"the lock of {resource} with fencing token {fencing_token} is lost ({loss}): stop working on the resource",
        )
        self.resource = resource
        self.loss = loss
        self.fencing_token = fencing_token

    def __reduce__(self) -> tuple[type[Self], tuple[str, Loss, int]]:
        # Pools of processes pickle what a job raises, and break if that cannot be undone.
        return type(self), (self.resource, self.loss, self.fencing_token)
