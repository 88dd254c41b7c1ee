"""Who may do what: roles on projects, what is hidden from whom, and policies that change. Callers show tokens."""

import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from callers import ALL_ROLES, Caller, bearer, binding, request_of, write_policy
from issuer import AUDIENCE, ISSUER, Issuer
from support import Refusal, refusal_of, refused
from waiting import soon
from watches import read, told

from operation_service.roles import INCLUDED, NEEDED, Role
from operation_service.server import running
from operation_service.settings import Settings
from operation_service.settings_access import CallerAccess

HIDDEN = ("aaa", "demo-2", "demo.x", "zzz")
LAN = "networks/lan"
EVERYTHING = binding("token:root", *ALL_ROLES, projects=("*",))


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.toml"
    write_policy(
        file,
        EVERYTHING,
        binding("token:reader", "read"),
        binding("token:writer", "write"),
        binding("token:operator", "operate"),
        binding("token:elsewhere", *ALL_ROLES, projects=("elsewhere",)),
        binding("token:two", "read", projects=("zzz", "demo")),
        binding("certificate:reader", *ALL_ROLES),
    )
    return file


@pytest.fixture
async def address(etcd: str, settings: Settings, issuer: Issuer, policy: Path) -> AsyncIterator[str]:
    access = CallerAccess(policy=policy, jwks=issuer.file, issuer=ISSUER, audience=AUDIENCE)
    async with running(replace(settings, access=access), [etcd]) as service:
        yield service.settings.listen


@pytest.fixture
async def root(address: str, issuer: Issuer) -> AsyncIterator[Caller]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield Caller(channel, bearer(issuer.token("root")))


def as_(subject: str, root: Caller, issuer: Issuer) -> Caller:
    """Somebody else, on the same connection: who calls is asked with each call."""
    return Caller(root.channel, bearer(issuer.token(subject)))


async def outcome(caller: Caller, rpc: str, project: str = "demo", name: str = LAN) -> Refusal | None:
    """With what a call was refused. None: it was not."""
    call = getattr(caller.stub, rpc)(request_of(rpc, project, name), timeout=10, metadata=caller.shown)
    try:
        if rpc == "WatchOperations":
            await call.read()
            call.cancel()
            return None
        await call
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    return None


@pytest.mark.parametrize("rpc", NEEDED)
@pytest.mark.parametrize("role", [*Role, None])
async def test_a_call_is_let_in_if_and_only_if_the_caller_has_the_role(
    rpc: str, role: Role | None, root: Caller, issuer: Issuer
) -> None:
    await root.create(LAN, project="demo")
    before = (await root.list()).operations[0].revision
    subject = {Role.READ: "reader", Role.WRITE: "writer", Role.OPERATE: "operator", None: "elsewhere"}[role]
    refusal = await outcome(as_(subject, root, issuer), rpc)
    if role is not None and NEEDED[rpc] in INCLUDED[role]:
        assert refusal is None or refusal.reason in {"NOT_LOCKED", "ALREADY_EXISTS"}
        return
    assert refusal is not None
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
    facts = {"role": NEEDED[rpc].value, "project": "demo", "subject": f"token:{subject}"}
    assert refusal.metadata.items() >= facts.items()
    assert all(fact in refusal.message for fact in facts.values())
    assert (await root.list()).operations[0].revision == before


@pytest.mark.parametrize("rpc", NEEDED)
async def test_a_refusal_is_the_same_whether_there_is_something_or_not(rpc: str, root: Caller, issuer: Issuer) -> None:
    await root.propose(LAN, project="demo")
    elsewhere = as_("elsewhere", root, issuer)
    there = await outcome(elsewhere, rpc, "demo")
    absent = await outcome(elsewhere, rpc, "nobodys")
    assert there is not None
    assert absent is not None
    assert there.message.replace("demo", "nobodys") == absent.message
    assert there.metadata | {"project": "nobodys"} == absent.metadata


async def test_what_names_no_project_is_told_what_is_wrong_with_it_and_nothing_else(
    root: Caller, issuer: Issuer
) -> None:
    for rpc in NEEDED:
        refusal = await outcome(as_("reader", root, issuer), rpc, "not a project", "//")
        assert refusal is not None
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "project" in refusal.violations


async def test_a_wrong_request_for_somebody_elses_project_is_not_looked_at(root: Caller, issuer: Issuer) -> None:
    refusal = await outcome(as_("reader", root, issuer), "ProposeOperation", "zzz", "//")
    assert refusal is not None
    assert refusal.reason == "ROLE_REQUIRED"


async def test_the_holder_is_who_calls(root: Caller, issuer: Issuer) -> None:
    operator = as_("operator", root, issuer)
    await operator.propose(LAN, project="demo")
    assert (await operator.get(LAN, "demo")).holder == "token:operator"
    refusal = await refused(as_("root", root, issuer).propose(LAN, project="demo", proposing_peer_token="other"))
    assert (refusal.reason, refusal.metadata["holder"]) == ("LOCKED", "token:operator")


