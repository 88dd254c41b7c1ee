"""The real process with TLS: who may connect, what is refused at the start, and the port for probes."""

import asyncio
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import grpc
import pytest
from certificates import Authority, KeyPair
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from e2e.support_e2e import (
    DESCRIPTOR_SET,
    GRPCURL,
    PROGRAM,
    ROOT,
    SERVICE,
    Finished,
    Serve,
    Server,
    health,
    own_prefix,
    run,
    run_in,
    until,
    until_true,
    watch_health,
)
from e2e.support_etcd import StartEtcd
from grpc_health.v1.health_pb2 import HealthCheckResponse
from held_files import held
from support import Peer

from operation_service.embedded_binary import EtcdBinary

NO_ETCD = "http://127.0.0.1:1"
ANYWHERE = "0.0.0.0:0"


@pytest.fixture
def own(authority: Authority) -> KeyPair:
    return authority.issue("operator", common_name="operator")


@pytest.fixture
def flags(etcd: str, server_pair: KeyPair, authority: Authority) -> tuple[str | Path, ...]:
    """Of a service with mutual TLS."""
    return (
        *("--etcd-endpoints", etcd, "--tls-cert", server_pair.cert_file, "--tls-key", server_pair.key_file),
        *("--tls-client-ca", authority.ca_file, "--key-prefix", own_prefix(), "--descriptor-set", DESCRIPTOR_SET),
    )


async def refused(*flags: str | Path) -> str:
    """The one line that a start ends with, with exit code 2."""
    finished = await run(PROGRAM, "serve", "--listen", "127.0.0.1:0", "--etcd-endpoints", NO_ETCD, *flags)
    assert finished.code == 2, finished.err
    (line,) = finished.err_lines
    assert line.startswith("operation-service: ")
    return line


async def call(address: str, *flags: str | Path) -> Finished:
    """Call the service as a person does, over TLS."""
    request = '{"project": "demo", "name": "networks/lan", "lockForSeconds": 30, "proposingPeerToken": "a"}'
    return await run(GRPCURL, *flags, "-max-time", "10", "-d", request, address, f"{SERVICE}/ProposeOperation")


def health_address(server: Server) -> str:
    return server.log.partition("health on ")[2].split(")")[0].split(",")[0]


# --- who is served


async def test_grpcurl_and_the_commands_call_over_mutual_tls(
    serve: Serve, flags: tuple[str | Path, ...], authority: Authority, own: KeyPair
) -> None:
    server = await serve(*flags)
    assert "(mutual TLS)" in server.log
    as_grpcurl = ("-cacert", authority.ca_file, "-cert", own.cert_file, "-key", own.key_file)
    proposed = await call(server.address, *as_grpcurl)
    assert proposed.code == 0, proposed.err
    assert (await call(server.address, "-cacert", authority.ca_file)).code != 0
    assert (await call(server.address, "-plaintext")).code != 0

    as_program = (
        "--address",
        server.address,
        "--ca",
        authority.ca_file,
        "--cert",
        own.cert_file,
        "--key",
        own.key_file,
    )
    listed = await run(PROGRAM, "list", *as_program)
    assert listed.code == 0, listed.err
    assert "networks/lan" in listed.out
    created = await run(
        *(PROGRAM, "create", "demo", "networks/wan", *as_program, "-o", "json", "--request"),
        # A type that the service alone knows: it is asked for it over the same connection.
        '{"@type": "type.googleapis.com/n0stack.infra.v1alpha.ShutdownVirtualMachineRequest", "name": "web-1"}',
    )
    assert created.code == 0, created.err
    by_variables = await run(
        *(PROGRAM, "get", "demo", "networks/lan"),
        OPERATION_SERVICE_ADDRESS=server.address,
        OPERATION_SERVICE_CA=str(authority.ca_file),
        OPERATION_SERVICE_CERT=str(own.cert_file),
        OPERATION_SERVICE_KEY=str(own.key_file),
    )
    assert by_variables.code == 0, by_variables.err
    asked = await run(PROGRAM, "health", *as_program)
    assert (asked.code, asked.out) == (0, f"{server.address} is SERVING\n")

    strange = Authority(authority.ca_file.parent, "other").issue("stranger", common_name="operator")
    expired = authority.issue("expired", common_name="operator", days=(-2, -1))
    for pair in (strange, expired):
        as_stranger = ("--ca", authority.ca_file, "--cert", pair.cert_file, "--key", pair.key_file)
        finished = await run(PROGRAM, "list", "--address", server.address, *as_stranger, "--timeout", "1")
        assert finished.code == 3, finished
    finished = await run(PROGRAM, "health", "--address", server.address, "--ca", authority.ca_file, "--timeout", "1")
    assert finished.code == 1
    assert await server.stop() == 0


