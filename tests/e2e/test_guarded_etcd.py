"""The real service over a real etcd with TLS, client certificates and users that have the least permissions."""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from certificates import Authority
from e2e.support_e2e import PROGRAM, ROOT, Serve, Server, etcdctl_path, run, run_in, until, until_health, until_true
from e2e.support_guarded_etcd import PASSWORD, USER, GuardedEtcd
from etcd3 import etcdrpc
from held_files import held
from support import Peer, connected, event_name, messages, refused, state_name

from operation_service.clock import Deadline
from operation_service.embedded_binary import EtcdBinary
from operation_service.etcd_client import EtcdClient
from operation_service.settings_tls import EtcdAccess

PAGE = ROOT / "docs" / "security.md"
PREFIX = "/n0stack/operation/"


@pytest.fixture
async def guarded(tmp_path: Path, binary: EtcdBinary) -> AsyncIterator[GuardedEtcd]:
    etcd = GuardedEtcd(binary, tmp_path / "guarded", PREFIX)
    await etcd.start()
    await etcd.add_users()
    await etcd.enable()
    yield etcd
    await etcd.stop()


def without_secrets(server: Server) -> None:
    assert PASSWORD not in server.log
    assert "Traceback" not in server.log


async def all_nine(peer: Peer) -> None:
    watch = await peer.watching(start_revision=0)
    await peer.create()
    await peer.propose(log_message="begun")
    fence = peer.fencing_token
    await peer.propose(fence=fence)
    await peer.append("a step", fence=fence)
    assert messages(await peer.logs()) == ["begun", "a step"]
    assert await peer.state() == "LOCKED"
    assert len((await peer.list()).operations) == 1
    await peer.complete(fence=fence)
    await peer.create("virtual_machines/web-2")
    await peer.cancel("virtual_machines/web-2")
    events = [event_name((await watch.read()).event) for _ in range(7)]
    assert events == ["CREATED", "LOCKED", "RENEWED", "LOGGED", "SUCCEEDED", "CREATED", "CANCELLED"]
    assert (await refused(peer.named("other").append())).reason == "NOT_LOCKED"


async def test_with_the_prefix_alone_everything_works(guarded: GuardedEtcd, serve: Serve) -> None:
    server = await serve(*guarded.flags, "--retention-seconds", "1")
    await until_health(server.address, "SERVING")
    async with connected(server.address) as peer:
        await all_nine(peer)

        async def is_gone() -> bool:
            return not (await peer.list()).operations

        # Leases end, and the janitor cleans up.
        await until(is_gone)
        watch = await peer.watching(start_revision=0)
        await peer.propose("vm/dies", lock_for_seconds=2)
        told = [event_name((await watch.read()).event) for _ in range(2)]
        assert told == ["LOCKED", "EXPIRED"]
    assert "permission" not in server.log
    without_secrets(server)


async def test_workers_are_let_in_too(guarded: GuardedEtcd, serve: Serve) -> None:
    server = await serve(*guarded.flags, "--workers", "2")
    await until_health(server.address, "SERVING")
    async with connected(server.address) as peer:
        await peer.propose()
    assert await server.stop() == 0
    without_secrets(server)


async def test_break_lock_takes_the_same_flags(guarded: GuardedEtcd, serve: Serve) -> None:
    server = await serve(*guarded.flags)
    async with connected(server.address) as peer:
        await peer.propose(lock_for_seconds=3600)
        words = ("break-lock", "project", "virtual_machines/web-1", "--reason", "gone", "--yes")
        variables = {
            f"OPERATION_SERVICE_{flag.removeprefix('--').replace('-', '_').upper()}": value
            for flag, value in zip(guarded.flags[::2], guarded.flags[1::2], strict=True)
        }
        broken = await run(PROGRAM, *words, **variables)
        assert broken.code == 0, broken.err
        assert await peer.state() == "EXPIRED"


