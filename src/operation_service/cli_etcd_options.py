"""How a command shows etcd who it is: flags that are the same for all who talk to etcd."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from operation_service.cli_options import option
from operation_service.settings_tls import EtcdAccess

_FILE = click.Path(path_type=Path)

Command = TypeVar("Command", bound=Callable[..., Any] | click.Command)


def etcd_access_options(command: Command) -> Command:
    """Give a command the flags."""
    for add in reversed(
        (
            option(
                "--etcd-ca",
                "The CAs of etcd's certificates, as PEM. Default: this machine's.",
                metavar="FILE",
                type=_FILE,
            ),
            option("--etcd-cert", "The service's certificate towards etcd, as PEM.", metavar="FILE", type=_FILE),
            option("--etcd-key", "That certificate's private key, as PEM.", metavar="FILE", type=_FILE),
            option("--etcd-user", "The user of etcd that the service is.", metavar="NAME"),
            option(
                "--etcd-password-file",
                "A file with that user's password, in its first line.",
                metavar="FILE",
                type=_FILE,
            ),
        )
    ):
        command = add(command)
    return command


def etcd_access_of(given: Mapping[str, Any]) -> EtcdAccess:
    """Return what the flags say.

    Raises:
        SettingsError: They do not go together.
    """
    return EtcdAccess(
        ca=given["etcd_ca"],
        cert=given["etcd_cert"],
        key=given["etcd_key"],
        user=given["etcd_user"],
        password_file=given["etcd_password_file"],
    )
