"""`operation-service list`, `get`, `propose` and so on, as an operator types them, against a real service."""

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from e2e.support_e2e import DESCRIPTOR_SET, PROGRAM, Finished, Serve, Server, environment, run
from support import Peer, connected, shutdown_request

NAME = "virtual_machines/web-1"
SHUTDOWN = {
    "@type": "type.googleapis.com/n0stack.infra.v1alpha.ShutdownVirtualMachineRequest",
    "name": "web-1",
    "project": "project",
    "hard": True,
}
Cli = Callable[..., Awaitable[Finished]]


@pytest.fixture
async def server(etcd: str, serve: Serve, settings: Any) -> Server:
    return await serve("--etcd-endpoints", etcd, "--key-prefix", settings.key_prefix)


@pytest.fixture
async def peer(server: Server) -> AsyncIterator[Peer]:
    async with connected(server.address) as peer:
        yield peer


@pytest.fixture
def cli(server: Server) -> Cli:
    """Run the program, and expect an exit code."""

    async def call(*words: str | Path, code: int = 0, **variables: str) -> Finished:
        finished = await run(PROGRAM, *words, OPERATION_SERVICE_ADDRESS=server.address, **variables)
        assert finished.code == code, finished
        assert "Traceback" not in finished.err
        return finished

    return call


_started: list[asyncio.subprocess.Process] = []


@pytest.fixture(autouse=True)
async def _ended() -> AsyncIterator[None]:
    """Leave no command behind, also of a test that fails."""
    yield
    while _started:
        process = _started.pop()
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def started(server: Server, *words: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        str(PROGRAM),
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(OPERATION_SERVICE_ADDRESS=server.address),
    )
    _started.append(process)
    return process


async def a_line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode()


# --- looking


async def test_list_shows_who_holds_what(cli: Cli, peer: Peer) -> None:
    assert (await cli("list")).err == "no operations\n"
    await peer.create()
    await peer.propose("networks/lan", lock_for_seconds=600, log_message="changing\nthe \x1b[31mMTU")
    header, held, pending = (await cli("list")).out.splitlines()
    assert re.split(r"  +", header) == ["PROJECT", "NAME", "STATE", "HOLDER", "HELD SINCE", "REMAINING", "LAST LOG"]
    assert re.fullmatch(
        r"project +networks/lan +LOCKED +127\.0\.0\.1:\d+ +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ +(10m00s|9m5\ds) +"
        r"changing\\nthe \\x1b\[31mMTU",
        held,
    )
    assert pending.split()[:3] == ["project", NAME, "PENDING"]


async def test_list_takes_states_a_project_and_a_prefix(cli: Cli, peer: Peer) -> None:
    await peer.propose()
    await peer.propose("networks/lan")
    await peer.create("pending", project="other")

    async def names(*flags: str) -> list[str]:
        found = json.loads((await cli("list", "-o", "json", *flags)).out)
        return [operation["name"] for operation in found["operations"]]

    assert await names() == ["pending", "networks/lan", NAME]
    assert await names("--state", "LOCKED") == ["networks/lan", NAME]
    assert await names("--state", "PENDING", "--state", "LOCKED") == ["pending", "networks/lan", NAME]
    assert await names("--project", "other") == ["pending"]
    assert await names("--project", "project", "--prefix", "net") == ["networks/lan"]
    assert await names("--state", "FAILED") == []


async def test_json_is_what_grpcurl_prints(cli: Cli, peer: Peer) -> None:
    await peer.create()
    await peer.propose(lock_for_seconds=600, is_disabled_cancel=True, log_message="停止中")
    got = json.loads((await cli("get", "project", NAME, "-o", "json", "--descriptor-set", DESCRIPTOR_SET)).out)
    assert got["operation"]["operationRequest"] == SHUTDOWN
    assert got["state"] == "OPERATION_STATE_LOCKED"
    assert got["fencingToken"] == str(peer.fencing_token)
    assert got["operation"]["isDisabledCancel"] is True
    assert [log["message"] for log in got["operation"]["logs"]] == ["停止中"]
    assert got.keys() >= {"project", "name", "revision", "holder", "lockedSince", "remaining"}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