async def test_break_lock_tells_in_one_line_what_is_wrong_with_the_way_to_etcd(
    guarded: GuardedEtcd, serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "strangers").mkdir()
    stranger = Authority(tmp_path / "strangers", "stranger")
    wrong_password = tmp_path / "wrong"
    wrong_password.write_text("wr0ng\n")
    at = guarded.flags.index("--etcd-cert")
    words = ("break-lock", "project", "virtual_machines/web-1", "--reason", "gone", "--yes", "--timeout", "4")
    server = await serve(*guarded.flags)
    async with connected(server.address) as peer:
        await peer.propose(lock_for_seconds=3600)
        for flags, named, code in (
            (flags_with(guarded.flags, "--etcd-password-file", wrong_password), "--etcd-password-file", 7),
            (flags_with(guarded.flags, "--etcd-user", "nobody"), "--etcd-user", 7),
            (guarded.tls_flags, "--etcd-user", 7),
            (flags_with(guarded.flags, "--key-prefix", "/elsewhere/"), "--key-prefix", 7),
            (flags_with(guarded.flags, "--etcd-ca", stranger.ca_file), "--etcd-ca", 3),
            ([*guarded.flags[:at], *guarded.flags[at + 4 :]], "--etcd-cert", 3),
        ):
            refusal = await run(PROGRAM, *words, *flags)
            (line,) = refusal.err_lines
            assert (refusal.code, refusal.out) == (code, ""), refusal
            assert named in line
            assert "nothing was done" in line
            assert "try again" not in line
        assert await peer.state() == "LOCKED"


async def lose_by_auth(etcd: GuardedEtcd) -> None:
    await etcd.ctl("auth", "disable")
    await etcd.enable()


async def lose_by_restart(etcd: GuardedEtcd) -> None:
    await etcd.stop()
    await etcd.start()


@pytest.mark.parametrize("lose", [lose_by_auth, lose_by_restart], ids=["auth enabled again", "etcd restarted"])
async def test_a_token_that_is_lost_is_renewed_under_calls_and_watches(
    guarded: GuardedEtcd, serve: Serve, lose: object
) -> None:
    server = await serve(*guarded.flags)
    async with connected(server.address) as peer:
        watch = await peer.watching(start_revision=0)
        await peer.propose("vm/kept", lock_for_seconds=600)
        fence = peer.fencing_token
        failures: list[str] = []
        is_over = asyncio.Event()

        async def keep_calling(name: str) -> int:
            made = 0
            caller = peer.named(name)
            while not is_over.is_set():
                try:
                    await caller.propose(f"vm/{name}", log_message=str(made))
                    made += 1
                except Exception as error:  # noqa: BLE001, judged below
                    failures.append(str(error))
                await asyncio.sleep(0.01)
            return made

        calling = [asyncio.create_task(keep_calling(f"caller-{number}")) for number in range(8)]
        await asyncio.sleep(0.3)
        await (lose_by_auth(guarded) if lose is lose_by_auth else lose_by_restart(guarded))
        await until_health(server.address, "SERVING")
        await peer.propose("vm/kept", lock_for_seconds=600, fence=fence)
        is_over.set()
        assert all(await asyncio.gather(*calling))
        if lose is lose_by_auth:
            assert failures == []
        await peer.propose("vm/last")
        while (await watch.read()).operation.name != "vm/last":
            pass
    assert "invalid auth token" not in server.log
    without_secrets(server)


async def test_a_wrong_password_is_told_not_hammered_and_recovered_from(guarded: GuardedEtcd, serve: Serve) -> None:
    guarded.password_file.write_text("wr0ng\n")
    server = await serve(*guarded.flags)
    await until_health(server.address, "NOT_SERVING")
    await until_true(lambda: "--etcd-password-file" in server.log)
    async with connected(server.address) as peer:
        refusal = await refused(peer.propose())
        assert (refusal.code.name, refusal.reason) == ("UNAVAILABLE", "ETCD_UNAVAILABLE")
        assert "--etcd-password-file" in refusal.message
        lines = server.log.count("\n")
        await asyncio.gather(*(refused(peer.propose(f"vm/{number}")) for number in range(50)))
        assert server.log.count("\n") == lines, server.log
        guarded.password_file.write_text(f"{PASSWORD}\n")
        await until_health(server.address, "SERVING")
        await peer.propose()
        # And rotated: etcd first, which makes the user's tokens invalid.
        await guarded.ctl("user", "delete", USER)
        await guarded.ctl("user", "add", f"{USER}:another")
        await guarded.ctl("user", "grant-role", USER, USER)
        await until_health(server.address, "NOT_SERVING")
        guarded.password_file.write_text("another\n")
        await until_health(server.address, "SERVING")
    assert "wr0ng" not in server.log
    without_secrets(server)


