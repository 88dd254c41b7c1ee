"""`operation-service break-lock`, for the day when nobody can wait: against a real service and a real etcd."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from e2e.support_e2e import PROGRAM, Finished, Serve, environment, etcdctl, run
from etcd_hands import EtcdHands
from support import Peer, connected, event_name, messages, refused, shutdown_request

NAME = "virtual_machines/web-1"


@pytest.fixture
async def holder(etcd: str, serve: Serve, settings: Any) -> AsyncIterator[Peer]:
    server = await serve("--etcd-endpoints", etcd, "--key-prefix", settings.key_prefix)
    async with connected(server.address) as peer:
        yield peer


@pytest.fixture
def variables(etcd: str, settings: Any) -> dict[str, str]:
    return {"OPERATION_SERVICE_ETCD_ENDPOINTS": etcd, "OPERATION_SERVICE_KEY_PREFIX": settings.key_prefix}


async def break_lock(variables: dict[str, str], *flags: str, name: str = NAME) -> Finished:
    return await run(PROGRAM, "break-lock", "project", name, "--reason", "web-7 has burnt down", *flags, **variables)


async def asking(variables: dict[str, str]) -> asyncio.subprocess.Process:
    """Start it, and wait until it asks."""
    process = await asyncio.create_subprocess_exec(
        *(PROGRAM, "break-lock", "project", NAME, "--reason", "web-7 has burnt down"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**variables),
    )
    assert process.stderr
    async with asyncio.timeout(20):
        question = (await process.stderr.readuntil(b"[y/N]: ")).decode()
    assert re.search(r"^holder +127\.0\.0\.1:\d+$", question, re.MULTILINE)
    assert re.search(r"^held since +\S+Z$", question, re.MULTILINE)
    assert re.search(r"^held until +\S+Z$", question, re.MULTILINE)
    assert "last log       " in question
    return process


@pytest.mark.parametrize(
    ("is_disabled_cancel", "state"), [(False, "EXPIRED"), (True, "OPERATOR_DEAD")], ids=["EXPIRED", "OPERATOR_DEAD"]
)
async def test_a_broken_lock_has_ended_and_the_log_says_who_broke_it_and_why(
    holder: Peer, variables: dict[str, str], is_disabled_cancel: bool, state: str
) -> None:
    await holder.create()
    await holder.propose(lock_for_seconds=3600, is_disabled_cancel=is_disabled_cancel, log_message="working")
    fencing_token = holder.fencing_token
    assert fencing_token
    watch = await holder.watching()
    assert event_name((await watch.read()).event) == "LOCKED"

    finished = await break_lock(variables, "--yes")
    assert finished == Finished(0, f"the lock is broken: the operation on project/{NAME} is {state}\n", "")

    told = await watch.read()
    assert event_name(told.event) == state
    record = await holder.get()
    assert told.operation == record
    assert await holder.state() == state
    assert record.fencing_token == fencing_token
    first, last = messages(record.operation)
    assert first == "working"
    assert re.fullmatch(r"the lock of 127\.0\.0\.1:\d+ was broken by \S+@\S+: web-7 has burnt down", last)
    assert messages(await holder.logs()) == [first, last]

    # Whatever the holder does next is refused, with its fencing token and without it.
    assert (await refused(holder.append())).reason == "NOT_LOCKED"
    assert (await refused(holder.complete())).reason == "NOT_LOCKED"
    assert (await refused(holder.propose(fence=fencing_token))).reason == "FENCING_TOKEN_MISMATCH"
    assert (await refused(holder.propose())).reason == "OPERATION_CANCELLED"

    other = holder.named("another")
    taken_over = await other.propose(log_message="taking over")
    assert other.fencing_token
    assert other.fencing_token > fencing_token
    assert taken_over.operation_request == shutdown_request()
    assert messages(taken_over) == [first, last, "taking over"]
    assert event_name((await watch.read()).event) == "LOCKED"
    watch.cancel()


async def test_it_is_one_change_in_etcd(holder: Peer, variables: dict[str, str], hands: EtcdHands) -> None:
    await holder.propose(lock_for_seconds=3600)
    before = await hands.revision()
    kept = await hands.ttl_of(f"records/project/{NAME}")
    assert (await break_lock(variables, "--yes")).code == 0
    changed = {entry.mod_revision for entry in await hands.entries() if not entry.key.endswith(b"/layout")}
    assert changed == {before + 1}
    assert not await hands.keys("locks/")
    # The record goes when it would have gone; that the peer was cancelled, when its lock would have run out.
    assert await hands.ttl_of(f"records/project/{NAME}") == kept
    assert await hands.ttl_of("cancelled/") in {3600, 3601}


async def test_it_asks_and_shows_what_is_held(holder: Peer, variables: dict[str, str]) -> None:
    await holder.propose(lock_for_seconds=3600, log_message="working")
    process = await asking(variables)
    out, err = await process.communicate(b"n\n")
    assert (process.returncode, out) == (1, b"")
    assert err.endswith(b"not confirmed: nothing was done\n")
    assert await holder.state() == "LOCKED"
    process = await asking(variables)
    out, _ = await process.communicate(b"y\n")
    assert (process.returncode, out) == (
        0,
        f"the lock is broken: the operation on project/{NAME} is EXPIRED\n".encode(),
    )
    assert await holder.state() == "EXPIRED"


async def test_without_anybody_to_ask_nothing_is_done(holder: Peer, variables: dict[str, str]) -> None:
    await holder.propose(lock_for_seconds=3600)
    finished = await break_lock(variables)
    assert finished.code == 1
    assert finished.err_lines[-1] == "operation-service: not confirmed: nothing was done"
    assert await holder.state() == "LOCKED"


@pytest.mark.parametrize("sign_of_life", ["renewed", "logged", "taken over"])
async def test_a_lock_that_changed_since_it_was_shown_is_not_broken(
    holder: Peer, variables: dict[str, str], sign_of_life: str
) -> None:
    await holder.propose(lock_for_seconds=3600, log_message="working")
    process = await asking(variables)
    if sign_of_life == "renewed":
        await holder.propose(lock_for_seconds=3600)
    elif sign_of_life == "logged":
        await holder.append("still here")
    else:
        await holder.complete()
        await holder.named("another").propose(lock_for_seconds=3600)
    record = await holder.get()
    out, err = await process.communicate(b"y\n")
    assert (process.returncode, out) == (6, b"")
    assert b"has changed since it was shown" in err
    assert b"look again" in err
    assert (await holder.get()).revision == record.revision
    assert await holder.state() == "LOCKED"


async def test_what_is_not_locked_cannot_be_broken(holder: Peer, variables: dict[str, str]) -> None:
    assert (await break_lock(variables, "--yes")).code == 4
    await holder.propose()
    await holder.complete()
    finished = await break_lock(variables, "--yes")
    assert finished.code == 6
    assert "there is no lock to break" in finished.err


async def test_a_lock_without_an_operation_is_left_to_etcdctl(
    holder: Peer, variables: dict[str, str], etcd: str, settings: Any
) -> None:
    await holder.propose(lock_for_seconds=3600)
    await etcdctl(etcd, "del", f"{settings.key_prefix}records/project/{NAME}")
    finished = await break_lock(variables, "--yes")
    assert finished.code == 1
    (line,) = finished.err_lines
    assert f"etcdctl del {settings.key_prefix}locks/project/{NAME}" in line


async def test_json_has_the_operation_as_it_is_then(holder: Peer, variables: dict[str, str]) -> None:
    await holder.propose(lock_for_seconds=3600)
    record = json.loads((await break_lock(variables, "--yes", "-o", "json")).out)
    assert record["state"] == "OPERATION_STATE_EXPIRED"
    assert record["fencingToken"] == str(holder.fencing_token)
    assert record["revision"] == str((await holder.get()).revision)
    again = await break_lock(variables, "--yes", "-o", "json")
    assert again.code == 6
    assert "there is no lock to break" in json.loads(again.err)["error"]["message"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--etcd-endpoints", "nonsense"), "--etcd-endpoints"),
        (("--key-prefix", "no-slash"), "--key-prefix"),
        (("--reason", " "), "--reason"),
        (("--reason", "x" * 5_000), "--reason"),
    ],
    ids=["endpoints", "prefix", "empty reason", "long reason"],
)
async def test_what_is_wrong_is_told_in_one_line(
    holder: Peer, variables: dict[str, str], flags: tuple[str, ...], named: str
) -> None:
    await holder.propose()
    finished = await break_lock(variables, "--yes", *flags)
    (line,) = finished.err_lines
    assert finished.code == 2
    assert named in line
    assert await holder.state() == "LOCKED"


async def test_an_etcd_that_cannot_be_reached_is_told_in_one_line(variables: dict[str, str]) -> None:
    finished = await break_lock(variables, "--yes", "--timeout", "1", "--etcd-endpoints", "http://127.0.0.1:1")
    (line,) = finished.err_lines
    assert finished.code == 3
    assert "etcd" in line
