"""The command line as data: examples, exit codes, and what is imported when."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.break_lock import LockBreaker
from operation_service.cli import cli
from operation_service.cli_options import ending
from operation_service.client import UnavailableError
from operation_service.errors import StoreUnavailableError
from operation_service.exit_codes import ExitCode, exit_code
from operation_service.people import terminal_token

COMMANDS = sorted(cli.commands)


def examples(command: click.Command) -> list[list[str]]:
    """The commands in the epilog that are this program's."""
    text = re.sub(r"\\\n\s*", "", command.epilog or "")
    lines = [line.strip() for line in text.splitlines() if line.startswith("  operation-service")]
    found = []
    for line in lines:
        words = shlex.split(re.split(r" [|>] | {2,}\(", line)[0])
        found.append(words[1:])
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_that_it_takes(name: str) -> None:
    command = cli.commands[name]
    assert examples(command), "it has none"
    for program_name, *words in examples(command):
        assert program_name == name
        command.make_context(name, words)


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"serve", "health", "completion"}))
def test_every_command_for_operators_tells_its_exit_codes(name: str) -> None:
    assert all(f"{code:d} " in (cli.commands[name].epilog or "") for code in ExitCode)


def test_every_reason_that_the_service_gives_has_an_exit_code() -> None:
    reasons = [name.removeprefix("ERROR_REASON_") for name, number in pb.ErrorReason.items() if number]
    assert {reason: exit_code(reason, "") for reason in reasons} == {
        "INVALID_ARGUMENT": 2,
        "NOT_FOUND": 4,
        "LOCKED": 5,
        "TOKEN_MISMATCH": 5,
        "NOT_LOCKED": 6,
        "CANCEL_DISABLED": 5,
        "OPERATION_CANCELLED": 6,
        "OPERATION_OVER": 1,
        "ALREADY_EXISTS": 1,
        "FENCING_TOKEN_MISMATCH": 6,
        "CONTENTION": 3,
        "ETCD_UNAVAILABLE": 3,
        "ETCD_OUT_OF_SPACE": 3,
        "REVISION_COMPACTED": 1,
        "REVISION_IN_FUTURE": 1,
        "PAGE_TOKEN_EXPIRED": 1,
        "WATCHER_TOO_SLOW": 3,
        "WATCH_INTERRUPTED": 3,
        "CORRUPT_RECORD": 1,
        "UNFORESEEN": 1,
        "OVERLOADED": 3,
        "TOO_MANY_WATCHES": 3,
        "IDENTITY_REQUIRED": 7,
        "BEARER_TOKEN_INVALID": 7,
        "BEARER_TOKEN_EXPIRED": 7,
        "ROLE_REQUIRED": 7,
    }


def test_the_page_has_the_same_exit_codes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    rows = re.findall(r"^\| (\d+) \| .* \| ([A-Z_, ]*)\|$", page, re.MULTILINE)
    assert [int(code) for code, _ in rows] == list(ExitCode)
    told = {reason: int(code) for code, reasons in rows for reason in reasons.replace(",", " ").split()}
    reasons = [name.removeprefix("ERROR_REASON_") for name, number in pb.ErrorReason.items() if number]
    assert told == {reason: exit_code(reason, "") for reason in reasons}


def test_an_error_that_grpc_itself_makes_is_told_by_its_code() -> None:
    assert exit_code("", "UNAVAILABLE") == exit_code("", "DEADLINE_EXCEEDED") == ExitCode.UNAVAILABLE
    assert exit_code("", "UNIMPLEMENTED") == ExitCode.FAILED


def test_the_server_and_the_health_check_import_nothing_that_only_operators_need() -> None:
    script = (
        "import sys, operation_service.cli, operation_service.server, operation_service.health_check\n"
        "print([m for m in sys.modules if m.split('.')[0] == 'rich' or m.startswith('operation_service.client')])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"[]\n"


def test_help_and_wrong_flags_do_not_wait_for_grpc() -> None:
    script = "import sys, operation_service.cli; print('grpc' in sys.modules, 'google' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"False False\n"


@pytest.mark.parametrize(
    "words",
    [
        ["list", "--project", "\udcff"],
        ["get", "demo", "\udcff"],
        ["propose", "demo", "networks/lan", "--lock-for", "1m", "--log", "\udcff"],
        ["propose", "demo", "networks/lan", "--lock-for", "999999999d"],
        ["watch", "--start-revision", str(2**63)],
        ["create", "demo", "networks/lan", "--request", "[" * 100_000],
        ["break-lock", "demo", "networks/lan", "--etcd-endpoints", "http://127.0.0.1:1", "--reason", "\udcff"],
    ],
    ids=["project", "name", "log", "duration", "revision", "request", "reason"],
)
def test_what_no_message_can_carry_is_wrong_usage(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(*_: object) -> object:
        return SimpleNamespace(lock=SimpleNamespace(holder="192.0.2.1:1"))

    monkeypatch.setattr(LockBreaker, "look", look)
    result = CliRunner().invoke(cli, [*words, "--timeout", "0.1"])
    assert (result.exit_code, result.stdout) == (ExitCode.WRONG, "")
    assert "Error: " in result.stderr


@pytest.mark.parametrize(("flags", "told"), [((), "look at it"), (("-o", "json"), '"mayHaveBeenCarriedOut": true')])
def test_whoever_breaks_a_lock_is_told_when_nobody_knows_whether_it_is_broken(
    flags: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: object) -> None:
        raise StoreUnavailableError("its answer was lost", is_outcome_unknown=True)

    monkeypatch.setattr(LockBreaker, "look", lost)
    words = ["break-lock", "demo", "lan", "--etcd-endpoints", "http://127.0.0.1:1", "--reason", "gone", "--yes"]
    result = CliRunner().invoke(cli, [*words, *flags])
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "the lock may or may not be broken" in result.stderr
    assert told in result.stderr


def test_the_token_of_a_terminal_is_another_one_in_each_session_and_the_same_within_it() -> None:
    script = "from operation_service.people import terminal_token; print(terminal_token())"
    command = [sys.executable, "-c", script]
    here = subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    elsewhere = subprocess.run(
        command, capture_output=True, check=True, text=True, start_new_session=True
    ).stdout.strip()
    assert here == terminal_token()
    assert elsewhere != here
    assert here.isprintable()
    assert len(here) <= 256


def test_json_says_that_a_change_may_have_been_made(capsys: pytest.CaptureFixture[str]) -> None:
    error = UnavailableError("no answer")
    error.may_have_been_carried_out = True
    with pytest.raises(SystemExit), ending(is_json=True):
        raise error
    assert json.loads(capsys.readouterr().err)["error"]["mayHaveBeenCarriedOut"] is True