async def test_a_tab_key_asks_over_tls(
    serve: Serve, flags: tuple[str | Path, ...], authority: Authority, own: KeyPair
) -> None:
    server = await serve(*flags)
    as_grpcurl = ("-cacert", authority.ca_file, "-cert", own.cert_file, "-key", own.key_file)
    assert (await call(server.address, *as_grpcurl)).code == 0
    completed = await run(
        PROGRAM,
        _OPERATION_SERVICE_COMPLETE="bash_complete",
        COMP_WORDS=f"operation-service get --ca {authority.ca_file} ",
        COMP_CWORD="4",
        OPERATION_SERVICE_ADDRESS=server.address,
        OPERATION_SERVICE_CERT=str(own.cert_file),
        OPERATION_SERVICE_KEY=str(own.key_file),
    )
    assert "demo" in completed.out, completed


async def test_a_certificate_is_replaced_while_it_serves_with_workers(
    serve: Serve, flags: tuple[str | Path, ...], authority: Authority, server_pair: KeyPair, own: KeyPair
) -> None:
    """As Kubernetes does it: the names lead through a link to a folder, and the link is moved."""
    folder = authority.ca_file.parent
    new_authority = Authority(folder, "new-ca")
    mount = folder / "mount"
    for name, cert, key in (
        ("..1", server_pair.cert, server_pair.key),
        ("..2", *((new := new_authority.server("new-server")).cert, new.key)),
    ):
        (mount / name).mkdir(parents=True)
        (mount / name / "tls.crt").write_bytes(cert)
        (mount / name / "tls.key").write_bytes(key)
    (mount / "..data").symlink_to("..1")
    for file in ("tls.crt", "tls.key"):
        (mount / file).symlink_to(f"..data/{file}")
    server = await serve(
        *(*flags[:2], *flags[6:], "--workers", "2"),
        *("--tls-cert", mount / "tls.crt", "--tls-key", mount / "tls.key"),
    )
    assert "(mutual TLS, 2 workers)" in server.log
    as_grpcurl = ("-cert", own.cert_file, "-key", own.key_file)
    assert (await call(server.address, "-cacert", authority.ca_file, *as_grpcurl)).code == 0
    (mount / "..next").symlink_to("..2")
    (mount / "..next").rename(mount / "..data")
    await until_true(lambda: server.log.count("new certificate of") == 2)
    for _ in range(4):
        assert (await call(server.address, "-cacert", new_authority.ca_file, *as_grpcurl)).code == 0
    (mount / "..2" / "tls.key").write_bytes(b"broken")
    await until_true(lambda: server.log.count("stays in use") == 2)
    assert (await call(server.address, "-cacert", new_authority.ca_file, *as_grpcurl)).code == 0
    assert await server.stop() == 0


@pytest.mark.parametrize("more", [(), ("--workers", "2")], ids=str)
async def test_files_that_do_not_answer_hold_up_neither_new_callers_nor_the_end(
    more: tuple[str, ...], serve: Serve, flags: tuple[str | Path, ...], authority: Authority, server_pair: KeyPair
) -> None:
    own = authority.issue("agent", common_name="agent")
    policy = authority.ca_file.with_name("policy.toml")
    policy.write_text('[[bindings]]\nsubjects = ["certificate:agent"]\nroles = ["operate"]\nprojects = ["*"]\n')
    server = await serve(*flags, "--policy", policy, *more)
    who = ("-cacert", authority.ca_file, "-cert", own.cert_file, "-key", own.key_file)
    async with held(server_pair.key_file, policy):
        await until_true(lambda: server.log.count("does its file system answer?") == (4 if more else 2))
        for _ in range(4):
            assert (await call(server.address, *who)).code == 0
        server.send(signal.SIGTERM)
        assert await server.exit_code(seconds=10) == 0


# --- what is refused at the start


@pytest.mark.parametrize("more", [(), ("--workers", "2")], ids=str)
@pytest.mark.parametrize("listen", [ANYWHERE, "[::]:0", "operation.example.com:0"])
async def test_where_others_can_reach_it_it_wants_tls_or_to_be_told(listen: str, more: tuple[str, ...]) -> None:
    line = await refused("--listen", listen, *more)
    assert f"--listen {listen} can be reached by others than this machine" in line
    assert "--tls-cert" in line
    assert "--insecure" in line


@pytest.mark.parametrize("more", [(), ("--workers", "2")], ids=str)
async def test_told_to_be_insecure_it_serves(more: tuple[str, ...], etcd: str, serve: Serve) -> None:
    server = await serve("--etcd-endpoints", etcd, "--listen", ANYWHERE, "--insecure", *more)
    assert await health(server.address.replace("0.0.0.0", "127.0.0.1")) == "SERVING"  # noqa: S104


