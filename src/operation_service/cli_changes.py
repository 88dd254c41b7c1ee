"""The commands that change something: create, propose, append, complete and cancel."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from operation_service.cli_completion import resource_arguments
from operation_service.cli_options import (
    DURATION,
    EXIT_CODES,
    Command,
    Service,
    option,
    talks_to_the_service,
)
from operation_service.cli_reads import answers_for, descriptor_set_option
from operation_service.people import terminal_token
from operation_service.terminal_text import as_json, shown

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status

    from operation_service.client import Changed

_CODES = [
    *("CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
]
"""Of google.rpc.Code."""
_MAX_FENCING_TOKEN = 2**64 - 1

_token = option(
    "--token",
    "Your peer token. Without it, one that is the same for all commands of this terminal, and another one in every "
    "other terminal.",
    metavar="TOKEN",
    default=terminal_token,
    show_default=False,
)
_fencing_token = click.option(
    "--fencing-token",
    type=click.IntRange(1, _MAX_FENCING_TOKEN),
    metavar="N",
    help="Only if the resource is locked with exactly this fencing token, as `propose` has printed it.",
)
_log = click.option("--log", "log_message", default="", metavar="TEXT", help="A line for the operation's log.")
_disable_cancel = click.option(
    "--disable-cancel", is_flag=True, help="Let nobody cancel the operation while it is locked."
)


def _lock_for(*, is_required: bool) -> Callable[[Command], Command]:
    return click.option(
        "--lock-for",
        type=DURATION,
        **({"required": True} if is_required else {"default": 0}),
        help="For how long to lock the resource, from now on: seconds, or a number with s, m, h or d."
        + ("" if is_required else " Without it, it is not locked."),
    )


@click.command(
    epilog=f"""\b
Examples:
  operation-service create demo virtual_machines/web-1 --log "asked for by alice"
  operation-service create demo virtual_machines/web-1 --request @request.json
  operation-service create demo virtual_machines/web-1 --lock-for 10m --token agent-a

A request is JSON with an "@type", as grpcurl takes it.

{EXIT_CODES}"""
)
@resource_arguments
@click.option("--request", metavar="JSON", help="The request to be carried out. @FILE reads a file, - standard input.")
@_lock_for(is_required=False)
@_disable_cancel
@_log
@_token
@descriptor_set_option
@talks_to_the_service
def create(  # noqa: PLR0917, click calls it with keywords
    service: Service,
    project: str,
    name: str,
    request: str | None,
    lock_for: int,
    disable_cancel: bool,
    log_message: str,
    token: str,
    descriptor_set: tuple[Path, ...],
) -> None:
    """Record a request for an operator to take up."""
    told = _Told(service, descriptor_set)
    operation_request = None if request is None else told.answers.texts.from_json(_read_json(request))
    with service.client(token) as client:
        changed = client.create(
            project,
            name,
            operation_request=operation_request,
            log_message=log_message,
            lock_for=lock_for,
            disable_cancel=disable_cancel,
        )
    until = _until(changed)
    told.of(changed, f"{project}/{name} is {until or 'pending'}", has_taken=bool(until))


@click.command(
    epilog=f"""\b
Examples:
  operation-service propose demo networks/lan --lock-for 10m --log "changing the MTU"
  operation-service propose demo networks/lan --lock-for 10m --fencing-token 12    (only renews)
  operation-service propose demo networks/lan --lock-for 1h --token maintenance-7 --disable-cancel

{EXIT_CODES}"""
)
@resource_arguments
@_lock_for(is_required=True)
@_disable_cancel
@_log
@_token
@_fencing_token
@descriptor_set_option
@talks_to_the_service
def propose(  # noqa: PLR0917, as above
    service: Service,
    project: str,
    name: str,
    lock_for: int,
    disable_cancel: bool,
    log_message: str,
    token: str,
    fencing_token: int | None,
    descriptor_set: tuple[Path, ...],
) -> None:
    """Take a lock, or renew your own.

    Prints the tokens that the other commands, and other programs, need to work with it.
    """
    told = _Told(service, descriptor_set)
    with service.client(token) as client:
        changed = client.propose(
            project,
            name,
            lock_for=lock_for,
            disable_cancel=disable_cancel,
            log_message=log_message,
            fencing_token=fencing_token,
        )
    told.of(changed, f"{project}/{name} is {_until(changed)}", has_taken=True)


@click.command(
    epilog=f"""\b
Examples:
  operation-service append demo networks/lan "the switches are done"
  operation-service append demo networks/lan "the routers too" --fencing-token 12

