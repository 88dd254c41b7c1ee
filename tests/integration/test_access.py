"""Who may do what, with real certificates and tokens: issue by issue as the policy says, and nothing that leaks."""

import asyncio
import base64
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from certificates import Authority, KeyPair
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import Message
from support import NAME, PROJECT, Peer, event_name, refused
from waiting import soon

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import ProposeOperationRequest
from operation_service.server import running
from operation_service.settings import Settings
from operation_service.settings_access import Access
from operation_service.settings_tls import ServerTls

ISSUER, AUDIENCE = "https://issuer.example", "operation-service"
OTHER = "other"
POLICY = """
[[bindings]]
subjects = ["certificate:spiffe://n0stack/agent", "token:agent"]
roles = ["operate"]
projects = ["project"]

[[bindings]]
subjects = ["certificate:api.n0stack", "token:api"]
roles = ["write"]
projects = ["project"]

[[bindings]]
subjects = ["certificate:reader", "token:reader"]
roles = ["read"]
projects = ["project"]

[[bindings]]
subjects = ["certificate:root"]
roles = ["write", "operate"]
projects = ["*"]
"""


def reader_of(*projects: str) -> str:
    names = ", ".join(f'"{each}"' for each in projects)
    return f'[[bindings]]\nsubjects = ["certificate:reader"]\nroles = ["read"]\nprojects = [{names}]\n'


class TokenPeer(Peer):
    """A caller that shows a JSON Web Token, or whatever it has."""

    def __init__(self, channel: grpc.aio.Channel, *shown: str) -> None:
        super().__init__(channel)
        self._shown = shown

    async def call(self, rpc: str, request: Message, *, fence: object = None) -> Any:  # noqa: ARG002, as the others
        metadata = tuple(("authorization", each) for each in self._shown)
        return await getattr(self.stub, rpc)(request, timeout=self.timeout, metadata=metadata)


@dataclass
class Guarded:
    """A service that asks who calls."""

    address: str
    authority: Authority
    policy: Path
    stack: contextlib.AsyncExitStack
    key: ec.EllipticCurvePrivateKey
    peers: dict[str, Peer] = field(default_factory=dict)

    async def channel(self, own: KeyPair | None) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(self.authority.ca, *((own.key, own.cert) if own else ()))
        options = [("grpc.use_local_subchannel_pool", 1)]
        return await self.stack.enter_async_context(grpc.aio.secure_channel(self.address, credentials, options))

    async def peer(self, name: str = "", *, uris: Sequence[str] = (), dns: Sequence[str] = ()) -> Peer:
        """A caller with a certificate of that common name and those other names."""
        file = f"own-{len(self.peers)}"
        own = self.authority.issue(file, common_name=name, uris=tuple(uris), dns=tuple(dns))
        peer = self.peers[file] = Peer(await self.channel(own), f"peer-{file}")
        return peer

    async def shows(self, *shown: str) -> Peer:
        """A caller that shows tokens, over a connection without a certificate if the service wants none."""
        return TokenPeer(await self.channel(None), *shown)

    def token(self, **claims: Any) -> str:
        """A token that the service takes, but for what is said otherwise; a claim that is None is left out."""
        now = time.time()
        whole = {"sub": "agent", "iss": ISSUER, "aud": AUDIENCE, "exp": now + 600} | claims
        whole = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(whole, self.key, "ES256", headers={"kid": "one"})


Guard = Callable[..., Awaitable[Guarded]]


@pytest.fixture
async def guard(etcd: str, settings: Settings, tmp_path: Path) -> AsyncIterator[Guard]:
    """Starts a service that asks for certificates, or for tokens, and has a policy or none."""
    async with contextlib.AsyncExitStack() as stack:

        async def started(policy: str = POLICY, *, by: str = "certificate") -> Guarded:
            authority = Authority(tmp_path)
            server = authority.server()
            file = tmp_path / "policy.toml"
            file.write_text(policy)
            key = ec.generate_private_key(ec.SECP256R1())
            jwks = tmp_path / "jwks.json"
            jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
            jwks.write_text(json.dumps({"keys": [jwk | {"kid": "one"}]}))
            with_tokens = Access(jwks=jwks, issuer=ISSUER, audience=AUDIENCE)
            access = Access() if by == "certificate" else with_tokens
            tls = ServerTls(
                cert=server.cert_file,
                key=server.key_file,
                client_ca=authority.ca_file if by == "certificate" else None,
            )
            asked = replace(settings, tls=tls, access=replace(access, policy=file if policy else None))
            service = await stack.enter_async_context(running(asked, [etcd]))
            return Guarded(service.address, authority, file, stack, key)

        yield started


