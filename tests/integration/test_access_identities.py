"""Who calls: certificates over mutual TLS, and tokens over them."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from callers import ALL_ROLES, Caller, bearer, binding, over_mtls, write_policy
from certificates import Authority
from issuer import AUDIENCE, ISSUER, Issuer
from support import connected, refused

from operation_service.access import Access
from operation_service.roles import Role
from operation_service.server import running
from operation_service.settings import Settings, SettingsError
from operation_service.settings_access import CallerAccess
from operation_service.settings_tls import ServerTls

LAN = "networks/lan"
AGENT = "spiffe://n0stack/agent-1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path)


@pytest.fixture
def tls(authority: Authority) -> ServerTls:
    own = authority.server()
    return ServerTls(cert=own.cert_file, key=own.key_file, client_ca=authority.ca_file)


@pytest.fixture
async def address(etcd: str, settings: Settings, tls: ServerTls, issuer: Issuer, tmp_path: Path) -> AsyncIterator[str]:
    """Takes certificates and tokens; a policy grants each to one kind alone."""
    policy = tmp_path / "policy.toml"
    write_policy(
        policy, binding(f"certificate:{AGENT}", *ALL_ROLES), binding("token:alice", *ALL_ROLES, projects=("other",))
    )
    access = CallerAccess(policy=policy, jwks=issuer.file, issuer=ISSUER, audience=AUDIENCE)
    async with running(replace(settings, tls=tls, access=access), [etcd]) as service:
        yield service.settings.listen


@pytest.fixture
async def open_address(etcd: str, settings: Settings, tls: ServerTls) -> AsyncIterator[str]:
    """Takes certificates, and has no policy."""
    async with running(replace(settings, tls=tls), [etcd]) as service:
        yield service.settings.listen


@pytest.mark.parametrize(
    ("names", "holder"),
    [
        (
            {"uris": (AGENT, "spiffe://n0stack/b"), "dns": ("a.example",), "common_name": "a"},
            f"certificate:{AGENT}",
        ),
        ({"dns": ("a.example", "b.example"), "common_name": "a"}, "certificate:a.example"),
        ({"common_name": "agent é"}, "certificate:agent é"),
    ],
    ids=["URI", "DNS", "CN"],
)
async def test_the_holder_is_the_certificates_first_uri_else_its_first_dns_name_else_its_common_name(
    names: dict[str, Any], holder: str, open_address: str, authority: Authority
) -> None:
    async with over_mtls(open_address, authority.ca, authority.issue("own", **names)) as caller:
        await caller.propose(LAN, project="demo")
        assert (await caller.get(LAN, "demo")).holder == holder


async def test_a_certificate_without_a_name_lets_nobody_in(open_address: str, authority: Authority) -> None:
    async with over_mtls(open_address, authority.ca, authority.issue("own", ips=("127.0.0.1",))) as caller:
        refusal = await refused(caller.propose(LAN, project="demo"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "IDENTITY_REQUIRED")
    assert "neither a URI, nor a DNS name, nor a common name" in refusal.message


@pytest.mark.parametrize("kind", ["none", "another CA", "expired", "not yet valid"])
async def test_who_has_no_good_certificate_does_not_even_connect(
    kind: str, open_address: str, authority: Authority, tmp_path: Path, issuer: Issuer
) -> None:
    own = {
        "none": None,
        "another CA": Authority(tmp_path, "other").issue("own-1", uris=(AGENT,)),
        "expired": authority.issue("own-2", uris=(AGENT,), days=(-3, -1)),
        "not yet valid": authority.issue("own-3", uris=(AGENT,), days=(1, 3)),
    }[kind]
    async with over_mtls(open_address, authority.ca, own, bearer(issuer.token("alice"))) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await caller.get(LAN, "demo")
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE


@contextlib.asynccontextmanager
async def agent(address: str, authority: Authority, *tokens: str) -> AsyncIterator[Caller]:
    shown = tuple(each for token in tokens for each in bearer(token))
    async with over_mtls(address, authority.ca, authority.issue("agent", uris=(AGENT,)), shown) as caller:
        yield caller


async def test_a_token_counts_more_than_the_certificate(address: str, authority: Authority, issuer: Issuer) -> None:
    async with agent(address, authority) as by_certificate:
        await by_certificate.propose(LAN, project="demo")
        assert (await refused(by_certificate.propose(LAN, project="other"))).reason == "ROLE_REQUIRED"
    async with agent(address, authority, issuer.token("alice")) as by_token:
        await by_token.propose(LAN, project="other")
        assert (await by_token.get(LAN, "other")).holder == "token:alice"
        refusal = await refused(by_token.propose(LAN, project="demo"))
        assert refusal.metadata["subject"] == "token:alice"


@pytest.mark.parametrize("count", [1, 2])
async def test_a_bad_token_lets_nobody_in_however_good_the_certificate_is(
    count: int, address: str, authority: Authority, issuer: Issuer
) -> None:
    token = issuer.token("alice") if count == 2 else issuer.token("alice", aud="other")
    async with agent(address, authority, *[token] * count) as caller:
        refusal = await refused(caller.propose(LAN, project="demo"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "BEARER_TOKEN_INVALID")


async def test_a_token_cannot_pose_as_a_certificate(address: str, authority: Authority, issuer: Issuer) -> None:
    for subject in (AGENT, f"certificate:{AGENT}"):
        async with agent(address, authority, issuer.token(subject)) as caller:
            refusal = await refused(caller.propose(LAN, project="demo"))
        assert refusal.metadata["subject"] == f"token:{subject}"
        assert refusal.metadata["role"] == Role.OPERATE


async def test_where_no_tokens_are_taken_what_is_shown_as_one_is_not_looked_at(
    open_address: str, authority: Authority
) -> None:
    async with agent(open_address, authority, "garbage") as caller:
        await caller.propose(LAN, project="demo")
        assert (await caller.get(LAN, "demo")).holder == f"certificate:{AGENT}"


async def test_where_nothing_is_set_up_everybody_may_call_and_the_holder_is_an_address(
    etcd: str, settings: Settings
) -> None:
    async with running(settings, [etcd]) as service, connected(service.settings.listen) as peer:
        await peer.propose(LAN, project="demo")
        assert (await peer.get(LAN, "demo")).holder.startswith("127.0.0.1:")


async def test_a_file_that_is_not_good_is_told_before_anything_else_is_begun(
    settings: Settings, tls: ServerTls, tmp_path: Path
) -> None:
    access = CallerAccess(policy=tmp_path / "none.toml")
    with pytest.raises(SettingsError, match=r"--policy .*none\.toml: it cannot be read"):
        async with running(replace(settings, tls=tls, access=access), ["http://127.0.0.1:1"]):
            pass


@pytest.mark.parametrize(
    ("listen", "has_tls", "takes_tokens", "is_warned_of"),
    [
        ("0.0.0.0:50051", False, True, True),
        ("[::]:50051", False, True, True),
        ("0.0.0.0:50051", True, True, False),
        ("0.0.0.0:50051", False, False, False),
        ("127.0.0.1:50051", False, True, False),
        ("[::1]:50051", False, True, False),
        ("localhost:50051", False, True, False),
    ],
)
def test_tokens_that_can_be_read_on_their_way_are_warned_of(
    listen: str,
    tls: ServerTls,
    issuer: Issuer,
    caplog: pytest.LogCaptureFixture,
    *,
    has_tls: bool,
    takes_tokens: bool,
    is_warned_of: bool,
) -> None:
    asked = CallerAccess(jwks=issuer.file, issuer=ISSUER, audience=AUDIENCE) if takes_tokens else CallerAccess()
    Access(Settings(listen=listen, is_insecure=not has_tls, tls=tls if has_tls else None, access=asked))
    assert [message.partition(",")[0] for message in caplog.messages] == (
        [f"the tokens of callers come to {listen} without TLS"] * is_warned_of
    )