{EXIT_CODES}"""
)
@resource_arguments
@click.argument("message")
@_token
@_fencing_token
@descriptor_set_option
@talks_to_the_service
def append(  # noqa: PLR0917, as above
    service: Service,
    project: str,
    name: str,
    message: str,
    token: str,
    fencing_token: int | None,
    descriptor_set: tuple[Path, ...],
) -> None:
    """Add a line to the log of what you hold."""
    told = _Told(service, descriptor_set)
    with service.client(token) as client:
        changed = client.append(project, name, message, fencing_token=fencing_token)
    told.of(changed, f"{project}/{name}: the line is in the log")


@click.command(
    epilog=f"""\b
Examples:
  operation-service complete demo networks/lan --log "the MTU is 9000"
  operation-service complete demo networks/lan --error "the disk is full" --code RESOURCE_EXHAUSTED

{EXIT_CODES}"""
)
@resource_arguments
@click.option("--error", metavar="TEXT", help="What went wrong. Without it, the operation succeeded.")
@click.option("--code", type=click.Choice(_CODES), help="The error's google.rpc.Code. Default: UNKNOWN.")
@_log
@_token
@_fencing_token
@descriptor_set_option
@talks_to_the_service
def complete(  # noqa: PLR0917, as above
    service: Service,
    project: str,
    name: str,
    error: str | None,
    code: str | None,
    log_message: str,
    token: str,
    fencing_token: int | None,
    descriptor_set: tuple[Path, ...],
) -> None:
    """End what you hold, as done or failed."""
    if code is not None and error is None:
        raise click.UsageError("--code is that of an error: it goes with --error")
    status = None if error is None else _status(error, code or "UNKNOWN")
    told = _Told(service, descriptor_set)
    with service.client(token) as client:
        changed = client.complete(project, name, error=status, log_message=log_message, fencing_token=fencing_token)
    outcome = "has succeeded" if error is None else "has failed"
    told.of(changed, f"the operation on {project}/{name} {outcome}")


@click.command(
    epilog=f"""\b
Examples:
  operation-service cancel demo virtual_machines/web-1 --log "not needed any more"
  operation-service cancel demo virtual_machines/web-1 --token agent-a

While somebody holds the resource, only the holder's token cancels; `get` shows it.

{EXIT_CODES}"""
)
@resource_arguments
@_log
@_token
@_fencing_token
@descriptor_set_option
@talks_to_the_service
def cancel(  # noqa: PLR0917, as above
    service: Service,
    project: str,
    name: str,
    log_message: str,
    token: str,
    fencing_token: int | None,
    descriptor_set: tuple[Path, ...],
) -> None:
    """End what nobody holds, or you do."""
    told = _Told(service, descriptor_set)
    with service.client(token) as client:
        changed = client.cancel(project, name, log_message=log_message, fencing_token=fencing_token)
    told.of(changed, f"the operation on {project}/{name} is cancelled")


class _Told:
    """What a person, or a program, is told of a change; made before it: a wrong file is found in time."""

    def __init__(self, service: Service, descriptor_sets: tuple[Path, ...]) -> None:
        self.answers = answers_for(service, descriptor_sets)
        self._is_json = service.is_json

    def of(self, changed: "Changed", what: str, *, has_taken: bool = False) -> None:
        """Tell it.

        Args:
            changed: The change.
            what: What it was, for a person.
            has_taken: Whether a lock was taken: then others need its tokens.
        """
        from operation_service.tables import print_facts, write  # noqa: PLC0415, rich takes a while to import

        if self._is_json:
            operation = self.answers.operation(changed.operation)
            write(as_json({"operation": operation, "fencingToken": str(changed.fencing_token)}, indent=2) + "\n")
            return
        write(f"{shown(what)}\n")
        if has_taken:
            token = shown(changed.operation.proposing_peer_token)
            print_facts([("token", token), ("fencing token", str(changed.fencing_token))])


def _until(changed: "Changed") -> str:
    from operation_service.rows import moment  # noqa: PLC0415, gRPC takes a while to import

    operation = changed.operation
    return f"locked until {moment(operation.locked_until)}" if operation.HasField("locked_until") else ""


def _status(message: str, code: str) -> "Status":
    from google.rpc.code_pb2 import Code  # noqa: PLC0415, as above
    from google.rpc.status_pb2 import Status  # noqa: PLC0415

    return Status(code=Code.Value(code), message=message)


def _read_json(text: str) -> object:
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
        return json.loads(text)
    except OSError as error:
        raise click.UsageError(f"--request: {text[1:]}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--request is no JSON: {error}") from error