async def test_what_others_have_written_is_shown_in_utf_8_whatever_the_locale(
    cli: Cli, peer: Peer, encoding: str
) -> None:
    await peer.propose(lock_for_seconds=600, log_message="停止中 ü")
    (line,) = (await cli("logs", "project", NAME, PYTHONIOENCODING=encoding)).out.splitlines()
    assert line.endswith("  停止中 ü")
    refusal = await cli(
        *("propose", "project", NAME, "--lock-for", "60", "--token", "another", "-o", "json"),
        code=5,
        PYTHONIOENCODING=encoding,
    )
    assert json.loads(refusal.err)["error"]["metadata"]["last_log"] == "停止中 ü"


async def test_get_shows_request_and_log(cli: Cli, peer: Peer) -> None:
    await peer.create(log_message="asked for")
    await peer.propose(log_message="stopping\x07")
    shown = (await cli("get", "project", NAME, OPERATION_SERVICE_DESCRIPTOR_SET=str(DESCRIPTOR_SET))).out
    facts = dict(re.findall(r"^(\S+(?: \S+)*)  +(\S.*)$", shown.partition("request\n")[0], re.MULTILINE))
    assert facts["state"] == "LOCKED"
    assert facts["token"] == peer.token
    assert facts["fencing token"] == str(peer.fencing_token)
    request, _, log = shown.partition("request\n")[2].partition("log\n")
    assert json.loads(request) == SHUTDOWN
    assert [line.split("  ")[-1] for line in log.splitlines()] == ["asked for", r"stopping\x07"]


async def test_the_service_s_reflection_is_asked_for_types_too(
    etcd: str, serve: Serve, settings: Any, peer: Peer, cli: Cli
) -> None:
    await peer.create()
    unknown = json.loads((await cli("get", "project", NAME, "-o", "json")).out)
    assert unknown["operation"]["operationRequest"].keys() == {"@type", "@error", "@value"}
    knowing = await serve(
        "--etcd-endpoints", etcd, "--key-prefix", settings.key_prefix, "--descriptor-set", DESCRIPTOR_SET
    )
    known = await cli("get", "project", NAME, "-o", "json", "--address", knowing.address)
    assert json.loads(known.out)["operation"]["operationRequest"] == SHUTDOWN


async def test_logs_prints_all_of_them(cli: Cli, peer: Peer) -> None:
    await peer.propose()
    for number in range(120):
        await peer.append(f"line {number}")
    out = (await cli("logs", "project", NAME)).out
    assert [line.split("  ")[1] for line in out.splitlines()] == [f"line {number}" for number in range(120)]
    first = json.loads((await cli("logs", "project", NAME, "-o", "json")).out.splitlines()[0])
    assert first["message"] == "line 0"


async def test_logs_follow_until_the_operation_is_over(server: Server, peer: Peer) -> None:
    await peer.propose(log_message="one")
    await peer.propose(f"{NAME}0", log_message="not this one")
    process = await started(server, "logs", "project", NAME, "--follow")
    assert "one" in await a_line(process)
    await peer.append("two")
    assert "two" in await a_line(process)
    await peer.propose()
    await peer.append("not this one", f"{NAME}0")
    await peer.complete(log_message="done")
    assert "done" in await a_line(process)
    assert await process.wait() == 0


async def test_watch_prints_a_line_for_each_change(server: Server, peer: Peer) -> None:
    await peer.create()
    process = await started(server, "watch", "--project", "project", "--prefix", "virtual")
    assert re.fullmatch(rf"CREATED +project/{NAME}  127\.0\.0\.1:\d+  -\n", await a_line(process))
    await peer.propose("networks/lan")
    await peer.propose(log_message="stopping")
    assert re.fullmatch(rf"LOCKED +project/{NAME}  127\.0\.0\.1:\d+  stopping\n", await a_line(process))
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"")


