"""An etcd of a test's own: the one way in which tests start a member."""

import asyncio
import secrets
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from e2e.support_e2e import end, is_frozen, until, until_true
from ports import a_port

from operation_service.embedded_binary import EtcdBinary, etcd_environment
from operation_service.embedded_member import Member


@dataclass
class Etcd:
    """An etcd of the test's own, which may be stopped, killed and started again on the same port and data."""

    binary: EtcdBinary
    data_dir: Path
    flags: tuple[str, ...] = ()
    member: Member = field(default_factory=lambda: Member(f"of-a-test-{secrets.token_hex(4)}", a_port(), a_port()))
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return self.member.client_url

    async def start(self) -> "Etcd":
        """Start it, and wait until it serves."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with (self.data_dir / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                self.binary.path,
                *self.member.flags(self.data_dir / "etcd"),
                *self.flags,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=etcd_environment(),
            )
        await until(self._serves)
        return self

    async def _serves(self) -> bool:
        assert self.process, "it is not started"
        assert self.process.returncode is None, (self.data_dir / "log").read_text()[-2000:]
        return await asyncio.to_thread(self.member.serves)

    async def freeze(self) -> None:
        """Stop it as a hung disk would."""
        assert self.process
        pid = self.process.pid
        self.process.send_signal(signal.SIGSTOP)
        await until_true(lambda: is_frozen(pid))

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """End it as a loss of power would, as far as a process can; does nothing if it has ended."""
        if self.process is not None:
            await end(self.process, signal.SIGKILL)


class StartEtcd(Protocol):
    """Makes an etcd of the test's own, started unless told otherwise; it is ended with the test."""

    async def __call__(self, *flags: str, start: bool = True) -> Etcd: ...
