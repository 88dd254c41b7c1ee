"""What the commands have in common: flags that are variables too, and the end of a command that did not work."""

import contextlib
import functools
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeVar

import click

from operation_service.cli_connection import CONNECTION_NAMES, Connection, connection_options
from operation_service.exit_codes import ExitCode, exit_code
from operation_service.terminal_text import as_json, shown

if TYPE_CHECKING:
    from operation_service.client import Client

PROGRAM = "operation-service"
EXIT_CODES = f"""\b
Exit codes: {ExitCode.DONE:d} done, {ExitCode.FAILED:d} refused or failed, {ExitCode.WRONG:d} wrong usage, \
{ExitCode.UNAVAILABLE:d} unavailable, {ExitCode.NOT_FOUND:d} not found,
{ExitCode.HELD:d} held by another, {ExitCode.NOT_HELD:d} not held (any more), {ExitCode.NOT_ALLOWED:d} not allowed, \
{ExitCode.INTERRUPTED:d} Ctrl-C, {ExitCode.READER_GONE:d} nobody reads the output."""

_ADDRESS = re.compile(r"(\[[^\[\]]+\]|[^\[\]:/\s]+):[0-9]{1,5}|(dns|ipv4|ipv6|unix|unix-abstract):\S+")
"""HOST:PORT, or a name that gRPC knows several replicas by."""
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_MAX_SECONDS = 2**32 - 1
"""What fits into a message. The service knows how much of it is too much."""

Command = TypeVar("Command", bound=Callable[..., Any] | click.Command)
Arguments = ParamSpec("Arguments")


def variable(flag: str) -> str:
    """Return the environment variable that a flag may be given as."""
    return f"OPERATION_SERVICE_{flag.removeprefix('--').replace('-', '_').upper()}"


def option(flag: str, help_text: str, *names: str, **more: Any) -> Callable[[Command], Command]:  # noqa: ANN401, click's own
    """Return a flag that may also be given as an environment variable (CONTRACT section 6)."""
    return click.option(
        flag, *names, envvar=variable(flag), show_envvar=True, **({"show_default": True} | more), help=help_text
    )


@dataclass(frozen=True, slots=True)
class Service:
    """The service that a command talks to, and how its answers are shown.

    Attributes:
        address: HOST:PORT.
        timeout_seconds: How long a call may take in all, in seconds.
        is_json: Whether answers are shown as JSON.
        connection: How to connect to it.
    """

    address: str
    timeout_seconds: float
    is_json: bool
    connection: Connection = field(default_factory=Connection)

    def __post_init__(self) -> None:
        if not _ADDRESS.fullmatch(self.address):
            raise click.UsageError(f"--address must be HOST:PORT, and no URL, not {self.address!r}")
        # gRPC's core writes lines of its own to standard error, beside the one that says what is wrong.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")

    def client(self, token: str | None = None) -> "Client":
        """Connect, to be used in a `with`.

        Args:
            token: The peer token. None: one of the process.

        Raises:
            click.UsageError: A file that is needed to connect cannot be used.
        """
        from operation_service.client import Client  # noqa: PLC0415, gRPC takes a while to import

        how = self.connection.client_arguments(self.address)
        return Client(self.address, peer_token=token, timeout=self.timeout_seconds, **how)


class DurationType(click.ParamType[int]):
    """Seconds, or a number with a unit: 90, 90s, 10m, 2h, 1d."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401, click's own
        """Return the seconds."""
        found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", str(value))
        if found is None:
            self.fail(f"{value!r} is neither seconds nor a number with one of the units s, m, h and d", param, ctx)
        seconds = int(found[1]) * _UNITS[found[2]]
        if seconds > _MAX_SECONDS:
            self.fail(f"{value!r} is more than {_MAX_SECONDS} seconds", param, ctx)
        return seconds


DURATION = DurationType()

output_option = option(
    "--output",
    "How answers are shown: for people, or as the JSON that grpcurl prints.",
    "-o",
    type=click.Choice(["table", "json"]),
    default="table",
)


class _SecondsType(click.FloatRange):
    """A time to wait, in seconds: more than 0, up to a day."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True, max=86_400)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401, click's own
        """Return the seconds."""
        seconds = float(super().convert(value, param, ctx))
        # It is neither below nor above anything, and would be waited for without an end.
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