async def test_watch_as_json_is_an_object_a_line(server: Server, peer: Peer) -> None:
    await peer.propose()
    process = await started(server, "watch", "--json")
    assert json.loads(await a_line(process))["event"] == "OPERATION_EVENT_LOCKED"
    await peer.append()
    told = json.loads(await a_line(process))
    assert told["event"] == "OPERATION_EVENT_LOGGED"
    assert told["operation"]["name"] == NAME
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130
    missed = await started(server, "watch", "-o", "json", "--start-revision", told["revision"])
    assert json.loads(await a_line(missed)) == told
    missed.send_signal(signal.SIGINT)
    await missed.communicate()


# --- changing


async def test_a_person_takes_a_resource_works_on_it_and_gives_it_back(cli: Cli, peer: Peer) -> None:
    proposed = json.loads(
        (await cli("propose", "project", NAME, "--lock-for", "10m", "--log", "mine", "-o", "json")).out
    )
    token, fencing_token = proposed["operation"]["proposingPeerToken"], proposed["fencingToken"]
    assert 598 < (await peer.get()).remaining.seconds + 1 <= 601
    await cli("append", "project", NAME, "a step")
    await cli("append", "project", NAME, "another", "--token", token, "--fencing-token", fencing_token)
    await cli("propose", "project", NAME, "--lock-for", "60", "--fencing-token", fencing_token)
    await cli("complete", "project", NAME, "--log", "done")
    record = await peer.get()
    assert await peer.state() == "SUCCEEDED"
    assert [log.message for log in record.operation.logs] == ["mine", "a step", "another", "done"]


async def test_propose_prints_the_tokens_that_go_with_the_lock(cli: Cli) -> None:
    out = (await cli("propose", "project", NAME, "--lock-for", "30", "--token", "mine")).out
    assert re.fullmatch(
        rf"project/{NAME} is locked until \S+Z\ntoken          mine\nfencing token  \d+\n",
        out,
    )


async def test_a_token_may_be_a_variable(cli: Cli, peer: Peer) -> None:
    await peer.propose()
    await cli("append", "project", NAME, "a step", OPERATION_SERVICE_TOKEN=peer.token)
    await cli("append", "project", NAME, "a step", "--token", "other", OPERATION_SERVICE_TOKEN=peer.token, code=5)