@pytest.mark.parametrize(("subject", "is_shown"), [("reader", False), ("writer", True), ("operator", True)])
async def test_who_may_only_read_sees_no_peer_token(
    subject: str, root: Caller, issuer: Issuer, *, is_shown: bool
) -> None:
    await root.propose(LAN, project="demo")
    caller = as_(subject, root, issuer)
    seen = [await caller.get(LAN, "demo"), *(await caller.list(project="demo")).operations]
    seen += (await caller.list()).operations
    watch = await caller.watching(project="demo")
    seen += [each.operation for each in await read(watch, 1)]
    await root.propose(LAN, project="demo")
    seen += [each.operation for each in await read(watch, 1)]
    watch.cancel()
    assert len(seen) == 5
    assert {record.operation.proposing_peer_token for record in seen} == {"peer-a" if is_shown else ""}
    assert all(record.operation.HasField("locked_until") for record in seen)


async def test_a_list_over_all_projects_tells_of_those_that_the_caller_may_read(root: Caller, issuer: Issuer) -> None:
    for number in range(5):
        for project in ("demo", *HIDDEN):
            await root.create(f"networks/{number}", project=project)
    caller, token, pages = as_("two", root, issuer), "", []
    while True:
        page = await caller.list(page_size=3, page_token=token)
        pages.append([f"{record.project}/{record.name}" for record in page.operations])
        token = page.next_page_token
        if not token:
            break
    expected = [f"{project}/networks/{number}" for project in ("demo", "zzz") for number in range(5)]
    assert pages == [expected[:3], expected[3:6], expected[6:9], expected[9:]]


async def test_a_page_token_of_somebody_else_opens_nothing(root: Caller, issuer: Issuer) -> None:
    for project in ("demo", *HIDDEN):
        await root.create(LAN, project=project)
    page = await root.list(page_size=1)
    assert [record.project for record in page.operations] == ["aaa"]
    rest = await as_("reader", root, issuer).list(page_token=page.next_page_token)
    assert [record.project for record in rest.operations] == ["demo"]
    assert rest.next_page_token == ""
    refusal = await refused(as_("reader", root, issuer).list(project="zzz", page_token=page.next_page_token))
    assert refusal.reason == "ROLE_REQUIRED"


