"""What an operator's command says when something is wrong, and what it exits with."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from e2e.cli.support_cli import NAME, Begin, Cli
from e2e.support_e2e import PROGRAM, Server, run
from support import Peer

from operation_service.client.bearer import MAX_TOKEN_BYTES


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


async def test_a_token_that_is_too_large_is_told_by_its_file_before_it_is_sent(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "token"
    words = ("list", "--prefix", "n" * 100, "--token-file", file)
    for is_too_large in (False, True) * 2:
        file.write_text("s3cr3t" + "x" * (MAX_TOKEN_BYTES - 6) + "x" * is_too_large + "\n")
        finished = await cli(*words, code=2 if is_too_large else 0)
        if is_too_large:
            (line,) = finished.err_lines
            assert f"--token-file {file}: the token in it has more than 7,168 bytes" in line
            assert "s3cr3t" not in line


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


async def test_a_reader_that_goes_away_ends_it_without_a_word(begin: Begin, peer: Peer) -> None:
    await peer.propose()
    read, write = os.pipe()
    process = await begin("watch", "--json", stdout=write)
    os.close(write)
    assert b"LOCKED" in await asyncio.to_thread(os.read, read, 65_536)
    os.close(read)
    await peer.append()
    _, err = await process.communicate()
    assert (process.returncode, err) == (141, b"")
