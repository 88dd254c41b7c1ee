"""The embedded etcd's directory: one owner at a time, etcd's data in `etcd`, etcd's output in `etcd.log`."""

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from operation_service.embedded_binary import EmbeddedEtcdError
from operation_service.embedded_log import EtcdLog

logger = logging.getLogger(__name__)

_TAKE_SECONDS = 8.0
"""How long to wait for the etcd of a killed predecessor: after its SIGTERM it gives its clients up to 7 s."""

_TAKE_POLL_SECONDS = 0.1


class DataDir:
    """The directory, and the lock that says whose it is.

    `lock` is locked with flock, and etcd inherits the descriptor: the lock is free only when the service *and* its
    etcd are gone, however they went. It holds the pids of both, for people; only the lock itself decides.

    Attributes:
        path: The directory, absolute.
        etcd_path: What etcd gets as its data directory.
        log: What etcd writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.etcd_path = self.path / "etcd"
        self._lock_path = self.path / "lock"
        self._unserved_path = self.path / "etcd.unserved"
        self.log = EtcdLog(self.path / "etcd.log")
        self._lock: int | None = None

    @property
    def lock_descriptor(self) -> int:
        """The descriptor that etcd has to inherit."""
        assert self._lock is not None, "the directory is not taken"  # noqa: S101 - a bug of ours, not a state of things
        return self._lock

    async def take(self) -> None:
        """Make the directory (mode 0700) if it is missing, and become its owner.

        Waits some seconds for the etcd of a service that was killed.

        Raises:
            EmbeddedEtcdError: Somebody else owns it, or it cannot be written to, or is none.
        """
        with self._usable():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                await self._lock_within_time(descriptor)
                # From here on it is ours. And if we are killed right here? The pids in the file are the predecessor's
                # then, and the lock is free.
                self._prepare()
            except BaseException:
                os.close(descriptor)
                raise
        self._lock = descriptor
        self.note_owner(etcd_pid=None)

    def note_owner(self, etcd_pid: int | None) -> None:
        """Write down whose the directory is; a disk that is full is no reason to fail."""
        with contextlib.suppress(OSError):
            os.ftruncate(self.lock_descriptor, 0)
            os.pwrite(self.lock_descriptor, f"{os.getpid()}\n{etcd_pid or ''}\n".encode(), 0)

    def note_served(self) -> None:
        """Write down that etcd has served: from now on its data may hold what somebody was told is kept.

        Raises:
            OSError: It cannot be written down.
        """
        if self._unserved_path.exists():
            self._unserved_path.unlink()
            # It must not come back after a loss of power, and make us set aside good data.
            self._sync()

    def release(self) -> None:
        """Give the directory away; does nothing if it is not taken. An etcd that still lives keeps it all the same."""
        if self._lock is None:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(self._lock, 0)
        # Not removed: whoever waits for it would then lock a file that nobody else sees.
        os.close(self._lock)
        self._lock = None

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = f"{error.filename or self._lock_path}"
            why = "not a directory" if isinstance(error, FileExistsError) else error.strerror
            raise EmbeddedEtcdError(f"the data directory {self.path} cannot be used: {where}: {why}") from error

    def _prepare(self) -> None:
        # And if the very first start is killed in the middle? An etcd that ends within some milliseconds of making its
        # log has no member in there, and never elects a leader again (3.4.23 and 3.5.1 alike). So a mark says that
        # nobody can have written anything yet, and lets us begin anew.
        if self._unserved_path.exists() and self.etcd_path.exists():
            aside = self.path / "etcd.unfinished"
            shutil.rmtree(aside, ignore_errors=True)
            self.etcd_path.rename(aside)
            logger.warning("the first start of etcd in %s was cut short, beginning anew", self.path)
        self.etcd_path.mkdir(mode=0o700, exist_ok=True)
        if not any(self.etcd_path.iterdir()):
            self._unserved_path.touch()
            self._sync()
        self.log.open().close()

    def _sync(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    async def _lock_within_time(self, descriptor: int) -> None:
        until = asyncio.get_running_loop().time() + _TAKE_SECONDS
        while not _try_lock(descriptor):
            service_pid, etcd_pid = self._owner(descriptor)
            # The etcd of a service that was killed is about to end, and worth waiting for; a service that lives is not.
            if _is_alive(service_pid) or asyncio.get_running_loop().time() >= until:
                who = f" (process {service_pid}, its etcd {etcd_pid}, as {self._lock_path} says)" if service_pid else ""
                raise EmbeddedEtcdError(
                    f"the data directory {self.path} is in use by another operation-service{who}: "
                    "end that one, or use another --data-dir"
                )
            await asyncio.sleep(_TAKE_POLL_SECONDS)

    @staticmethod
    def _owner(descriptor: int) -> tuple[int, int]:
        """Return the pids that the lock file has of the service and its etcd. 0: it has none."""
        pids = [int(pid) for pid in os.pread(descriptor, 100, 0).split() if pid.isdigit()]
        service_pid, etcd_pid, *_ = [*pids, 0, 0]
        return service_pid, etcd_pid


def _is_alive(pid: int) -> bool:
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