async def test_who_may_read_nothing_is_told_so_by_a_list_over_all(
    root: Caller, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    for rpc in ("ListOperations", "WatchOperations"):
        refusal = await outcome(as_("stranger", root, issuer), rpc, "")
        assert refusal is not None
        assert (refusal.reason, refusal.metadata) == ("ROLE_REQUIRED", {"role": "read", "subject": "token:stranger"})
        assert f"{rpc} by token:stranger refused: {refusal.message}" in caplog.messages


async def test_a_watch_over_all_projects_tells_of_those_that_the_caller_may_read(root: Caller, issuer: Issuer) -> None:
    for project in ("aaa", "demo", "zzz"):
        await root.create(LAN, project=project)
    watch = await as_("two", root, issuer).watching()
    assert told(await read(watch, 2)) == [f"CREATED {LAN}"] * 2
    for project in ("demo-2", "zzz", "aaa", "demo"):
        await root.propose("networks/new", project=project)
    happened = await read(watch, 2)
    assert [each.operation.project for each in happened] == ["zzz", "demo"]
    again = await as_("two", root, issuer).watching(start_revision=happened[0].revision)
    assert [each.operation.project for each in await read(again, 2)] == ["zzz", "demo"]
    for each in (watch, again):
        each.cancel()


async def test_no_token_and_a_bad_one_let_nobody_in(
    root: Caller, issuer: Issuer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, other = issuer.token(), Issuer(tmp_path, "key-2").token()
    shown = {
        (): "IDENTITY_REQUIRED",
        bearer(other): "BEARER_TOKEN_INVALID",
        bearer(issuer.token(exp=1_700_000_000)): "BEARER_TOKEN_EXPIRED",
        bearer(good) + bearer(good): "BEARER_TOKEN_INVALID",
        (("authorization", good),): "BEARER_TOKEN_INVALID",
        (("authorization", f"Basic {good}"),): "BEARER_TOKEN_INVALID",
        (("authorization", "Bearer"),): "BEARER_TOKEN_INVALID",
        (("authorization", ""),): "BEARER_TOKEN_INVALID",
    }
    said = ""
    for metadata, reason in shown.items():
        for rpc in NEEDED:
            refusal = await outcome(Caller(root.channel, metadata), rpc)
            assert refusal is not None
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
            assert refusal.metadata == {}
            said += repr(refusal)
    said += caplog.text
    assert "IDENTITY" not in caplog.text
    assert "refused" in caplog.text
    assert not any(part in said for token in (good, other) for part in token.split("."))
    assert (await refused(root.get(LAN, "demo"))).reason == "NOT_FOUND"


async def test_a_scheme_is_written_in_any_case(root: Caller, issuer: Issuer) -> None:
    metadata = (("authorization", f"bearer {issuer.token('root')}"),)
    assert (await refused(Caller(root.channel, metadata).get(LAN, "demo"))).reason == "NOT_FOUND"


async def test_the_health_is_open_to_all_who_can_connect(root: Caller) -> None:
    ask: Any = root.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert await ask(b"", timeout=10) == b"\x08\x01"


async def test_a_new_policy_counts_for_the_calls_after_it_and_a_bad_one_changes_nothing(
    root: Caller, issuer: Issuer, policy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    reader = as_("reader", root, issuer)

    async def may_create() -> bool:
        await reader.create("networks/new", project="demo")
        return True

    assert (await refused(reader.create("networks/new", project="demo"))).reason == "ROLE_REQUIRED"
    write_policy(policy, EVERYTHING, binding("token:reader", "write"))
    assert await soon(may_create)
    write_policy(policy, "[[bindings]]")

    async def is_told() -> bool:
        return any("what was read before stays in use" in line for line in caplog.messages)

    assert await soon(is_told)
    assert await may_create()
    assert f"--policy {policy}: what is in it now is in use" in caplog.messages


@pytest.mark.parametrize("project", ["demo", ""])
async def test_a_watch_ends_when_its_caller_loses_the_role_whether_something_happens_or_not(
    project: str, root: Caller, issuer: Issuer, policy: Path
) -> None:
    watch = await as_("two", root, issuer).watching(project=project)
    kept = await as_("reader", root, issuer).watching(project=project)
    write_policy(policy, EVERYTHING, binding("token:two", "read", projects=("zzz",)), binding("token:reader", "read"))
    refusal = await refused(watch.read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
    assert refusal.metadata == {"role": "read", "project": "demo", "subject": "token:two"}
    await root.create(LAN, project="demo")
    assert told(await read(kept, 1)) == [f"CREATED {LAN}"]
    kept.cancel()


async def test_a_watch_of_all_projects_is_told_what_its_caller_has_lost_and_how_to_go_on(
    root: Caller, issuer: Issuer, policy: Path
) -> None:
    watch = await as_("root", root, issuer).watching()
    await root.create(LAN, project="demo")
    (seen,) = await read(watch, 1)
    write_policy(policy, binding("token:root", *ALL_ROLES))
    refusal = await refused(watch.read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
    assert refusal.metadata == {"role": "read", "subject": "token:root"}
    assert "token:root has not the role read on all projects any more" in refusal.message
    assert "watch again with the last revision that was received, plus 1" in refusal.message
    await root.cancel(LAN, project="demo")
    again = await as_("root", root, issuer).watching(start_revision=seen.revision + 1)
    assert told(await read(again, 1)) == [f"CANCELLED {LAN}"]
    again.cancel()
    write_policy(policy, binding("token:reader", "read"))

    async def has_none() -> bool:
        refusal = await outcome(root, "ListOperations", "")
        return refusal is not None and "has not the role read on any project" in refusal.message

    assert await soon(has_none)


async def test_a_watch_goes_on_with_the_projects_that_it_was_begun_with(
    root: Caller, issuer: Issuer, policy: Path
) -> None:
    watch = await as_("reader", root, issuer).watching()
    write_policy(policy, EVERYTHING, binding("token:reader", "read", projects=("demo", "zzz")))

    async def may_read() -> bool:
        return not (await as_("reader", root, issuer).list(project="zzz")).operations

    assert await soon(may_read)
    for project in ("zzz", "demo"):
        await root.create(LAN, project=project)
    assert [each.operation.project for each in await read(watch, 1)] == ["demo"]
    watch.cancel()


async def test_a_watch_ends_with_the_token_that_it_was_begun_with(
    root: Caller, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operation_service.bearer_tokens.LEEWAY_SECONDS", 0.0)
    short = issuer.token("reader", exp=int(time.time()) + 3)
    watch = await Caller(root.channel, bearer(short)).watching(project="demo")
    refusal = await refused(watch.read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "BEARER_TOKEN_EXPIRED")


async def test_new_keys_end_the_calls_and_watches_of_the_old_ones(root: Caller, issuer: Issuer, tmp_path: Path) -> None:
    watch = await as_("reader", root, issuer).watching(project="demo")
    (tmp_path / "new").mkdir()
    new = Issuer(tmp_path / "new")
    new.file.replace(issuer.file)
    refusal = await refused(watch.read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "BEARER_TOKEN_INVALID")
    assert (await refused(as_("reader", root, issuer).list(project="demo"))).reason == "BEARER_TOKEN_INVALID"
    assert not (await as_("reader", root, new).list(project="demo")).operations