async def test_a_password_that_is_in_the_file_before_etcd_knows_it_fails_no_call(guarded: GuardedEtcd) -> None:
    """Nobody looks at the file in the meantime: that is done when a token is needed."""
    flags = dict(zip(guarded.flags[::2], guarded.flags[1::2], strict=True))
    access = EtcdAccess(
        ca=Path(flags["--etcd-ca"]),
        cert=Path(flags["--etcd-cert"]),
        key=Path(flags["--etcd-key"]),
        user=USER,
        password_file=guarded.password_file,
    )
    client = EtcdClient([guarded.url], access=access)
    ask = etcdrpc.RangeRequest(key=PREFIX.encode())
    try:
        await client.range(ask, Deadline(10))
        guarded.password_file.write_text("another\n")
        await guarded.ctl("user", "delete", USER)
        await guarded.ctl("user", "add", f"{USER}:another")
        await guarded.ctl("user", "grant-role", USER, USER)
        await client.range(ask, Deadline(10))
    finally:
        await client.close()


async def test_a_user_without_permission_is_told_and_works_once_it_has_it(guarded: GuardedEtcd, serve: Serve) -> None:
    await guarded.ctl("role", "revoke-permission", USER, "--prefix=true", PREFIX)
    server = await serve(*guarded.flags)
    await until_health(server.address, "NOT_SERVING")
    await until_true(lambda: "grant its role readwrite" in server.log)
    await guarded.ctl("role", "grant-permission", USER, "--prefix=true", "readwrite", PREFIX)
    await until_health(server.address, "SERVING")
    async with connected(server.address) as peer:
        await all_nine(peer)


async def test_users_may_be_given_before_etcd_enables_them(tmp_path: Path, binary: EtcdBinary, serve: Serve) -> None:
    etcd = await GuardedEtcd(binary, tmp_path / "guarded", PREFIX).start()
    try:
        await etcd.add_users()
        server = await serve(*etcd.flags)
        await until_true(lambda: "etcdctl auth enable" in server.log)
        async with connected(server.address) as peer:
            watch = await peer.watching(start_revision=0)
            await peer.propose()
            await etcd.enable()
            await peer.propose(fence=peer.fencing_token)
            assert [event_name((await watch.read()).event) for _ in range(2)] == ["LOCKED", "RENEWED"]
        assert server.log.count("etcdctl auth enable") == 1
    finally:
        await etcd.stop()


def flags_with(flags: Sequence[str], flag: str, value: object) -> list[str]:
    at = list(flags).index(flag)
    return [*flags[: at + 1], str(value), *flags[at + 2 :]]


async def test_wrong_certificates_are_told_by_what_is_wrong(guarded: GuardedEtcd, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "strangers").mkdir()
    stranger = Authority(tmp_path / "strangers", "stranger")
    guarded.server = guarded.authority.issue("elsewhere", dns=("elsewhere.example",), ips=("127.0.0.1",))
    await guarded.stop()
    await guarded.start()
    other_name = guarded.url.replace("127.0.0.1", "localhost")
    at = guarded.flags.index("--etcd-cert")
    wrong = {
        "none of the CAs of --etcd-ca": flags_with(guarded.flags, "--etcd-ca", stranger.ca_file),
        "wants one: see --etcd-cert": [*guarded.flags[:at], *guarded.flags[at + 4 :]],
        "not for the host name in --etcd-endpoints": flags_with(guarded.flags, "--etcd-endpoints", other_name),
    }
    for what, flags in wrong.items():
        server = await serve(*flags)
        await until_health(server.address, "NOT_SERVING")
        await until_true(lambda server=server, what=what: what in server.log)  # type: ignore[misc]
        async with connected(server.address) as peer:
            assert what in (await refused(peer.propose())).message