def requests() -> Iterator[tuple[str, str, Message]]:
    """The nine RPCs, the role that each needs, and a request for it."""
    of: dict[str, Any] = {"project": PROJECT, "name": NAME}
    by: dict[str, Any] = of | {"proposing_peer_token": "peer"}
    yield "CreateOperation", "write", pb.CreateOperationRequest(**by)
    yield "CancelOperation", "write", pb.CancelOperationRequest(**by)
    yield "ProposeOperation", "operate", ProposeOperationRequest(**by, lock_for_seconds=30)
    yield "AppendOperationLog", "operate", pb.AppendOperationLogRequest(**by, log_message="a step")
    yield "CompleteOperation", "operate", pb.CompleteOperationRequest(**by)
    yield "GetOperation", "read", pb.GetOperationRequest(**of)
    yield "ListOperations", "read", pb.ListOperationsRequest(project=PROJECT)
    yield "ListOperationLogs", "read", pb.ListOperationLogsRequest(**of)
    yield "WatchOperations", "read", pb.WatchOperationsRequest(project=PROJECT)


async def reason_of(peer: Peer, rpc: str, request: Message) -> str:
    """With what a call is refused; empty: it is let in, whatever the rules say of it then."""
    if rpc == "WatchOperations":
        watch = peer.stub.WatchOperations(request, timeout=peer.timeout)
        # Who is refused gets no metadata before the end of the call.
        await watch.initial_metadata()
        stands = asyncio.create_task(watch.read())
        await asyncio.wait({stands}, timeout=0.3)
        if not stands.done():
            watch.cancel()
            return ""
        return "" if stands.exception() is None else (await refused(stands)).reason
    try:
        await peer.call(rpc, request)
    except grpc.aio.AioRpcError:
        return (await refused(peer.call(rpc, request))).reason
    return ""


ALLOWED = {"read": {"read"}, "write": {"read", "write"}, "operate": {"read", "operate"}}


@pytest.mark.parametrize(
    ("subject", "role"), [("agent", "operate"), ("api", "write"), ("reader", "read"), ("nobody", "")]
)
async def test_each_rpc_needs_its_role(guard: Guard, subject: str, role: str) -> None:
    service = await guard()
    names: dict[str, dict[str, Any]] = {
        "agent": {"uris": ["spiffe://n0stack/agent"]},
        "api": {"dns": ["api.n0stack"]},
        "reader": {"name": "reader"},
        "nobody": {"name": "nobody"},
    }
    peer = await service.peer(**names[subject])
    for rpc, needed, request in requests():
        reason = await reason_of(peer, rpc, request)
        assert (reason != "ROLE_REQUIRED") == (needed in ALLOWED.get(role, set())), (rpc, reason)


async def test_a_role_on_one_project_is_none_on_another(guard: Guard) -> None:
    service = await guard()
    agent = await service.peer(uris=["spiffe://n0stack/agent"])
    await agent.propose()
    refusal = await refused(agent.propose(project=OTHER))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
    assert refusal.metadata == {
        "role": "operate",
        "project": OTHER,
        "name": NAME,
        "subject": "certificate:spiffe://n0stack/agent",
    }


async def test_the_uri_of_a_certificate_counts_before_its_dns_name_and_that_before_its_common_name(
    guard: Guard,
) -> None:
    service = await guard("")
    for names, holder in (
        ({"uris": ["spiffe://n0stack/a"], "dns": ["b.n0stack"], "name": "c"}, "certificate:spiffe://n0stack/a"),
        ({"dns": ["b.n0stack"], "name": "c"}, "certificate:b.n0stack"),
        ({"name": "c"}, "certificate:c"),
    ):
        peer = await service.peer(**names)
        await peer.propose(f"of/{holder.replace('/', '.')}")
        assert (await peer.get(f"of/{holder.replace('/', '.')}")).holder == holder


