"""An etcd with TLS that wants certificates and users, as operators run it; and the flags of who is let in."""

import asyncio
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from certificates import Authority, KeyPair
from e2e.support_e2e import Finished, etcdctl_path, run, until
from ports import a_port

from operation_service.embedded_binary import EtcdBinary, etcd_environment

USER = "operation-service"
PASSWORD = "a pass word: ü"


@dataclass
class GuardedEtcd:
    """One member, which tests may stop, and start again on the same data with other files."""

    binary: EtcdBinary
    folder: Path
    prefix: str
    port: int = field(default_factory=a_port)
    peer_port: int = field(default_factory=a_port)
    name: str = field(default_factory=lambda: secrets.token_hex(4))
    process: asyncio.subprocess.Process | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.authority = Authority(self.folder)
        self.server: KeyPair = self.authority.server("etcd")
        self.client: KeyPair = self.authority.issue("client")
        self.root: KeyPair = self.authority.issue("root", common_name="root")
        self.password_file = self.folder / "password"
        self.password_file.write_text(f"{PASSWORD}\n")

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

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
        peer = f"http://127.0.0.1:{self.peer_port}"
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                self.binary.path,
                *("--name", self.name, "--data-dir", str(self.folder / "data")),
                *("--listen-client-urls", self.url, "--advertise-client-urls", self.url),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"{self.name}={peer}"),
                *("--cert-file", str(self.server.cert_file), "--key-file", str(self.server.key_file)),
                *("--client-cert-auth", "--trusted-ca-file", str(self.authority.ca_file), "--auth-token", "simple"),
                *flags,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=etcd_environment(),
            )
        await until(self._serves)
        return self

    async def _serves(self) -> bool:
        assert self.process
        assert self.process.returncode is None, (self.folder / "log").read_text()[-2000:]
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    async def stop(self) -> None:
        """End it, if it runs."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

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