async def test_an_expired_certificate_of_etcd_is_told_and_a_new_one_is_taken(
    guarded: GuardedEtcd, serve: Serve
) -> None:
    server = await serve(*guarded.flags)
    await until_health(server.address, "SERVING")
    good = guarded.server
    await guarded.stop()
    guarded.server = guarded.authority.server("expired", days=(-3, -1))
    await guarded.start()
    await until_true(lambda: "its certificate has expired" in server.log)
    await until_health(server.address, "NOT_SERVING")
    await guarded.stop()
    guarded.server = good
    await guarded.start()
    await until_health(server.address, "SERVING")


async def test_certificates_are_renewed_without_a_restart(guarded: GuardedEtcd, serve: Serve) -> None:
    server = await serve(*guarded.flags)
    await until_health(server.address, "SERVING")
    client = guarded.client
    old_key = client.key_file.read_bytes()
    # In the middle of a renewal: the certificate is new, its key is not. The last good ones go on.
    renewed = guarded.authority.issue("renewed")
    shutil.copy(renewed.cert_file, client.cert_file)
    await guarded.stop()
    await guarded.start()
    await until_true(lambda: "it is not the key of the (first) certificate in" in server.log)
    await until_health(server.address, "SERVING")
    assert client.key_file.read_bytes() == old_key
    shutil.copy(renewed.key_file, client.key_file)
    await guarded.stop()
    await guarded.start()
    await until_true(lambda: f"--etcd-key {client.key_file}: what is in them now is in use" in server.log)
    await until_health(server.address, "SERVING")
    assert server.log.count("it is not the key of the (first) certificate in") == 1


async def test_files_that_do_not_answer_hold_up_neither_calls_nor_new_connections_nor_the_end(
    guarded: GuardedEtcd, serve: Serve
) -> None:
    server = await serve(*guarded.flags)
    await until_health(server.address, "SERVING")
    async with held(guarded.client.cert_file, guarded.password_file), connected(server.address) as peer:
        await until_true(lambda: server.log.count("does its file system answer?") == 2)
        await peer.propose()
        # A new connection, and a new token.
        await guarded.stop()
        await until_health(server.address, "NOT_SERVING", seconds=10)
        await guarded.start()
        await until_health(server.address, "SERVING", seconds=10)
        await peer.propose(fence=peer.fencing_token)
        server.send(signal.SIGTERM)
        assert await server.exit_code(seconds=10) == 0
    assert server.log.count("does its file system answer?") == 2
    without_secrets(server)