def timeout_option(default: float = 10.0, help_text: str = "") -> Callable[[Command], Command]:
    """Return the flag that says how long an answer is waited for."""
    return click.option(
        "--timeout",
        type=_SecondsType(),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help=help_text or "How long to wait for an answer, attempts after a failure included.",
    )


def talks_to_the_service(
    command: Callable[Concatenate[Service, Arguments], None],
) -> Callable[Arguments, None]:
    """Give a command the flags that say where the service is, and end it with the right exit code."""

    @option("--address", "Where the service listens.", metavar="HOST:PORT", default="127.0.0.1:50051")
    @connection_options(option)
    @timeout_option()
    @output_option
    @functools.wraps(command)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        address, timeout, output = (kwargs.pop(name) for name in ("address", "timeout", "output"))
        connection = Connection.of({name: kwargs.pop(name) for name in CONNECTION_NAMES})
        service = Service(str(address), float(str(timeout)), output == "json", connection)
        with ending(is_json=service.is_json):
            command(service, *args, **kwargs)

    return wrapped


@contextlib.contextmanager
def ending(*, is_json: bool) -> Iterator[None]:
    """Turn what a command may raise into one line on standard error and an exit code.

    Args:
        is_json: Whether that line is JSON.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except OSError as error:
        # What is still in Python's buffer has nowhere to go, and Python would complain about that at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(ExitCode.READER_GONE)
        fail(Failure(ExitCode.FAILED, f"the output cannot be written: {error.strerror or error}", {}), is_json=is_json)
    except click.ClickException:
        raise
    except UnicodeEncodeError as error:
        # Python's stand-in for a byte that is no UTF-8, from the command line or a variable.
        raise click.UsageError(f"{error.object!r} is not UTF-8") from error
    except Exception as error:
        failure = _failure(error)
        if failure is None:
            raise
        fail(failure, is_json=is_json)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command did not do what was asked.

    Attributes:
        code: What to exit with.
        message: For people.
        facts: For programs: what JSON says besides.
    """

    code: ExitCode
    message: str
    facts: dict[str, Any]


def fail(failure: Failure, *, is_json: bool) -> NoReturn:
    """Tell of a failure on standard error, and exit.

    Args:
        failure: What happened.
        is_json: Whether it is told as JSON.
    """
    if is_json:
        click.echo(as_json({"error": {"message": failure.message, **failure.facts}}), err=True)
    else:
        click.echo(f"{PROGRAM}: {shown(' '.join(failure.message.split()))}", err=True)
    sys.exit(failure.code)


def _failure(error: Exception) -> Failure | None:
    from operation_service.client.errors import OperationServiceError  # noqa: PLC0415, only where something failed
    from operation_service.request_text import UnknownTypeError, WrongRequestError  # noqa: PLC0415

    if isinstance(error, UnknownTypeError | WrongRequestError):
        return Failure(ExitCode.WRONG, str(error), {})
    if not isinstance(error, OperationServiceError):
        return None
    facts: dict[str, Any] = {"code": error.code, "reason": error.reason, "metadata": dict(error.facts.metadata)}
    message = error.message
    if error.retry_after is not None:
        facts["retryAfterSeconds"] = error.retry_after
    if error.facts.violations:
        facts["violations"] = [
            {"field": each.field, "description": each.description} for each in error.facts.violations
        ]
    if error.may_have_been_carried_out:
        facts["mayHaveBeenCarriedOut"] = True
    return Failure(exit_code(error.reason, error.code), message, facts)
