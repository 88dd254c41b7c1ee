"""The command break-lock: past the service, with a question in between."""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

from operation_service.cli_completion import resource_arguments
from operation_service.cli_etcd_options import etcd_access_of, etcd_access_options
from operation_service.cli_options import (
    EXIT_CODES,
    Failure,
    ending,
    fail,
    option,
    output_option,
    timeout_option,
)
from operation_service.exit_codes import ExitCode
from operation_service.people import user_at_host
from operation_service.settings import Settings, SettingsError, parse_endpoints
from operation_service.terminal_text import as_json, shown

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from operation_service.break_lock import LockBreaker, Shown
    from operation_service.errors import StoreUnavailableError
    from operation_service.model import Resource, View

Found = TypeVar("Found")


@click.command(
    name="break-lock",
    epilog=f"""\b
Examples:
  operation-service break-lock demo networks/lan --etcd-endpoints http://127.0.0.1:2379 \\
    --reason "web-7 has burnt down"
  operation-service break-lock demo networks/lan --etcd-endpoints http://127.0.0.1:2379 \\
    --reason "web-7 has burnt down" --yes

{EXIT_CODES}""",
)
@resource_arguments
@option("--etcd-endpoints", "The etcd that holds all state.", metavar="URL,URL…", required=True)
@etcd_access_options
@option("--key-prefix", "What all keys in etcd begin with.", default="/n0stack/operation/")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it stands in the operation's log, with your name.")
@click.option("--yes", "is_confirmed", is_flag=True, help="Do not ask.")
@timeout_option()
@output_option
def break_lock(  # noqa: PLR0917, click calls it with keywords
    project: str,
    name: str,
    etcd_endpoints: str,
    key_prefix: str,
    reason: str,
    is_confirmed: bool,
    timeout: float,
    output: str,
    **access: Any,  # noqa: ANN401, what click has made of each flag
) -> None:
    """Take a resource away from its holder.

    By way of etcd, for when nobody can wait for the lock to run out.

    Shows who holds it, and asks. Be sure that the holder is really gone: nothing can stop one that still works. The
    operation is then EXPIRED or OPERATOR_DEAD, its log says who broke the lock and why, and whoever proposes next takes
    it over; the old holder's calls to go on with it are refused. If the operation changes between the look and the
    answer, nothing is done.
    """
    # Settings knows what endpoints and prefixes may be.
    endpoints = parse_endpoints(etcd_endpoints)
    if not endpoints:
        raise SettingsError("--etcd-endpoints must not be empty: an embedded etcd's URL stands in the serving line")
    settings = Settings(etcd_endpoints=endpoints, etcd_access=etcd_access_of(access), key_prefix=key_prefix)
    with ending(is_json=output == "json"):
        _Breaking(settings, timeout, is_json=output == "json").run(project, name, reason, is_confirmed=is_confirmed)


