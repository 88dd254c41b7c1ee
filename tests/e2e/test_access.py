"""The real process with a policy: what is refused at the start, workers, what commands exit with, and the page."""

import json
import re
import shlex
from pathlib import Path

import pytest
from callers import ALL_ROLES, binding, write_policy
from certificates import Authority, KeyPair
from e2e.support_e2e import PROGRAM, ROOT, Serve, own_prefix, run, run_in, until_true
from issuer import AUDIENCE, ISSUER, Issuer

from operation_service.cli_options import variable
from operation_service.cli_serve import PROTECTING

AGENT = "spiffe://n0stack/agent-1"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.toml"
    write_policy(file, binding(f"certificate:{AGENT}", "operate"), binding("token:alice", *ALL_ROLES))
    return file


@pytest.fixture
def flags(authority: Authority, server_pair: KeyPair) -> tuple[str | Path, ...]:
    return (
        *("--tls-cert", server_pair.cert_file, "--tls-key", server_pair.key_file),
        *("--tls-client-ca", authority.ca_file),
    )


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_what_is_wrong_at_the_start_is_one_line_and_exit_code_2(
    workers: str, flags: tuple[str | Path, ...], policy: Path, tmp_path: Path
) -> None:
    bad_policy, bad_keys = tmp_path / "bad.toml", tmp_path / "bad.json"
    bad_policy.write_text(binding("alice", "read"))
    bad_keys.write_text(json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}))
    jwt = ("--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE)
    for given, said in (
        ((*flags, "--policy", bad_policy), "bindings[0].subjects[0]: must be certificate:NAME or token:SUB"),
        ((*flags, "--policy", tmp_path / "none"), "it cannot be read: No such file or directory"),
        ((*flags, "--jwt-jwks", bad_keys, *jwt), "keys[0]: it is a shared secret (oct)"),
        ((*flags[:4], "--policy", policy), "give --tls-client-ca or --jwt-jwks"),
        ((*flags, "--jwt-jwks", bad_keys), "--jwt-jwks needs --jwt-issuer and --jwt-audience"),
    ):
        ended = await run(
            *(PROGRAM, "serve", "--listen", "127.0.0.1:0", "--workers", workers, *given),
            *("--etcd-endpoints", "http://127.0.0.1:1"),
        )
        assert ended.code == 2, ended
        (line,) = ended.err_lines
        assert said in line
        assert "c2VjcmV0" not in line


async def test_workers_take_up_a_new_policy_each_and_commands_exit_with_7_where_they_are_not_let_in(
    etcd: str, serve: Serve, flags: tuple[str | Path, ...], authority: Authority, policy: Path
) -> None:
    server = await serve(
        *flags, "--policy", policy, "--workers", "2", "--etcd-endpoints", etcd, "--key-prefix", own_prefix()
    )
    own = authority.issue("agent", uris=(AGENT,))
    at = ("--address", server.address, "--ca", authority.ca_file, "--cert", own.cert_file, "--key", own.key_file)
    proposed = await run(PROGRAM, "propose", "demo", "networks/lan", "--token", "a", "--lock-for", "60s", *at)
    assert proposed.code == 0, proposed.err
    # The workers share the connections between them.
    for _ in range(6):
        refused = await run(PROGRAM, "cancel", "demo", "networks/lan", "--token", "a", *at)
        assert refused.code == 7, refused
        assert f"certificate:{AGENT} has not the role write on the project demo" in refused.err
    assert "denied: demo/networks/lan by certificate:spiffe://n0stack/agent-1 (CancelOperation, token " in server.log
    write_policy(policy, binding(f"certificate:{AGENT}", "read"))
    await until_true(lambda: server.log.count("what is in it now is in use") == 2)
    for _ in range(6):
        refused = await run(PROGRAM, "propose", "demo", "networks/lan", "--token", "a", "--lock-for", "60s", *at)
        assert refused.code == 7, refused
    shown = await run(PROGRAM, "get", "demo", "networks/lan", "--output", "json", *at)
    record = json.loads(shown.out)
    assert record["holder"] == f"certificate:{AGENT}"
    assert "proposingPeerToken" not in record["operation"]
    assert await server.stop() == 0


async def test_tokens_are_in_no_line_of_the_log(etcd: str, serve: Serve, policy: Path, tmp_path: Path) -> None:
    issuer = Issuer(tmp_path)
    server = await serve(
        *("--policy", policy, "--jwt-jwks", issuer.file, "--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE),
        *("--etcd-endpoints", etcd, "--key-prefix", own_prefix()),
    )
    good, bad = issuer.token(), issuer.token(aud="other")
    for token, code in ((good, 0), (bad, 7), (issuer.token("bob"), 7)):
        (tmp_path / "token").write_text(token)
        words = ("propose", "demo", "networks/lan", "--token", "a", "--lock-for", "60s")
        ended = await run(PROGRAM, *words, "--token-file", tmp_path / "token", "--address", server.address)
        assert ended.code == code, ended
        assert not any(part in ended.err + ended.out for part in token.split("."))
    assert await server.stop() == 0
    assert "by token:alice" in server.log
    assert "--jwt-audience" in server.log
    assert not any(part in server.log for token in (good, bad) for part in token.split("."))


async def test_what_the_page_shows_of_who_may_do_what_works_as_it_stands(
    etcd: str, serve: Serve, tmp_path: Path
) -> None:
    page = ROOT.joinpath("docs/security.md").read_text()
    making = re.findall(r"```sh\n(.*?)```", page.partition("\n## Transport\n")[2], re.DOTALL)[0]
    section = page.partition("\n## Who may do what\n")[2].partition("\n## ")[0]
    policy, *blocks = re.findall(r"```(?:toml|sh)\n(.*?)```", section, re.DOTALL)
    serving, calling, with_tokens = blocks
    assert policy == (ROOT / "examples" / "policy.toml").read_text()
    assert (await run_in(tmp_path, "bash", "-ec", making)).code == 0
    (tmp_path / "policy.toml").write_text(policy)
    Issuer(tmp_path).file.replace(tmp_path / "keys.json")
    for command in (serving, with_tokens):
        _, _, *given = shlex.split(command.replace("\\\n", " "))
        at = [str(tmp_path / word) if (tmp_path / word).is_file() else word for word in given]
        server = await serve(*at, "--etcd-endpoints", etcd, "--key-prefix", own_prefix())
        if command is serving:
            shell = calling.replace("operation-service ", f"{PROGRAM} ")
            called = await run_in(tmp_path, "bash", "-exc", shell, OPERATION_SERVICE_ADDRESS=server.address)
            assert called.code == 0, called.err
            assert called.err.count("has not the role") == 2
        assert await server.stop() == 0


async def refusal_of_an_empty(name: str, *flags: str | Path) -> list[str]:
    finished = await run(PROGRAM, "serve", "--listen", "127.0.0.1:0", *flags, **{name: ""})
    assert finished.code == 2, finished
    return finished.err_lines


@pytest.mark.parametrize("flag", PROTECTING)
async def test_an_empty_variable_does_not_leave_protection_out(flag: str) -> None:
    name = variable(flag)
    assert await refusal_of_an_empty(name, "--etcd-endpoints", "http://127.0.0.1:1") == [
        f"operation-service: {flag} must not be empty: {name} is; unset it to do without"
    ]


async def test_an_empty_variable_is_no_wish_for_an_etcd_of_its_own(tmp_path: Path) -> None:
    (line,) = await refusal_of_an_empty("OPERATION_SERVICE_ETCD_ENDPOINTS", "--data-dir", tmp_path)
    assert "--etcd-endpoints must not be empty: leave it out, and its variable," in line


def test_the_readme_names_the_flags_whose_variable_must_not_be_empty() -> None:
    told = ROOT.joinpath("README.md").read_text().partition("A variable that is empty")[2].partition("\n\n")[0]
    assert re.findall("`(--[a-z-]+)`", told) == [*PROTECTING, "--etcd-endpoints"]
