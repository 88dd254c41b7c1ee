"""What the commands for operators exit with, so that a script can tell what happened; docs/cli.md has the table."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    """What was asked for is done."""
    FAILED = 1
    """Refused by the rules, not confirmed, or failed for a reason of its own."""
    WRONG = 2
    """The command line or the request is wrong: mend it."""
    UNAVAILABLE = 3
    """No answer, from the service or from etcd, or too much is going on: try again later. Failed TLS is no answer."""
    NOT_FOUND = 4
    """The resource has no operation."""
    HELD = 5
    """Somebody else holds the resource, or lets nobody cancel: wait."""
    NOT_HELD = 6
    """The lock that the command needs, or names, is not there, or not any more."""
    NOT_ALLOWED = 7
    """The service, or etcd, does not know who calls, or the caller has not the role that it needs."""
    INTERRUPTED = 130
    """Ctrl-C."""
    READER_GONE = 141
    """Whoever read the output has gone, as with `| head`."""


_REASONS = {
    "INVALID_ARGUMENT": ExitCode.WRONG,
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "LOCKED": ExitCode.HELD,
    "TOKEN_MISMATCH": ExitCode.HELD,
    "CANCEL_DISABLED": ExitCode.HELD,
    "NOT_LOCKED": ExitCode.NOT_HELD,
    "OPERATION_CANCELLED": ExitCode.NOT_HELD,
    "FENCING_TOKEN_MISMATCH": ExitCode.NOT_HELD,
    "OPERATION_OVER": ExitCode.FAILED,
    "ALREADY_EXISTS": ExitCode.FAILED,
    "CONTENTION": ExitCode.UNAVAILABLE,
    "ETCD_UNAVAILABLE": ExitCode.UNAVAILABLE,
    "ETCD_OUT_OF_SPACE": ExitCode.UNAVAILABLE,
    "OVERLOADED": ExitCode.UNAVAILABLE,
    "TOO_MANY_WATCHES": ExitCode.UNAVAILABLE,
    "WATCH_INTERRUPTED": ExitCode.UNAVAILABLE,
    "WATCHER_TOO_SLOW": ExitCode.UNAVAILABLE,
    "REVISION_COMPACTED": ExitCode.FAILED,
    "REVISION_IN_FUTURE": ExitCode.FAILED,
    "PAGE_TOKEN_EXPIRED": ExitCode.FAILED,
    "CORRUPT_RECORD": ExitCode.FAILED,
    "UNFORESEEN": ExitCode.FAILED,
    "IDENTITY_REQUIRED": ExitCode.NOT_ALLOWED,
    "BEARER_TOKEN_INVALID": ExitCode.NOT_ALLOWED,
    "BEARER_TOKEN_EXPIRED": ExitCode.NOT_ALLOWED,
    "ROLE_REQUIRED": ExitCode.NOT_ALLOWED,
}
"""The values of ErrorReason, without their prefix."""

_CODES = {"UNAVAILABLE": ExitCode.UNAVAILABLE, "DEADLINE_EXCEEDED": ExitCode.UNAVAILABLE}
"""The codes of errors that gRPC itself makes."""


def exit_code(reason: str, code: str) -> ExitCode:
    """Return what to exit with after an error.

    Args:
        reason: Of its google.rpc.ErrorInfo, or empty.
        code: The gRPC code's name.
    """
    return _REASONS.get(reason) or _CODES.get(code, ExitCode.FAILED)
