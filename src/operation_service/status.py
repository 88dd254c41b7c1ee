"""How errors are told to callers: the one table error → gRPC code and reason, and the google.rpc details."""

from datetime import timedelta

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from operation_service import errors
from operation_service.errors import InvalidRequestError, OperationError
from operation_service.validation import is_name, is_project

DOMAIN = "operation.n0stack"

Code = grpc.StatusCode

TABLE: dict[type[OperationError], tuple[grpc.StatusCode, str]] = {
    errors.IdentityRequiredError: (Code.UNAUTHENTICATED, "IDENTITY_REQUIRED"),
    errors.BearerTokenInvalidError: (Code.UNAUTHENTICATED, "BEARER_TOKEN_INVALID"),
    errors.BearerTokenExpiredError: (Code.UNAUTHENTICATED, "BEARER_TOKEN_EXPIRED"),
    errors.RoleRequiredError: (Code.PERMISSION_DENIED, "ROLE_REQUIRED"),
    errors.InvalidRequestError: (Code.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
    errors.NotFoundError: (Code.NOT_FOUND, "NOT_FOUND"),
    errors.LockedError: (Code.FAILED_PRECONDITION, "LOCKED"),
    errors.TokenMismatchError: (Code.PERMISSION_DENIED, "TOKEN_MISMATCH"),
    errors.NotLockedError: (Code.FAILED_PRECONDITION, "NOT_LOCKED"),
    errors.CancelDisabledError: (Code.FAILED_PRECONDITION, "CANCEL_DISABLED"),
    errors.OperationCancelledError: (Code.FAILED_PRECONDITION, "OPERATION_CANCELLED"),
    errors.OperationOverError: (Code.FAILED_PRECONDITION, "OPERATION_OVER"),
    errors.AlreadyExistsError: (Code.ALREADY_EXISTS, "ALREADY_EXISTS"),
    errors.FencingTokenMismatchError: (Code.FAILED_PRECONDITION, "FENCING_TOKEN_MISMATCH"),
    errors.ContentionError: (Code.ABORTED, "CONTENTION"),
    errors.OverloadedError: (Code.RESOURCE_EXHAUSTED, "OVERLOADED"),
    errors.TooManyWatchesError: (Code.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHES"),
    errors.StoreUnavailableError: (Code.UNAVAILABLE, "ETCD_UNAVAILABLE"),
    errors.LayoutError: (Code.UNAVAILABLE, "ETCD_UNAVAILABLE"),
    errors.StoreOutOfSpaceError: (Code.RESOURCE_EXHAUSTED, "ETCD_OUT_OF_SPACE"),
    errors.RevisionCompactedError: (Code.OUT_OF_RANGE, "REVISION_COMPACTED"),
    errors.RevisionInFutureError: (Code.OUT_OF_RANGE, "REVISION_IN_FUTURE"),
    errors.PageTokenExpiredError: (Code.OUT_OF_RANGE, "PAGE_TOKEN_EXPIRED"),
    errors.WatcherTooSlowError: (Code.RESOURCE_EXHAUSTED, "WATCHER_TOO_SLOW"),
    errors.WatchInterruptedError: (Code.UNAVAILABLE, "WATCH_INTERRUPTED"),
    errors.CorruptRecordError: (Code.DATA_LOSS, "CORRUPT_RECORD"),
    errors.UnforeseenError: (Code.INTERNAL, "UNFORESEEN"),
}


def to_status(error: OperationError, *, project: str = "", name: str = "") -> grpc.Status:
    """Return what to abort a call with.

    Args:
        error: What went wrong.
        project: The request's project; told back if it can be one.
        name: The request's name; likewise.
    """
    code, reason = TABLE[type(error)]
    info = ErrorInfo(reason=reason, domain=DOMAIN, metadata=error.metadata)
    if is_project(project):
        info.metadata["project"] = project
    if is_name(name):
        info.metadata["name"] = name
    details: list[Message] = [info]
    if isinstance(error, InvalidRequestError):
        details.append(
            BadRequest(
                field_violations=[
                    BadRequest.FieldViolation(field=violation.field, description=violation.description)
                    for violation in error.violations
                ]
            )
        )
    if error.retry_after is not None:
        details.append(RetryInfo(retry_delay=to_duration(error.retry_after)))
    status = Status(code=code.value[0], message=error.message)
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return rpc_status.to_status(status)


def to_duration(delta: timedelta) -> Duration:
    """Return a timedelta as protobuf's Duration."""
    duration = Duration()
    duration.FromTimedelta(delta)
    return duration
