"""The commands that look: list, get, logs and watch."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from operation_service.cli_completion import projects, resource_arguments
from operation_service.cli_options import EXIT_CODES, Service, option, talks_to_the_service
from operation_service.terminal_text import as_json

if TYPE_CHECKING:
    from n0stack.operation.v1alpha import operation_service_pb2 as pb
    from operation_service.answers import Answers
    from operation_service.client.connection import Target

_STATES = ["PENDING", "LOCKED", "EXPIRED", "OPERATOR_DEAD", "SUCCEEDED", "FAILED", "CANCELLED"]
_MAX_REVISION = 2**63 - 1

_project = click.option(
    "--project", default="", metavar="PROJECT", help="Only of this project.", shell_complete=projects
)
_prefix = click.option("--prefix", default="", metavar="PREFIX", help="Only names that begin like this.")
descriptor_set_option = option(
    "--descriptor-set",
    "Message types to read and write requests with, besides those that the service knows. May be repeated; in the "
    "environment, joined by colons.",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
)


def answers_for(service: Service, descriptor_sets: tuple[Path, ...]) -> "Answers":
    """Return what turns the service's answers into JSON.

    Raises:
        SettingsError: A descriptor set cannot be used.
    """
    from operation_service.answers import Answers  # noqa: PLC0415, gRPC takes a while to import
    from operation_service.descriptor_sets import DescriptorSetError  # noqa: PLC0415
    from operation_service.reflected import Reflected  # noqa: PLC0415
    from operation_service.request_text import RequestText  # noqa: PLC0415
    from operation_service.settings import SettingsError  # noqa: PLC0415

    def target() -> "Target":
        return service.connection.target(service.address)

    try:
        return Answers(RequestText(descriptor_sets, Reflected(target, service.timeout_seconds)))
    except DescriptorSetError as error:
        raise SettingsError(str(error)) from error


@click.command(
    name="list",
    epilog=f"""\b
Examples:
  operation-service list
  operation-service list --state OPERATOR_DEAD --state EXPIRED
  operation-service list --project demo --prefix virtual_machines/ -o json

{EXIT_CODES}""",
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(_STATES),
    help="Only operations in this state. May be repeated.",
)
@_project
@_prefix
@descriptor_set_option
@talks_to_the_service
def list_operations(
    service: Service, states: tuple[str, ...], project: str, prefix: str, descriptor_set: tuple[Path, ...]
) -> None:
    """Show who holds what.

    A line for each operation: since when and for how long it is held, and the newest line of its log.
    """
    from n0stack.operation.v1alpha import operation_service_pb2 as pb  # noqa: PLC0415, as above
    from operation_service.rows import row  # noqa: PLC0415
    from operation_service.tables import print_operations, write  # noqa: PLC0415

    answers = answers_for(service, descriptor_set) if service.is_json else None
    numbers = [pb.OperationState.Value(f"OPERATION_STATE_{state}") for state in states]
    with service.client() as client:
        found = client.list(project, name_prefix=prefix, states=numbers)
        if answers:
            write(as_json({"operations": [answers.record(record) for record in found]}, indent=2) + "\n")
        elif rows := [row(record) for record in found]:
            print_operations(rows)
        else:
            click.echo("no operations", err=True)


@click.command(
    epilog=f"""\b
Examples:
  operation-service get demo virtual_machines/web-1
  operation-service get demo virtual_machines/web-1 --descriptor-set examples/virtual_machine.binpb
  operation-service get demo virtual_machines/web-1 -o json

{EXIT_CODES}"""
)
@resource_arguments
@descriptor_set_option
@talks_to_the_service
def get(service: Service, project: str, name: str, descriptor_set: tuple[Path, ...]) -> None:
    """Show one operation, with request and log.

    Of the log it shows the newest 100 lines; `logs` shows all.
    """
    from operation_service.record_text import print_record  # noqa: PLC0415, as above
    from operation_service.tables import write  # noqa: PLC0415

    answers = answers_for(service, descriptor_set)
    with service.client() as client:
        record = client.get(project, name)
    if service.is_json:
        write(as_json(answers.record(record), indent=2) + "\n")
    else:
        print_record(record, answers)


@click.command(
    epilog=f"""\b
Examples:
  operation-service logs demo virtual_machines/web-1
  operation-service logs demo virtual_machines/web-1 --follow
  operation-service logs demo virtual_machines/web-1 -o json | jq -r .message

{EXIT_CODES}"""
)
@resource_arguments
@click.option("--follow", "-f", "is_following", is_flag=True, help="Go on with new lines until the operation is over.")
@talks_to_the_service
def logs(service: Service, project: str, name: str, is_following: bool) -> None:
    """Print the log of an operation.

    The oldest line comes first. As JSON, each line is an object of its own.
    """
    from operation_service.answers import plain  # noqa: PLC0415, as above
    from operation_service.following import log_lines  # noqa: PLC0415
    from operation_service.rows import log_line  # noqa: PLC0415
    from operation_service.tables import write  # noqa: PLC0415

    with service.client() as client:
        for log in log_lines(client, project, name, is_following=is_following):
            write((as_json(plain(log)) if service.is_json else log_line(log)) + "\n")


@click.command(
    epilog=f"""\b
Examples:
  operation-service watch
  operation-service watch --project demo --prefix virtual_machines/
  operation-service watch --json | jq -r 'select(.event == "OPERATION_EVENT_OPERATOR_DEAD") | .operation.name'

{EXIT_CODES}"""
)
@_project
@_prefix
@click.option("--json", "is_json", is_flag=True, help="The same as -o json: an object a line.")
@click.option(
    "--start-revision",
    type=click.IntRange(0, _MAX_REVISION),
    default=0,
    metavar="N",
    help="Only changes from this revision on; without it, first what is there.",
)
@descriptor_set_option
@talks_to_the_service
def watch(  # noqa: PLR0917, click calls it with keywords
    service: Service,
    project: str,
    prefix: str,
    is_json: bool,
    start_revision: int,
    descriptor_set: tuple[Path, ...],
) -> None:
    """Tell of every change, until Ctrl-C.

    A live table on a terminal, otherwise a line for each change. After an interruption it goes on by itself; what was
    committed together with the last change may then be told again.
    """
    from operation_service.tables import write  # noqa: PLC0415, as above

    is_json = is_json or service.is_json
    answers = answers_for(service, descriptor_set) if is_json else None
    with service.client() as client:
        if sys.stdout.isatty() and not is_json and not start_revision:
            from operation_service import live  # noqa: PLC0415, as above
            from operation_service.following import changes_to_now  # noqa: PLC0415

            live.show(changes_to_now(client, project, prefix))
            return
        for change in client.watch(project, name_prefix=prefix, start_revision=start_revision):
            write((as_json(answers.event(change)) if answers else _line(change)) + "\n")


def _line(change: "pb.WatchOperationsResponse") -> str:
    from operation_service.rows import event_name, row  # noqa: PLC0415, as above

    cells = row(change.operation)
    resource = f"{cells.project}/{cells.name}"
    return f"{event_name(change.event):<13}  {resource}  {cells.holder}  {cells.last_log}"
