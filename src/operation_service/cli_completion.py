"""Shell completion: click's scripts, and what they may complete that only a running service knows."""

import contextlib
import os
from collections.abc import Callable
from typing import TypeVar

import click
from click.shell_completion import CompletionItem, get_completion_class

from operation_service.cli_connection import completing
from operation_service.cli_options import PROGRAM, Command, Service

_SECONDS = 2.0
"""Somebody waits, with a finger on the key."""
_MOST = 200
_VARIABLE = "_OPERATION_SERVICE_COMPLETE"

Found = TypeVar("Found")


@click.command(
    epilog="""\b
Examples:
  operation-service completion bash > ~/.local/share/bash-completion/completions/operation-service
  operation-service completion zsh > ~/.zfunc/_operation-service
  operation-service completion fish > ~/.config/fish/completions/operation-service.fish"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script for the shell's Tab key.

    It completes commands, flags and states, and asks the service for projects and names.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(kind(ctx.find_root().command, {}, PROGRAM, _VARIABLE).source())


def resource_arguments(command: Command) -> Command:
    """Give a command the arguments PROJECT and NAME."""
    named = click.argument("name", shell_complete=_names)(command)
    return click.argument("project", shell_complete=projects)(named)


def projects(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the projects that the service knows of."""

    def found(service: Service) -> list[str]:
        with service.client() as client:
            return sorted({record.project for record in client.list()})

    return _items(_asked(ctx, found), incomplete)


def _names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    project = str(ctx.params.get("project") or "")

    def found(service: Service) -> list[str]:
        with service.client() as client:
            return [record.name for record in client.list(project, name_prefix=incomplete)]

    return _items(_asked(ctx, found), incomplete) if project else []


def _asked(ctx: click.Context, ask: Callable[[Service], list[str]]) -> list[str]:
    # Whatever is wrong: a key that completes nothing says so well enough, and a traceback would spoil the line.
    with contextlib.suppress(Exception):
        said = ctx.params.get("address") or os.environ.get("OPERATION_SERVICE_ADDRESS")
        return ask(Service(said or "127.0.0.1:50051", _SECONDS, is_json=False, connection=completing(ctx.params)))
    return []


def _items(words: list[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete) and word.isprintable()][:_MOST]