class _Breaking:
    def __init__(self, settings: Settings, timeout: float, *, is_json: bool) -> None:
        self._settings = settings
        self._timeout = timeout
        self._is_json = is_json

    def run(self, project: str, name: str, reason: str, *, is_confirmed: bool) -> None:
        resource = self._valid(project, name)
        held = self._asked(resource, self._look(resource))
        message = self._message(held, reason)
        if not is_confirmed:
            self._confirm(held)
        view = self._asked(resource, self._break(held, message))
        self._tell(view)

    def _valid(self, project: str, name: str) -> "Resource":
        from operation_service.errors import InvalidRequestError  # noqa: PLC0415, what takes a while to import
        from operation_service.validation import Validator  # noqa: PLC0415

        validator = Validator()
        resource = validator.resource(project, name)
        try:
            validator.finish()
        except InvalidRequestError as error:
            raise click.UsageError(error.message) from error
        return resource

    def _message(self, held: "Shown", reason: str) -> str:
        from operation_service.validation import MAX_LOG_MESSAGE_BYTES  # noqa: PLC0415, as above

        message = f"the lock of {held.lock.holder} was broken by {user_at_host()}: {reason}"
        if not reason.strip() or len(message.encode()) > MAX_LOG_MESSAGE_BYTES:
            raise click.UsageError(
                f"--reason must not be empty, and the log's line not above {MAX_LOG_MESSAGE_BYTES} bytes"
            )
        return message

    def _confirm(self, held: "Shown") -> None:
        from operation_service.record_text import facts  # noqa: PLC0415, as above
        from operation_service.render import operation_record  # noqa: PLC0415
        from operation_service.rows import log_line  # noqa: PLC0415

        record = operation_record(held.view)
        lines = [*facts(record), *(("last log", log_line(log)) for log in record.operation.logs[-1:])]
        # Beside the question, so that standard output has the answer alone.
        click.echo("".join(f"{name:<15}{value}\n" for name, value in lines), err=True)
        if not _is_confirmed(f"Break the lock of {shown(held.lock.holder)}? Is it really gone?"):
            fail(Failure(ExitCode.FAILED, "not confirmed: nothing was done", {}), is_json=self._is_json)

    def _tell(self, view: "View") -> None:
        from operation_service.render import operation_record  # noqa: PLC0415, as above
        from operation_service.tables import write  # noqa: PLC0415

        record = operation_record(view)
        if self._is_json:
            from operation_service.answers import Answers  # noqa: PLC0415
            from operation_service.request_text import RequestText  # noqa: PLC0415

            write(as_json(Answers(RequestText()).record(record), indent=2) + "\n")
        else:
            write(f"the lock is broken: the operation on {view.resource} is {view.state}\n")

    def _breaker(self) -> "AbstractAsyncContextManager[LockBreaker]":
        from operation_service.break_lock import lock_breaker  # noqa: PLC0415, as above

        settings = self._settings
        return lock_breaker(settings.etcd_endpoints, settings.key_prefix, settings.etcd_access)

    async def _look(self, resource: "Resource") -> "Shown":
        from operation_service.clock import Deadline  # noqa: PLC0415

        async with self._breaker() as breaker:
            return await breaker.look(resource, Deadline(self._timeout))

    async def _break(self, held: "Shown", message: str) -> "View":
        from operation_service.clock import Deadline  # noqa: PLC0415

        # A connection of its own: the person may have thought for an hour.
        async with self._breaker() as breaker:
            return await breaker.break_lock(held, message, Deadline(self._timeout))

    def _asked(self, resource: "Resource", answer: Coroutine[Any, Any, Found]) -> Found:  # noqa: RET503, `fail` ends it
        from operation_service import errors  # noqa: PLC0415, as above
        from operation_service.break_lock import LockChangedError, NoOperationError  # noqa: PLC0415

        try:
            return asyncio.run(answer)
        except LockChangedError as error:
            failure = Failure(ExitCode.NOT_HELD, str(error), {})
        except NoOperationError as error:
            failure = Failure(ExitCode.FAILED, str(error), {})
        except errors.NotFoundError as error:
            failure = Failure(ExitCode.NOT_FOUND, error.message, {})
        except errors.NotLockedError as error:
            message = f"{resource} is not locked ({error.metadata['state']}): there is no lock to break"
            failure = Failure(ExitCode.NOT_HELD, message, {})
        except errors.LayoutError as error:
            failure = Failure(ExitCode.FAILED, f"{error.why}: nothing was done", {})
        except errors.StoreUnavailableError as error:
            failure = _unavailable(error)
        except errors.StoreOutOfSpaceError as error:
            failure = Failure(ExitCode.UNAVAILABLE, error.message, {})
        except errors.OperationError as error:
            failure = Failure(ExitCode.FAILED, error.message, {})
        fail(failure, is_json=self._is_json)


def _is_confirmed(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise
        # The end of the input is no yes. It leaves the line of the question open.
        click.echo(err=True)
        return False


def _unavailable(error: "StoreUnavailableError") -> Failure:
    from operation_service.errors import Fault  # noqa: PLC0415, what takes a while to import

    if error.fault is not None and not error.is_outcome_unknown:
        # As by way of the service: who is not let in is told so, and without a connection nobody has answered.
        code = ExitCode.NOT_ALLOWED if error.fault is Fault.USER else ExitCode.UNAVAILABLE
        return Failure(code, f"etcd cannot be used, and nothing was done: {error.why}", {})
    if not error.is_outcome_unknown:
        return Failure(ExitCode.UNAVAILABLE, f"etcd is not available ({error.why}): nothing was done; try again", {})
    message = f"etcd is not available ({error.why}): the lock may or may not be broken; look at it before you go on"
    return Failure(ExitCode.UNAVAILABLE, message, {"mayHaveBeenCarriedOut": True})
