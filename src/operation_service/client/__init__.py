"""A client of the operation service that is hard to hold wrong.

    from operation_service.client import Client

    with Client("127.0.0.1:50051") as client:
        with client.hold("demo", "virtual_machines/web-1", lock_for=30) as operation:
            operation.log("stopping the guest")
            stop_guest(fencing_token=operation.fencing_token)

`AsyncClient` is the same for asyncio. docs/python.md tells the rest.
"""

from operation_service.client import forks as _forks  # noqa: F401, before gRPC is loaded

# isort: split
from operation_service.client.aio_client import AsyncClient
from operation_service.client.aio_held import AsyncHeldOperation
from operation_service.client.bearer import TokenFile
from operation_service.client.blocking_client import Client
from operation_service.client.blocking_held import HeldOperation
from operation_service.client.changed import Changed
from operation_service.client.errors import (
    AlreadyExistsError,
    BearerTokenExpiredError,
    CancelDisabledError,
    ContentionError,
    CorruptRecordError,
    EtcdOutOfSpaceError,
    FencingTokenMismatchError,
    HeldHereError,
    InvalidArgumentError,
    LockedError,
    LockLostError,
    Loss,
    NotFoundError,
    NotLockedError,
    OperationCancelledError,
    OperationOverError,
    OperationServiceError,
    OverloadedError,
    PageTokenExpiredError,
    RefusedError,
    RevisionCompactedError,
    RevisionInFutureError,
    RoleRequiredError,
    TokenMismatchError,
    TooManyWatchesError,
    UnauthenticatedError,
    UnavailableError,
    UnforeseenError,
    Violation,
    WatchEndedError,
)
from operation_service.client.peer import peer_token
from operation_service.client.tls import Tls

__all__ = [
    "AlreadyExistsError",
    "AsyncClient",
    "AsyncHeldOperation",
    "BearerTokenExpiredError",
    "CancelDisabledError",
    "Changed",
    "Client",
    "ContentionError",
    "CorruptRecordError",
    "EtcdOutOfSpaceError",
    "FencingTokenMismatchError",
    "HeldHereError",
    "HeldOperation",
    "InvalidArgumentError",
    "LockLostError",
    "LockedError",
    "Loss",
    "NotFoundError",
    "NotLockedError",
    "OperationCancelledError",
    "OperationOverError",
    "OperationServiceError",
    "OverloadedError",
    "PageTokenExpiredError",
    "RefusedError",
    "RevisionCompactedError",
    "RevisionInFutureError",
    "RoleRequiredError",
    "Tls",
    "TokenFile",
    "TokenMismatchError",
    "TooManyWatchesError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnforeseenError",
    "Violation",
    "WatchEndedError",
    "peer_token",
]