@pytest.mark.parametrize("more", [(), ("--workers", "2")], ids=str)
async def test_a_wrong_file_is_named_in_one_line(
    authority: Authority, server_pair: KeyPair, tmp_path: Path, more: tuple[str, ...]
) -> None:
    encrypted, curve, edwards = (tmp_path / name for name in ("encrypted", "curve", "edwards"))
    key = ec.generate_private_key(ec.SECP256R1())
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    encrypted.write_bytes(key.private_bytes(pem, form, serialization.BestAvailableEncryption(b"secret")))
    plain = serialization.NoEncryption()
    curve.write_bytes(ec.generate_private_key(ec.SECP521R1()).private_bytes(pem, form, plain))
    edwards.write_bytes(ed25519.Ed25519PrivateKey.generate().private_bytes(pem, form, plain))
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    expired = authority.server("expired", days=(-2, -1))
    future = authority.server("future", days=(1, 2))
    other = authority.server("other")
    old_ca = tmp_path / "old-ca"
    old_ca.write_bytes(expired.cert)
    good = server_pair
    for cert, key_file, ca, flag, words in (
        (tmp_path / "missing", good.key_file, None, "--tls-cert", "No such file"),
        (tmp_path / "empty", good.key_file, None, "--tls-cert", "no certificate"),
        (tmp_path, good.key_file, None, "--tls-cert", "not a file"),
        (tmp_path / "pipe", good.key_file, None, "--tls-cert", "not a file"),
        (good.key_file, good.key_file, None, "--tls-cert", "no certificate"),
        (good.cert_file, tmp_path / "missing", None, "--tls-key", "No such file"),
        (good.cert_file, good.cert_file, None, "--tls-key", "no private key"),
        (good.cert_file, encrypted, None, "--tls-key", "encrypted"),
        (good.cert_file, curve, None, "--tls-key", "P-256"),
        (good.cert_file, edwards, None, "--tls-key", "RSA"),
        (good.cert_file, other.key_file, None, "--tls-key", "not the key of"),
        (expired.cert_file, expired.key_file, None, "--tls-cert", "expired"),
        (future.cert_file, future.key_file, None, "--tls-cert", "not valid before"),
        (good.cert_file, good.key_file, tmp_path / "missing", "--tls-client-ca", "No such file"),
        (good.cert_file, good.key_file, tmp_path / "empty", "--tls-client-ca", "no certificate"),
        (good.cert_file, good.key_file, old_ca, "--tls-client-ca", "expired"),
    )[:: 5 if more else 1]:
        client_ca = ("--tls-client-ca", ca) if ca else ()
        line = await refused("--tls-cert", cert, "--tls-key", key_file, *client_ca, *more)
        named = {"--tls-cert": cert, "--tls-key": key_file, "--tls-client-ca": ca}[flag]
        assert f"{flag} {named}: " in line
        assert words in line


async def test_a_wrong_file_is_found_before_workers_and_an_etcd_are_started(
    authority: Authority, server_pair: KeyPair, tmp_path: Path, binary: EtcdBinary
) -> None:
    other = authority.server("other")
    finished = await run(
        *(PROGRAM, "serve", "--listen", "127.0.0.1:0", "--workers", "2"),
        *("--tls-cert", server_pair.cert_file, "--tls-key", other.key_file),
        *("--data-dir", tmp_path / "data", "--etcd-binary", binary.path),
    )
    assert finished.code == 2
    (line,) = finished.err_lines
    assert "--tls-key" in line
    assert not (tmp_path / "data" / "etcd").exists()


async def test_a_certificate_without_its_key_is_told_in_one_line(server_pair: KeyPair) -> None:
    assert "--tls-key" in await refused("--tls-cert", server_pair.cert_file)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("list", "--cert", "a.crt"), "--key"),
        (("list", "--ca", "missing.crt"), "--ca missing.crt: it cannot be read"),
        (("health", "--ca", "missing.crt"), "missing.crt: it cannot be read"),
        (("list", "--token-file", "missing"), "--token-file missing: it cannot be read"),
        (("list", "--token-file", "missing", "--address", "10.0.0.1:1"), "--plaintext-token"),
    ],
)
async def test_a_wrong_flag_of_a_command_is_told_in_one_line(words: tuple[str, ...], named: str) -> None:
    finished = await run(PROGRAM, *words)
    (line,) = finished.err_lines
    assert finished.code == 2
    assert named in line


# --- the port for probes


