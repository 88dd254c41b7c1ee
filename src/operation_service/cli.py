"""The command line."""

import asyncio
import io
import os
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from operation_service import cli_break_lock, cli_changes, cli_completion, cli_reads, cli_serve
from operation_service.cli_connection import TLS_NAMES, Connection, connection_options
from operation_service.cli_options import EXIT_CODES, PROGRAM, option, timeout_option
from operation_service.exit_codes import ExitCode
from operation_service.settings import SettingsError


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"""\b
Examples:
  operation-service serve --listen 127.0.0.1:50051
  operation-service list --state OPERATOR_DEAD
  operation-service get --help

{EXIT_CODES}""",
)
@click.version_option(package_name="n0stack-operation-service", prog_name=PROGRAM)
def cli() -> None:
    """Hand out the right to operate on n0stack's resources."""


@cli.command(
    epilog="""\b
Examples:
  operation-service health
  operation-service health --address 127.0.0.1:6000 --timeout 1
  operation-service health --address operation.example.com:443 --tls"""
)
@option("--address", "Where the service listens. Default: what --listen says.", metavar="HOST:PORT")
@option(
    "--listen",
    "The same, as the service was told: an address that stands for all is asked on loopback.",
    metavar="HOST:PORT",
    default="127.0.0.1:50051",
)
@option(
    "--health-listen",
    "Where the service tells its health alone, without TLS. It is asked there if nothing else is named.",
    metavar="HOST:PORT",
)
@connection_options(option, has_token=False)
@timeout_option(3.0, "How long to wait for the answer.")
@click.pass_context
def health(ctx: click.Context, /, *, timeout: float, **given: Any) -> None:  # noqa: ANN401, what click has made of each
    """Ask a service whether it serves.

    Exits with 0 if it does, else with 1.
    """
    from operation_service.health_check import check_health  # noqa: PLC0415, as above

    said = {name: ctx.get_parameter_source(name) for name, value in given.items() if value}
    where = _asked_for_health(said)
    # Where the health alone is told, there is no TLS.
    tls = None if where == "health_listen" else Connection.of(given).tls()
    try:
        answer = asyncio.run(check_health(given[where], timeout, tls))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(answer.reason)
    sys.exit(0 if answer.is_serving else 1)


_WHERE = ("address", "health_listen", "listen")
"""In this order, if several are said alike."""


def _asked_for_health(said: dict[str, ParameterSource | None]) -> str:
    """Return which of the addresses is asked: a flag wins over a variable, whichever they are.

    Args:
        said: Where each flag that has a value has it from.
    """
    is_about_tls = any(said.get(name) is ParameterSource.COMMANDLINE for name in TLS_NAMES)
    for source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
        for name in _WHERE:
            if said.get(name) is source and not (name == "health_listen" and is_about_tls):
                return name
    return "listen"


for _command in (
    cli_serve.serve,
    *(cli_reads.list_operations, cli_reads.get, cli_reads.watch, cli_reads.logs),
    *(cli_changes.create, cli_changes.propose, cli_changes.append, cli_changes.complete, cli_changes.cancel),
    *(cli_break_lock.break_lock, cli_completion.completion),
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line: what is wrong is told in one line, with exit code 2."""
    for name in ("stdout", "stderr"):
        # Closed by whoever started this: there is nobody to tell anything.
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115, to the end of the process
    for stream in (sys.stdout, sys.stderr):
        # JSON is UTF-8 everywhere, and what others have written must not end a command in another locale.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")
    try:
        cli.main(prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(ExitCode.WRONG)
    except click.ClickException as error:
        _end(error.format_message())
    except SettingsError as error:
        _end(str(error))
    except click.exceptions.Abort as error:
        # Ctrl-C; or, at a question, the end of the input.
        sys.exit(ExitCode.INTERRUPTED if isinstance(error.__context__, KeyboardInterrupt) else ExitCode.FAILED)


def _end(message: str) -> None:
    line = " ".join(message.split())
    click.echo(f"{PROGRAM}: {line}", err=True)
    sys.exit(ExitCode.WRONG)