async def test_another_terminal_of_the_same_person_is_another_peer(cli: Cli, server: Server) -> None:
    await cli("propose", "project", NAME, "--lock-for", "30")
    elsewhere = await asyncio.create_subprocess_exec(
        *(PROGRAM, "propose", "project", NAME, "--lock-for", "30"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(OPERATION_SERVICE_ADDRESS=server.address),
        start_new_session=True,
    )
    _, err = await elsewhere.communicate()
    assert elsewhere.returncode == 5, err


async def test_a_descriptor_set_that_is_none_is_found_before_anything_is_changed(cli: Cli, peer: Peer) -> None:
    await peer.propose()
    await cli("append", "project", NAME, "x", "--token", peer.token, "--descriptor-set", "/no/such/file", code=2)
    assert not (await peer.get()).operation.logs


async def test_an_operation_that_went_wrong_says_how(cli: Cli, peer: Peer) -> None:
    await cli("propose", "project", NAME, "--lock-for", "30")
    await cli("complete", "project", NAME, "--error", "the disk is full", "--code", "RESOURCE_EXHAUSTED")
    assert await peer.state() == "FAILED"
    assert "error          RESOURCE_EXHAUSTED: the disk is full\n" in (await cli("get", "project", NAME)).out
    await cli("propose", "project", "b", "--lock-for", "30")
    await cli("complete", "project", "b", "--error", "who knows")
    assert json.loads((await cli("get", "project", "b", "-o", "json")).out)["error"] == {
        "code": 2,
        "message": "who knows",
    }


async def test_create_takes_a_request_as_json(cli: Cli, peer: Peer, tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps(SHUTDOWN))
    await cli("create", "project", NAME, "--request", f"@{file}", "--descriptor-set", DESCRIPTOR_SET, "--log", "please")
    record = await peer.get()
    assert record.operation.operation_request == shutdown_request()
    assert await peer.state() == "PENDING"
    await cli("cancel", "project", NAME)
    assert await peer.state() == "CANCELLED"


@pytest.mark.parametrize("request_text", ["nonsense", "[]", "{}", '{"@type": "a.B"}', "@/no/such/file", '{"@type": 1}'])
async def test_a_request_that_is_none_is_told_in_one_line(cli: Cli, request_text: str) -> None:
    (line,) = (await cli("create", "project", NAME, "--request", request_text, code=2)).err_lines
    assert line.startswith("operation-service: ")


# --- what went wrong


async def test_exit_codes_tell_what_went_wrong(cli: Cli, peer: Peer) -> None:
    await cli("get", "project", NAME, code=4)
    await cli("logs", "project", NAME, "--follow", code=4)
    await cli("get", "project", "no//name", code=2)
    await cli("append", "project", NAME, "x", code=4)
    await peer.propose(lock_for_seconds=600, is_disabled_cancel=True)
    await cli("propose", "project", NAME, "--lock-for", "30", code=5)
    await cli("cancel", "project", NAME, code=5)
    await cli("cancel", "project", NAME, "--token", peer.token, code=5)
    await cli("append", "project", NAME, "x", "--token", peer.token, "--fencing-token", "1", code=6)
    await peer.complete()
    await cli("complete", "project", NAME, code=6)
    await cli("cancel", "project", NAME, code=1)
    await peer.create("pending")
    await cli("create", "project", "pending", code=1)
    await cli("list", "--address", "127.0.0.1:1", "--timeout", "1", code=3)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("list", "--state", "ASLEEP"), "--state"),
        (("list", "--timeout", "0"), "--timeout"),
        (("list", "--timeout", "nan"), "--timeout"),
        (("health", "--timeout", "nan"), "--timeout"),
        (("list", "--address", "http://127.0.0.1:50051"), "--address"),
        (("list", "--address", "127.0.0.1"), "--address"),
        (("list", "--address", ""), "--address"),
        (("list", "-o", "yaml"), "--output"),
        (("get", "project"), "NAME"),
        (("get", "project", "a", "--descriptor-set", "/no/such/file"), "/no/such/file"),
        (("propose", "project", "a"), "--lock-for"),
        (("propose", "project", "a", "--lock-for", "soon"), "soon"),
        (("propose", "project", "a", "--lock-for", "9", "--fencing-token", "x"), "--fencing-token"),
        (("complete", "project", "a", "--code", "INTERNAL"), "--code"),
        (("complete", "project", "a", "--error", "x", "--code", "OK"), "--code"),
        (("completion", "tcsh"), "tcsh"),
    ],
    ids=str,
)
async def test_a_wrong_command_line_is_told_in_one_line(cli: Cli, words: tuple[str, ...], named: str) -> None:
    (line,) = (await cli(*words, code=2)).err_lines
    assert named in line


async def test_with_json_an_error_is_json_too(cli: Cli, peer: Peer) -> None:
    await peer.propose(lock_for_seconds=600, log_message="working")
    refused = await cli("propose", "project", NAME, "--lock-for", "30", "-o", "json", code=5)
    assert refused.out == ""
    error = json.loads(refused.err)["error"]
    assert (error["code"], error["reason"]) == ("FAILED_PRECONDITION", "LOCKED")
    assert error["metadata"]["last_log"] == "working"
    assert 590 < error["retryAfterSeconds"] <= 600


@pytest.mark.parametrize(("output", "code"), [("> /dev/full", 1), (">&-", 0)], ids=["a full disk", "closed"])
async def test_an_output_that_takes_nothing_is_told_in_one_line(
    output: str, code: int, server: Server, peer: Peer
) -> None:
    await peer.propose()
    finished = await run("sh", "-c", f'"{PROGRAM}" list {output}', OPERATION_SERVICE_ADDRESS=server.address)
    assert (finished.code, len(finished.err_lines)) == (code, code), finished.err


async def test_a_reader_that_goes_away_ends_it_without_a_word(server: Server, peer: Peer) -> None:
    await peer.propose()
    read, write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(PROGRAM, "watch", "--json"),
        stdout=write,
        stderr=asyncio.subprocess.PIPE,
        env=environment(OPERATION_SERVICE_ADDRESS=server.address),
    )
    _started.append(process)
    os.close(write)
    assert b"LOCKED" in await asyncio.to_thread(os.read, read, 65_536)
    os.close(read)
    await peer.append()
    _, err = await process.communicate()
    assert (process.returncode, err) == (141, b"")


