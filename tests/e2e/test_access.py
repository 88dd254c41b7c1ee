"""The real process with a policy: what it starts with, and what its workers, its log and its commands say."""

import json
import uuid
from pathlib import Path

import pytest
from certificates import Authority, KeyPair
from e2e.support_e2e import PROGRAM, Finished, Serve, run, until

NO_ETCD = "http://127.0.0.1:1"
TOKEN = "a-peer-token-that-is-told-nowhere"
POLICY = """
[[bindings]]
subjects = ["certificate:agent"]
roles = ["operate"]
projects = ["demo"]

[[bindings]]
subjects = ["certificate:reader"]
roles = ["read"]
projects = ["demo"]
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    return file


def written(file: Path, content: str) -> None:
    file.write_text(content)


def tls(authority: Authority) -> tuple[str | Path, ...]:
    own = authority.server()
    return "--tls-cert", own.cert_file, "--tls-key", own.key_file, "--tls-client-ca", authority.ca_file


async def refused(*flags: str | Path) -> str:
    """The one line that a start ends with, with exit code 2."""
    finished = await run(PROGRAM, "serve", "--listen", "127.0.0.1:0", "--etcd-endpoints", NO_ETCD, *flags)
    assert finished.code == 2, finished.err
    (line,) = finished.err_lines
    assert line.startswith("operation-service: ")
    return line


async def test_a_policy_needs_to_know_who_calls(policy: Path) -> None:
    line = await refused("--policy", policy)
    assert "--tls-client-ca" in line
    assert "--jwt-jwks" in line


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("content", "place"),
    [
        ('[[bindings]]\nsubjects = ["agent"]\nroles = ["read"]\nprojects = ["demo"]\n', "bindings[0].subjects[0]"),
        ('[[bindings]]\nsubjects = ["token:a"]\nroles = ["reed"]\nprojects = ["demo"]\n', "roles"),
        ("bindings = [", "TOML"),
    ],
)
async def test_a_policy_that_is_wrong_ends_the_start(
    workers: str, content: str, place: str, policy: Path, authority: Authority
) -> None:
    written(policy, content)
    line = await refused("--policy", policy, *tls(authority), "--workers", workers)
    assert "--policy" in line
    assert place in line


async def test_keys_of_tokens_that_are_secrets_end_the_start_and_are_not_shown(tmp_path: Path) -> None:
    jwks = tmp_path / "jwks.json"
    written(jwks, json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ", "kid": "one"}]}))
    assert "--jwt-issuer" in await refused("--jwt-jwks", jwks)
    line = await refused("--jwt-jwks", jwks, "--jwt-issuer", "someone", "--jwt-audience", "us")
    assert "--jwt-jwks" in line
    assert "c2VjcmV0" not in line


async def test_workers_keep_to_the_policy_and_the_audit_tells_of_what_was_denied(
    serve: Serve, etcd: str, policy: Path, authority: Authority
) -> None:
    server = await serve(
        *("--etcd-endpoints", etcd, "--key-prefix", f"/test/{uuid.uuid4().hex}/", *tls(authority)),
        *("--policy", policy, "--workers", "2", "--log-format", "json"),
    )
    agent, reader = (authority.issue(name, common_name=name) for name in ("agent", "reader"))

    async def propose(own: KeyPair, project: str) -> Finished:
        where = ("--address", server.address, "--ca", authority.ca_file, "--cert", own.cert_file, "--key", own.key_file)
        what = (project, "networks/lan", "--lock-for", "60", "--token", TOKEN)
        return await run(PROGRAM, "propose", *what, *where)

    allowed = await propose(agent, "demo")
    assert allowed.code == 0, allowed.err
    for own, project in ((reader, "demo"), (agent, "other")):
        denied = await propose(own, project)
        assert denied.code == 7, denied.err
        assert "has not the role operate" in denied.err

    async def is_audited() -> bool:
        return server.log.count('"message":"denied"') == 2

    await until(is_audited)
    lines = [json.loads(line) for line in server.log.splitlines() if '"message":"denied"' in line]
    assert {(line["by"], line["project"], line["rpc"], line["reason"]) for line in lines} == {
        ("certificate:reader", "demo", "ProposeOperation", "ROLE_REQUIRED"),
        ("certificate:agent", "other", "ProposeOperation", "ROLE_REQUIRED"),
    }
    assert TOKEN not in server.log