async def test_without_a_policy_whoever_is_known_may_do_all(guard: Guard) -> None:
    service = await guard("")
    anybody = await service.peer("anybody")
    await anybody.propose(project=OTHER)
    assert (await anybody.list()).operations[0].operation.proposing_peer_token == anybody.token


async def test_nobody_without_a_certificate_of_the_right_ca_gets_in(guard: Guard, tmp_path: Path) -> None:
    service = await guard()
    stranger = Authority(tmp_path, "stranger").issue("stranger", common_name="root")
    expired = service.authority.issue("expired", common_name="root", days=(-2, -1))
    for own in (None, stranger, expired):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await Peer(await service.channel(own)).get()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_who_may_only_read_sees_an_empty_peer_token(guard: Guard) -> None:
    service = await guard()
    agent, reader = await service.peer(uris=["spiffe://n0stack/agent"]), await service.peer("reader")
    await agent.propose()
    watch = await reader.watching(project=PROJECT)
    told = await watch.read()
    watch.cancel()
    for record in (await reader.get(), (await reader.list(project=PROJECT)).operations[0], told.operation):
        assert record.state == pb.OPERATION_STATE_LOCKED
        assert record.operation.proposing_peer_token == ""
    assert (await agent.get()).operation.proposing_peer_token == agent.token


async def test_a_project_that_may_not_be_seen_answers_the_same_whether_there_is_anything_in_it_or_not(
    guard: Guard,
) -> None:
    service = await guard()
    root, reader = await service.peer("root"), await service.peer("reader")
    await root.propose(project=OTHER)
    there, not_there = await refused(reader.get(project=OTHER)), await refused(reader.get(project="another"))
    assert there.reason == not_there.reason == "ROLE_REQUIRED"
    assert there.message.replace(OTHER, "another") == not_there.message


async def test_lists_and_watches_of_all_projects_tell_of_those_that_may_be_seen(guard: Guard) -> None:
    service = await guard(POLICY + reader_of("a-b", "a"))
    root, reader = await service.peer("root"), await service.peer("reader")
    for project in ("a", "a-b", "hidden", PROJECT, "zzz"):
        await root.propose("vm/1", project=project)
        await root.propose("vm/2", project=project)
    seen = ["a-b", "a-b", "a", "a", PROJECT, PROJECT]
    assert [each.project for each in (await reader.list()).operations] == seen
    watch = await reader.watching()
    present = {(await watch.read()).operation.project for _ in seen}
    assert present == set(seen)
    await root.append(name="vm/1", project="hidden")
    await root.append(name="vm/1", project="a")
    told = await watch.read()
    assert (told.operation.project, event_name(told.event)) == ("a", "LOGGED")
    watch.cancel()


async def test_pages_are_full_whatever_is_hidden_between_them_and_their_tokens_name_nothing_hidden(
    guard: Guard,
) -> None:
    service = await guard(POLICY + reader_of("a", "c"))
    root, reader = await service.peer("root"), await service.peer("reader")
    for number in range(30):
        await root.propose(f"vm/{number:02}", project="b-is-hidden")
    for project in ("a", "c"):
        for number in range(3):
            await root.propose(f"vm/{number}", project=project)
    pages, token = [], ""
    while True:
        page = await reader.list(page_size=2, page_token=token)
        pages.append([f"{each.project}/{each.name}" for each in page.operations])
        token = page.next_page_token
        assert b"hidden" not in base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        if not token:
            break
    assert pages == [["a/vm/0", "a/vm/1"], ["a/vm/2", "c/vm/0"], ["c/vm/1", "c/vm/2"]]


async def test_a_page_token_of_another_caller_widens_nothing(guard: Guard) -> None:
    service = await guard(POLICY + reader_of("c"))
    root, reader = await service.peer("root"), await service.peer("reader")
    for project in ("a", "b", "c", "d"):
        await root.propose(project=project)
    token = (await root.list(page_size=1)).next_page_token
    with contextlib.suppress(grpc.aio.AioRpcError):
        assert {each.project for each in (await reader.list(page_token=token)).operations} <= {"c", PROJECT}


