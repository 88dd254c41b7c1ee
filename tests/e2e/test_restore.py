"""What docs/operations.md says of a restore: what comes back, what goes back, and how fencing tokens go on growing."""

from pathlib import Path

from e2e.support_e2e import Serve, etcdctl, etcdctl_path, run
from support import Peer, connected, refused

LOCKS = "/n0stack/operation/locks/"


def fencing_token(holder: Peer) -> int:
    assert holder.fencing_token
    return holder.fencing_token


async def test_a_restore_takes_locks_and_fencing_tokens_back_until_the_revision_is_raised(
    tmp_path: Path, serve: Serve
) -> None:
    backup, restored = tmp_path / "backup.db", tmp_path / "restored"
    server = await serve("--data-dir", tmp_path / "kept")
    async with connected(server.address) as former:
        await former.propose("a", lock_for_seconds=600)
        await etcdctl(server.etcd_url, "snapshot", "save", str(backup))
        await former.complete("a")
        later = former.named("later")
        for _ in range(2):
            await later.propose("a", lock_for_seconds=600)
            await later.complete("a")
        await later.propose("a", lock_for_seconds=600)
        largest = fencing_token(later)
        await later.propose("b", lock_for_seconds=600)
    await server.stop()

    restored.mkdir(mode=0o700)
    done = await run(etcdctl_path(), "snapshot", "restore", backup, "--data-dir", restored / "etcd")
    assert done.code == 0, done.err
    server = await serve("--data-dir", restored)
    async with connected(server.address) as peer:
        # Whose lock had ended is its holder again; whose lock came later has none, and learns it by its fencing token.
        record = await peer.get("a")
        assert record.operation.proposing_peer_token == former.token
        assert record.remaining.ToTimedelta().total_seconds() > 580
        later = peer.named("later")
        assert (await refused(later.propose("a"))).reason == "LOCKED"
        assert (await refused(later.propose("a", fence=largest))).reason == "FENCING_TOKEN_MISMATCH"
        assert (await refused(later.propose("b", fence=largest + 1))).reason == "FENCING_TOKEN_MISMATCH"
        assert (await refused(later.get("b"))).reason == "NOT_FOUND"
        watch = later.watch(start_revision=largest + 2)
        assert (await refused(watch.read())).reason == "REVISION_IN_FUTURE"

        assert await etcdctl(server.etcd_url, "del", "--prefix", LOCKS) == "1\n"
        assert await peer.state("a") == "EXPIRED"
        other = peer.named("other")
        await other.propose("a")
        assert fencing_token(other) < largest
        await other.complete("a")
        for number in range(largest):
            await etcdctl(server.etcd_url, "put", "/raised", str(number))
        await other.propose("a")
        assert fencing_token(other) > largest
