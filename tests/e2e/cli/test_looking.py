"""`operation-service list`, `get`, `logs` and `watch`: what an operator sees, as text and as JSON."""

import json
import re
import signal
from typing import Any

import pytest
from e2e.cli.support_cli import NAME, SHUTDOWN, Begin, Cli, a_line
from e2e.support_e2e import DESCRIPTOR_SET, Serve
from support import Peer


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


async def test_logs_follow_until_the_operation_is_over(begin: Begin, peer: Peer) -> None:
    await peer.propose(log_message="one")
    await peer.propose(f"{NAME}0", log_message="not this one")
    process = await begin("logs", "project", NAME, "--follow")
    assert "one" in await a_line(process)
    await peer.append("two")
    assert "two" in await a_line(process)
    await peer.propose()
    await peer.append("not this one", f"{NAME}0")
    await peer.complete(log_message="done")
    assert "done" in await a_line(process)
    assert await process.wait() == 0


async def test_watch_prints_a_line_for_each_change(begin: Begin, peer: Peer) -> None:
    await peer.create()
    process = await begin("watch", "--project", "project", "--prefix", "virtual")
    assert re.fullmatch(rf"CREATED +project/{NAME}  127\.0\.0\.1:\d+  -\n", await a_line(process))
    await peer.propose("networks/lan")
    await peer.propose(log_message="stopping")
    assert re.fullmatch(rf"LOCKED +project/{NAME}  127\.0\.0\.1:\d+  stopping\n", await a_line(process))
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"")


async def test_watch_as_json_is_an_object_a_line(begin: Begin, peer: Peer) -> None:
    await peer.propose()
    process = await begin("watch", "--json")
    assert json.loads(await a_line(process))["event"] == "OPERATION_EVENT_LOCKED"
    await peer.append()
    told = json.loads(await a_line(process))
    assert told["event"] == "OPERATION_EVENT_LOGGED"
    assert told["operation"]["name"] == NAME
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130
    missed = await begin("watch", "-o", "json", "--start-revision", told["revision"])
    assert json.loads(await a_line(missed)) == told
    missed.send_signal(signal.SIGINT)
    await missed.communicate()