@pytest.mark.parametrize("more", [(), ("--workers", "2")], ids=str)
async def test_the_health_alone_is_told_in_plaintext_on_a_port_of_its_own(
    serve: Serve, flags: tuple[str | Path, ...], more: tuple[str, ...]
) -> None:
    server = await serve(*flags, "--health-listen", "127.0.0.1:0", *more)
    address = health_address(server)
    assert await health(address) == await health(address, SERVICE) == "SERVING"
    other = await call(address, "-plaintext")
    assert "Unimplemented" in other.err or "does not support the reflection" in other.err, other.err
    for flags_, variables in (
        (("--health-listen", address), {}),
        ((), {"OPERATION_SERVICE_HEALTH_LISTEN": address}),
        ((), {"OPERATION_SERVICE_HEALTH_LISTEN": address, "OPERATION_SERVICE_LISTEN": server.address}),
        ((), {"OPERATION_SERVICE_HEALTH_LISTEN": address, "OPERATION_SERVICE_CA": "unused.crt"}),
    ):
        asked = await run(PROGRAM, "health", *flags_, **variables)
        assert (asked.code, asked.out) == (0, f"{address} is SERVING\n"), asked
    taken = await run(PROGRAM, "serve", "--listen", "127.0.0.1:0", "--health-listen", address, *flags, *more)
    assert taken.code == 2
    assert taken.err_lines[-1].startswith(f"operation-service: --health-listen: cannot listen on {address}")
    assert await server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_turns_it_not_serving_until_the_calls_in_flight_have_finished(
    number: signal.Signals, serve: Serve, start_etcd: StartEtcd, authority: Authority, server_pair: KeyPair
) -> None:
    etcd = await start_etcd()
    server = await serve(
        *("--tls-cert", server_pair.cert_file, "--tls-key", server_pair.key_file),
        *("--etcd-endpoints", etcd.url, "--health-listen", "127.0.0.1:0"),
    )
    address = health_address(server)
    credentials = grpc.ssl_channel_credentials(authority.ca)
    async with (
        grpc.aio.insecure_channel(address) as channel,
        grpc.aio.secure_channel(server.address, credentials) as secured,
    ):
        watch = watch_health(channel)
        assert (await watch.read()).status == HealthCheckResponse.SERVING
        peer = Peer(secured)
        await peer.propose()
        await etcd.freeze()
        in_flight = asyncio.create_task(peer.append("in flight"))
        # For as long as it takes to reach the service, which has nothing to tell of it.
        await asyncio.wait({in_flight}, timeout=0.3)
        server.send(number)
        assert (await watch.read()).status == HealthCheckResponse.NOT_SERVING
        await until(lambda: is_closed(server.address))
        assert await health(address) == "NOT_SERVING"
        etcd.thaw()
        assert [log.message for log in (await in_flight).logs] == ["in flight"]
    assert await server.exit_code() == 0
    assert "Traceback" not in server.log


async def is_closed(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except ConnectionError:
        return True
    writer.close()
    return False


# --- the page


def own_programs(text: str, server: Server) -> str:
    """A fence of docs/security.md with the tests' own programs and addresses."""
    programs = re.compile(r"^(operation-service|grpcurl)\b", re.MULTILINE)
    text = programs.sub(lambda found: str(PROGRAM.with_name(found[1])), text)
    return text.replace("127.0.0.1:50051", server.address).replace("127.0.0.1:50052", health_address(server))


async def test_what_the_page_shows_of_transport_works_as_it_stands(etcd: str, serve: Serve, tmp_path: Path) -> None:
    transport = ROOT.joinpath("docs/security.md").read_text().partition("\n## Transport\n")[2].partition("\n## ")[0]
    making, serving, calling, script = re.findall(r"```(?:sh|python)\n(.*?)```", transport, re.DOTALL)
    made = await run_in(tmp_path, "bash", "-ec", making)
    assert made.code == 0, made.err
    _, _, *flags = shlex.split(serving)
    at = [str(tmp_path / flag) if (tmp_path / flag).is_file() else flag.replace(":50052", ":0") for flag in flags]
    server = await serve(*at, "--etcd-endpoints", etcd, "--key-prefix", own_prefix())
    assert "(mutual TLS, health on 127.0.0.1:" in server.log
    address = {"OPERATION_SERVICE_ADDRESS": server.address}
    called = await run_in(tmp_path, "bash", "-ec", own_programs(calling, server), **address)
    assert called.code == 0, called.err
    assert "networks/lan" in called.out
    assert "is SERVING" in called.out
    scripted = await run_in(tmp_path, sys.executable, "-c", own_programs(script, server))
    assert scripted.code == 0, scripted.err
    assert "networks/lan" in scripted.out
    wrong = own_programs(calling.replace("agent.key", "ca.key"), server)
    assert (await run_in(tmp_path, "bash", "-ec", wrong, **address)).code != 0