# --- at a terminal


async def at_a_terminal(server: Server, *words: str, columns: int = 150, **variables: str) -> str:
    """Run the program at a terminal; return what it draws there."""
    leader, follower = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        str(PROGRAM),
        *words,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment(
            OPERATION_SERVICE_ADDRESS=server.address, TERM="xterm", COLUMNS=str(columns), LINES="24", **variables
        ),
    )
    os.close(follower)
    drawn = b""
    with contextlib.suppress(OSError):
        while part := await asyncio.to_thread(os.read, leader, 65_536):
            drawn += part
    os.close(leader)
    assert await process.wait() == 0
    return drawn.decode()


async def test_colours_are_for_terminals_that_want_them(server: Server, peer: Peer) -> None:
    await peer.propose(lock_for_seconds=600)
    assert "\x1b[32mLOCKED" in await at_a_terminal(server, "list")
    plain = await at_a_terminal(server, "list", NO_COLOR="1")
    assert "LOCKED" in plain
    assert "\x1b[3" not in plain


async def test_watch_is_a_live_table_at_a_terminal(server: Server, peer: Peer) -> None:
    await peer.propose(log_message="first")
    leader, follower = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(PROGRAM, "watch"),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment(OPERATION_SERVICE_ADDRESS=server.address, TERM="xterm", COLUMNS="150", LINES="24"),
    )
    _started.append(process)
    os.close(follower)
    drawn = ""

    async def until_drawn(word: str) -> None:
        nonlocal drawn
        async with asyncio.timeout(20):
            while word not in drawn:
                drawn += (await asyncio.to_thread(os.read, leader, 65_536)).decode()

    await until_drawn("first")
    await peer.append("second")
    await until_drawn("second")
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):
        while part := await asyncio.to_thread(os.read, leader, 65_536):
            drawn += part.decode()
    assert await process.wait() == 130
    assert "Traceback" not in drawn
    os.close(leader)


# --- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_prints_a_script(cli: Cli, shell: str) -> None:
    assert "_OPERATION_SERVICE_COMPLETE" in (await cli("completion", shell)).out


async def test_the_shell_completes_commands_states_projects_and_names(cli: Cli, peer: Peer) -> None:
    await peer.propose()
    await peer.propose("networks/lan")

    async def completed(line: str) -> list[str]:
        words = line.split(" ")
        out = (
            await cli(_OPERATION_SERVICE_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
        ).out
        return [each.partition(",")[2] for each in out.splitlines() if each]

    assert await completed("operation-service pro") == ["propose"]
    assert await completed("operation-service list --state OP") == ["OPERATOR_DEAD"]
    assert await completed("operation-service get pro") == ["project"]
    assert await completed("operation-service get project net") == ["networks/lan"]
    assert await completed("operation-service get --address 127.0.0.1:1 pro") == []


async def test_a_fencing_token_is_the_precondition_of_each_change_that_takes_one(cli: Cli, peer: Peer) -> None:
    await peer.propose(lock_for_seconds=600)
    fencing_token = str(peer.fencing_token)
    mine, stale = ("--token", peer.token), ("--fencing-token", "999999")
    for words in (("append", "project", NAME, "x"), ("complete", "project", NAME), ("cancel", "project", NAME)):
        assert "999999" in (await cli(*words, *mine, *stale, code=6)).err
    assert await peer.state() == "LOCKED"
    await cli("cancel", "project", NAME, *mine, "--fencing-token", fencing_token)
    assert await peer.state() == "CANCELLED"


async def test_whoever_says_so_lets_nobody_cancel(cli: Cli) -> None:
    await cli("propose", "project", NAME, "--lock-for", "10m", "--disable-cancel", "--token", "a")
    assert "disabled" in (await cli("cancel", "project", NAME, "--token", "a", code=5)).err
    await cli("create", "project", "networks/lan", "--lock-for", "10m", "--disable-cancel", "--token", "a")
    assert "disabled" in (await cli("cancel", "project", "networks/lan", "--token", "a", code=5)).err