async def test_a_policy_is_read_again_and_a_bad_one_keeps_the_old(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    service = await guard()
    reader = await service.peer("reader")
    assert (await refused(reader.propose())).reason == "ROLE_REQUIRED"
    service.policy.write_text("[[bindings]]\nsubjects = 1\n")

    async def is_told() -> bool:
        return "stays in use" in caplog.text

    assert await soon(is_told)
    assert (await refused(reader.propose())).reason == "ROLE_REQUIRED"
    service.policy.write_text(POLICY.replace('roles = ["read"]', 'roles = ["operate"]'))

    async def may_propose() -> bool:
        await reader.propose()
        return True

    assert await soon(may_propose)


async def test_a_watch_ends_when_its_caller_loses_the_role(guard: Guard) -> None:
    service = await guard()
    reader = await service.peer("reader")
    watches = [await reader.watching(project=PROJECT), await reader.watching()]
    service.policy.write_text(POLICY.replace('"certificate:reader"', '"certificate:another"'))
    for watch in watches:
        assert (await refused(watch.read())).reason == "ROLE_REQUIRED"


async def test_a_token_tells_who_calls(guard: Guard) -> None:
    service = await guard(by="token")
    agent = await service.shows(f"Bearer {service.token()}")
    await agent.propose()
    assert (await agent.get()).holder == "token:agent"
    assert (await refused(agent.create("vm/2"))).reason == "ROLE_REQUIRED"


async def test_a_certificate_s_name_in_a_token_is_no_certificate(guard: Guard) -> None:
    service = await guard(by="token")
    poser = await service.shows(f"Bearer {service.token(sub='root')}")
    assert (await refused(poser.propose())).reason == "ROLE_REQUIRED"


async def test_bad_tokens_let_nobody_in_and_are_told_nowhere(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    service = await guard(by="token")
    claims = {"sub": "agent", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 600}
    good, other_key = service.token(), ec.generate_private_key(ec.SECP256R1())
    now = time.time()
    bad = {
        "none": jwt.encode(claims, "", "none", headers={"kid": "one"}),
        "shared secret": jwt.encode(
            claims, "a secret that is as long as it has to be", "HS256", headers={"kid": "one"}
        ),
        "another key": jwt.encode(claims, other_key, "ES256", headers={"kid": "one"}),
        "unknown kid": jwt.encode(claims, service.key, "ES256", headers={"kid": "two"}),
        "expired": service.token(exp=now - 60),
        "no exp": service.token(exp=None),
        "not yet": service.token(nbf=now + 600),
        "issuer": service.token(iss="https://another.example"),
        "audience": service.token(aud="another"),
        "no sub": service.token(sub=None),
        "garbage": "garbage-garbage-garbage",
        "cut": good[:-10],
    }
    for what, token in bad.items():
        refusal = await refused((await service.shows(f"Bearer {token}")).get())
        assert refusal.code is grpc.StatusCode.UNAUTHENTICATED, what
        expired = what == "expired"
        assert refusal.reason == ("BEARER_TOKEN_EXPIRED" if expired else "BEARER_TOKEN_INVALID"), what
        assert token not in refusal.message
        assert token not in caplog.text
    for shown in ((), ("Basic YWdlbnQ6YWdlbnQ=",), (f"Bearer {good}", f"Bearer {good}")):
        refusal = await refused((await service.shows(*shown)).get())
        assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
    assert (await refused((await service.shows()).get())).reason == "IDENTITY_REQUIRED"
    assert good not in caplog.text


async def test_a_watch_ends_when_its_token_does(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operation_service.bearer_tokens.LEEWAY_SECONDS", 0.0)
    service = await guard(by="token")
    agent = await service.shows()
    metadata = (("authorization", f"Bearer {service.token(exp=time.time() + 4)}"),)
    watch = agent.stub.WatchOperations(pb.WatchOperationsRequest(project=PROJECT), timeout=20, metadata=metadata)
    await watch.initial_metadata()
    assert (await refused(watch.read())).reason == "BEARER_TOKEN_EXPIRED"
