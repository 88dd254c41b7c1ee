"""An etcd with TLS that wants certificates and users, as operators run it; and the flags of who is let in."""

import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from certificates import Authority, KeyPair
from e2e.support_e2e import Finished, etcdctl_path, run
from e2e.support_etcd import Etcd
from ports import a_port

from operation_service.embedded_binary import EtcdBinary
from operation_service.embedded_member import Member

USER = "operation-service"
PASSWORD = "a pass word: ü"


@dataclass(frozen=True, slots=True)
class GuardedMember(Member):
    """A member that clients reach by TLS alone."""

    @property
    def client_url(self) -> str:
        return f"https://127.0.0.1:{self.client_port}"

    def serves(self) -> bool:
        """Whether it takes connections: a test may have changed the files without which nobody learns more."""
        try:
            socket.create_connection(("127.0.0.1", self.client_port)).close()
        except OSError:
            return False
        return True


@dataclass
class GuardedEtcd:
    """One member, which tests may stop, and start again on the same data with other files."""

    binary: EtcdBinary
    folder: Path
    prefix: str

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._etcd = Etcd(self.binary, self.folder, member=GuardedMember(secrets.token_hex(4), a_port(), a_port()))
        self.authority = Authority(self.folder)
        self.server: KeyPair = self.authority.server("etcd")
        self.client: KeyPair = self.authority.issue("client")
        self.root: KeyPair = self.authority.issue("root", common_name="root")
        self.password_file = self.folder / "password"
        self.password_file.write_text(f"{PASSWORD}\n")

    @property
    def url(self) -> str:
        return self._etcd.url

    @property
    def tls_flags(self) -> list[str]:
        """The service's flags, without a user."""
        return [
            *("--etcd-endpoints", self.url, "--etcd-ca", str(self.authority.ca_file)),
            *("--etcd-cert", str(self.client.cert_file), "--etcd-key", str(self.client.key_file)),
            *("--key-prefix", self.prefix),
        ]

    @property
    def flags(self) -> list[str]:
        """The service's flags."""
        return [*self.tls_flags, "--etcd-user", USER, "--etcd-password-file", str(self.password_file)]

    async def start(self, *flags: str) -> "GuardedEtcd":
        """Start it, and wait until it serves."""
        self._etcd.flags = (
            *("--cert-file", str(self.server.cert_file), "--key-file", str(self.server.key_file)),
            *("--client-cert-auth", "--trusted-ca-file", str(self.authority.ca_file), "--auth-token", "simple"),
            *flags,
        )
        await self._etcd.start()
        return self

    async def stop(self) -> None:
        """End it, if it runs."""
        await self._etcd.kill()

    async def ctl(self, *words: str, user: str | None = "root:root") -> Finished:
        """Call etcdctl as root; it has to work. None: as nobody, which is what the others need."""
        who = ("--user", user) if user else ()
        files = ("--cacert", self.authority.ca_file, "--cert", self.client.cert_file, "--key", self.client.key_file)
        finished = await run(etcdctl_path(), "--endpoints", self.url, *files, *who, *words)
        assert finished.code == 0, finished.err
        return finished

    async def add_users(self) -> None:
        """What the page on security says: one role, with the prefix and nothing else."""
        for words in (
            ("user", "add", "root:root"),
            ("user", "grant-role", "root", "root"),
            ("role", "add", USER),
            ("role", "grant-permission", USER, "--prefix=true", "readwrite", self.prefix),
            ("user", "add", f"{USER}:{PASSWORD}"),
            ("user", "grant-role", USER, USER),
        ):
            await self.ctl(*words, user=None)

    async def enable(self) -> None:
        """Let in only users."""
        await self.ctl("auth", "enable", user=None)
