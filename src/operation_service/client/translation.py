"""gRPC's errors, translated at one border."""

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from operation_service.client import errors
from operation_service.client.errors import Facts, OperationServiceError, Violation

DOMAIN = "operation.n0stack"
_DETAILS = "grpc-status-details-bin"

REASONS: dict[str, type[OperationServiceError]] = {
    "INVALID_ARGUMENT": errors.InvalidArgumentError,
    "NOT_FOUND": errors.NotFoundError,
    "LOCKED": errors.LockedError,
    "TOKEN_MISMATCH": errors.TokenMismatchError,
    "NOT_LOCKED": errors.NotLockedError,
    "CANCEL_DISABLED": errors.CancelDisabledError,
    "OPERATION_CANCELLED": errors.OperationCancelledError,
    "OPERATION_OVER": errors.OperationOverError,
    "ALREADY_EXISTS": errors.AlreadyExistsError,
    "FENCING_TOKEN_MISMATCH": errors.FencingTokenMismatchError,
    "CONTENTION": errors.ContentionError,
    "ETCD_UNAVAILABLE": errors.UnavailableError,
    "ETCD_OUT_OF_SPACE": errors.EtcdOutOfSpaceError,
    "REVISION_COMPACTED": errors.RevisionCompactedError,
    "REVISION_IN_FUTURE": errors.RevisionInFutureError,
    "PAGE_TOKEN_EXPIRED": errors.PageTokenExpiredError,
    "WATCHER_TOO_SLOW": errors.WatchEndedError,
    "WATCH_INTERRUPTED": errors.WatchEndedError,
    "CORRUPT_RECORD": errors.CorruptRecordError,
    "UNFORESEEN": errors.UnforeseenError,
    "OVERLOADED": errors.OverloadedError,
    "TOO_MANY_WATCHES": errors.TooManyWatchesError,
    "IDENTITY_REQUIRED": errors.UnauthenticatedError,
    "BEARER_TOKEN_INVALID": errors.UnauthenticatedError,
    "BEARER_TOKEN_EXPIRED": errors.BearerTokenExpiredError,
    "ROLE_REQUIRED": errors.RoleRequiredError,
}
"""The reasons of ErrorReason in the service's proto, without their prefix."""

_UNANSWERED = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        # gRPC's core answers so, without details, to what arrives just when a service stops.
        grpc.StatusCode.CANCELLED,
    }
)
"""Codes that gRPC itself gives when no answer of the service came."""

_NEVER_SENT = "failed to connect to all addresses"
"""How gRPC's core begins what it says of a call that had no connection to be sent on. Should other words come one day,
such calls count as perhaps carried out, which is the safe side."""

_HEADERS_TOO_LARGE = "received metadata size exceeds"
"""How gRPC's core begins what it says of headers that it does not take; here, or at the service, it does not say."""


def translated(error: grpc.RpcError, what: str) -> OperationServiceError:
    """Return an error of gRPC as one of ours.

    Args:
        error: What a call of `grpc` or `grpc.aio` raised.
        what: Which call, and on what, for the message where the service itself gave none.

    Returns:
        The exception for its reason; by its code if it has no reason that is known here.
    """
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return OperationServiceError(f"{what}: {error!r}")
    code, message = error.code(), error.details() or ""
    facts = _facts(code.name, dict(error.trailing_metadata() or ()))
    kind = REASONS.get(facts.reason)
    if kind is None and code in _UNANSWERED:
        # gRPC's own words may hold several lines, and speak of its insides.
        unanswered = errors.UnavailableError(
            f"{what} was not answered: {code.name}: {' '.join(message.split())}", facts
        )
        unanswered.may_have_been_carried_out = not message.startswith(_NEVER_SENT)
        return unanswered
    if kind is None and message.startswith(_HEADERS_TOO_LARGE):
        message = (
            f"{what}: the headers of the call, a bearer token among them, or those of its answer have more than the 8 "
            f"KiB that gRPC takes for sure: {message}"
        )
    found = (kind or OperationServiceError)(message or f"{what}: {code.name}", facts)
    found.may_have_been_carried_out = (
        facts.metadata.get("outcome") == "unknown" or facts.reason == "UNFORESEEN" or not facts.reason
    )
    return found


def _facts(code: str, trailers: Mapping[str, Any]) -> Facts:
    info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    retry_after: float | None = None
    # Something between here and the service may have written the trailer, whatever is in it.
    try:
        for detail in Status.FromString(trailers.get(_DETAILS, b"")).details:
            if detail.Unpack(retry):
                retry_after = retry.retry_delay.ToTimedelta().total_seconds()
            elif not detail.Unpack(bad):
                detail.Unpack(info)
    except (DecodeError, OverflowError):
        return Facts(code)
    is_ours = info.domain == DOMAIN
    return Facts(
        code=code,
        reason=info.reason if is_ours else "",
        metadata=dict(info.metadata) if is_ours else {},
        violations=tuple(Violation(each.field, each.description) for each in bad.field_violations),
        retry_after=retry_after,
    )