async def test_bad_files_end_it_at_once_with_one_line(guarded: GuardedEtcd, serve: Serve, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    encrypted = tmp_path / "encrypted.key"
    made = await run(
        *("openssl", "pkey", "-in", guarded.client.key_file, "-aes128", "-passout", "pass:x", "-out", encrypted)
    )
    assert made.code == 0, made.err
    missing = tmp_path / "missing"
    expired, early = (guarded.authority.issue(f"{days[0]}", days=days) for days in ((-2, -1), (1, 2)))
    for flag, value, what in (
        ("--etcd-ca", missing, "cannot be read"),
        ("--etcd-ca", empty, "no certificate"),
        ("--etcd-cert", empty, "no certificate"),
        ("--etcd-cert", expired.cert_file, "has expired"),
        ("--etcd-cert", early.cert_file, "is not valid before"),
        ("--etcd-key", empty, "no private key"),
        ("--etcd-key", guarded.server.key_file, "is not the key of"),
        ("--etcd-key", encrypted, "is encrypted"),
        ("--etcd-password-file", missing, "cannot be read"),
        ("--etcd-password-file", empty, "is empty"),
    ):
        for workers in ("1", "2"):
            server = await serve(*flags_with(guarded.flags, flag, value), "--workers", workers, wait=False)
            assert await server.exit_code() == 2, (flag, what)
            line = server.log
            assert line.count("\n") == 1, line
            assert f"{flag} {value}: " in line
            assert what in line


async def test_without_a_user_the_name_in_the_certificate_is_one(guarded: GuardedEtcd, serve: Serve) -> None:
    """etcd takes the common name for the user, if a call has no token."""
    guarded.client = guarded.authority.issue("by-name", common_name=USER)
    server = await serve(*guarded.tls_flags)
    await until_health(server.address, "SERVING")
    async with connected(server.address) as peer:
        await all_nine(peer)
        assert state_name((await peer.get()).state) == "SUCCEEDED"
    assert await server.stop(signal.SIGTERM) == 0


async def test_the_commands_of_the_page_are_enough(tmp_path: Path, binary: EtcdBinary, serve: Serve) -> None:
    users, serving = re.findall(
        r"```sh\n((?:etcdctl|operation-service serve --etcd).*?)```", PAGE.read_text(), re.DOTALL
    )
    etcd = await GuardedEtcd(binary, tmp_path / "guarded", PREFIX).start()
    try:
        (tmp_path / "root-password").write_text("root\n")
        (tmp_path / "password").write_text("secret\n")
        for name, file in {
            "ca.crt": etcd.authority.ca_file,
            "admin.crt": etcd.client.cert_file,
            "admin.key": etcd.client.key_file,
            "etcdctl": etcdctl_path(),
        }.items():
            (tmp_path / name).symlink_to(file)
        assert "https://etcd-1:2379" in users
        done = await run_in(
            tmp_path,
            *("bash", "-euc", users.replace("https://etcd-1:2379", etcd.url)),
            PATH=f"{tmp_path}:{os.environ['PATH']}",
        )
        assert done.code == 0, done.err
        assert f"User: {USER}\nRoles: {USER}" in done.out
        etcd.password_file.write_text("secret\n")
        flags = dict(zip(etcd.flags[::2], etcd.flags[1::2], strict=True))
        assert set(re.findall(r"--[a-z-]+", serving)) == flags.keys() - {"--key-prefix"}
        assert f"--etcd-user {flags['--etcd-user']}" in serving
        server = await serve(*etcd.flags)
        await until_health(server.address, "SERVING")
        async with connected(server.address) as peer:
            await all_nine(peer)
    finally:
        await etcd.stop()


async def test_a_token_that_has_run_out_is_renewed(tmp_path: Path, binary: EtcdBinary, serve: Serve) -> None:
    if binary.version < (3, 5):
        pytest.skip("how long a token lasts can be said from etcd 3.5 on; of 3.4 the other tests lose theirs")
    # JSON Web Tokens, which use does not keep alive, run out for sure, and a change of users makes them old.
    key, public = tmp_path / "jwt.key", tmp_path / "jwt.pub"
    for words in (("genrsa", "-out", key, "2048"), ("rsa", "-in", key, "-pubout", "-out", public)):
        assert (await run("openssl", *words)).code == 0
    etcd = GuardedEtcd(binary, tmp_path / "guarded", PREFIX)
    await etcd.start("--auth-token", f"jwt,pub-key={public},priv-key={key},sign-method=RS256,ttl=2s")
    try:
        await etcd.add_users()
        await etcd.enable()
        server = await serve(*etcd.flags)
        await until_health(server.address, "SERVING")
        async with connected(server.address) as peer:
            watch = await peer.watching(start_revision=0)
            await peer.propose(lock_for_seconds=600)
            loop = asyncio.get_running_loop()
            until_time, renewals = loop.time() + 5, 0
            while loop.time() < until_time:
                await peer.propose(lock_for_seconds=600, fence=peer.fencing_token)
                renewals += 1
                if renewals == 1:
                    await etcd.ctl("role", "add", "another")
            told = [event_name((await watch.read()).event) for _ in range(renewals + 1)]
            assert told == ["LOCKED", *["RENEWED"] * renewals]
        assert "ERROR" not in server.log
        without_secrets(server)
    finally:
        await etcd.stop()
