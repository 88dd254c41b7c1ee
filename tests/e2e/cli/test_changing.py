"""`operation-service propose`, `create`, `append`, `complete` and `cancel`, as an operator types them."""

import json
import re
from pathlib import Path

import pytest
from e2e.cli.support_cli import NAME, SHUTDOWN, Begin, Cli
from e2e.support_e2e import DESCRIPTOR_SET
from support import Peer, shutdown_request


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


async def test_another_terminal_of_the_same_person_is_another_peer(cli: Cli, begin: Begin) -> None:
    words = ("propose", "project", NAME, "--lock-for", "30")
    await cli(*words)
    elsewhere = await begin(*words, start_new_session=True)
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
