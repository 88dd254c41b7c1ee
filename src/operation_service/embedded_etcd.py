"""An etcd of the service's own: one member, on loopback only, started, watched over and ended with the service."""

import asyncio
import contextlib
import logging
import os
import sys
from pathlib import Path

from operation_service import backoff, embedded_exec
from operation_service.backoff import Backoff, how_it_ended
from operation_service.embedded_binary import (
    EmbeddedEtcdError,
    EtcdBinary,
    durability_warning,
    etcd_environment,
    find_etcd_binary,
)
from operation_service.embedded_data_dir import DataDir
from operation_service.embedded_member import Member
from operation_service.settings import Settings, default_data_dir

__all__ = ["EmbeddedEtcd", "EmbeddedEtcdError", "EtcdBinary", "find_etcd_binary", "start_embedded_etcd"]

logger = logging.getLogger(__name__)

_START_SECONDS = 20.0
"""How long etcd may take until it serves; it takes about 1 s, with much to read back some more."""

_STOP_SECONDS = 10.0
"""How long etcd may take to end in good order; it gives its clients up to 7 s."""

_PROBE_PAUSE_SECONDS = 0.05

_PORT_ATTEMPTS = 5
"""How often other ports are tried when somebody else was faster."""


class EmbeddedEtcd:
    """Runs `binary` on `data_dir` from `start` to `stop`, and starts it again whenever it ends in between.

    Start it on an event loop of a thread that lives as long as the process, as the main thread: Linux ends etcd with
    the thread that started it (see embedded_exec).
    """

    def __init__(self, binary: EtcdBinary, data_dir: Path) -> None:
        self._binary = binary
        self._data_dir = DataDir(data_dir)
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._lifeline: tuple[int, int] | None = None

    async def start(self) -> str:
        """Start etcd, and return its client URL once it serves.

        Takes about 1 s; up to 8 s more while another etcd is about to leave the data directory. After a failure
        nothing is left running, and it may be tried again.

        Raises:
            EmbeddedEtcdError: The data directory is in use or cannot be used, or etcd did not come up within 20 s.
        """
        if warning := durability_warning(self._binary):
            logger.warning("%s", warning)
        await self._data_dir.take()
        try:
            self._lifeline = os.pipe()
            member, process = await self._start_on_free_ports(self._lifeline[0])
            self._data_dir.note_served()
        except OSError as error:
            await self.stop()
            raise EmbeddedEtcdError(f"the embedded etcd cannot be started: {error}") from error
        except BaseException:
            await self.stop()
            raise
        supervision = self._supervise(member, process, self._lifeline[0])
        self._supervisor = asyncio.create_task(supervision, name="embedded-etcd")
        return member.client_url

    async def stop(self) -> None:
        """End etcd (SIGTERM; SIGKILL after 10 s) and give the data directory away.

        Close the connections to it first: etcd waits for its clients. May be called at any time, and again.
        """
        if self._supervisor:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
            self._supervisor = None
        if self._process:
            await _end(self._process)
            self._process = None
        # And if we are killed before we got here? etcd gets its SIGTERM from the kernel, and the lock is free after it.
        if self._lifeline:
            for end in self._lifeline:
                os.close(end)
            self._lifeline = None
        self._data_dir.release()

    async def _start_on_free_ports(self, lifeline: int) -> tuple[Member, asyncio.subprocess.Process]:
        for _ in range(_PORT_ATTEMPTS):
            member = Member.choose()
            # And if we are asleep right here? Others may take the ports: etcd says so, and we choose again.
            process = await self._spawn(member, lifeline)
            if await _comes_up(member, process):
                return member, process
            words = self._data_dir.log.last_words()
            if process.returncode is None:
                raise EmbeddedEtcdError(f"the embedded etcd does not serve after {_START_SECONDS:.0f} s: {words}")
            if "address already in use" not in words:
                raise EmbeddedEtcdError(
                    f"the embedded etcd ({self._binary.path}) cannot run on {self._data_dir.path}: {words}"
                )
        raise EmbeddedEtcdError(f"the embedded etcd found no free port in {_PORT_ATTEMPTS} attempts: {words}")

    async def _spawn(self, member: Member, lifeline: int) -> asyncio.subprocess.Process:
        with self._data_dir.log.open() as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", embedded_exec.__file__, str(os.getpid())),
                *(str(self._binary.path), *member.flags(self._data_dir.etcd_path)),
                stdin=lifeline,
                stdout=log,
                stderr=log,
                cwd=self._data_dir.path,
                env=etcd_environment(),
                pass_fds=(self._data_dir.lock_descriptor,),
                # Out of the terminal's group: Ctrl-C is for the service, which still needs its etcd to end in order.
                start_new_session=True,
            )
        self._data_dir.note_owner(self._process.pid)
        return self._process

    async def _supervise(self, member: Member, process: asyncio.subprocess.Process, lifeline: int) -> None:
        """Start etcd again, for ever, on the same data and ports: the service's connections find it by themselves.

        The data holds what calls were told is done: there is nothing else to go on with, so there is no giving up.
        """
        clock = asyncio.get_running_loop().time
        pauses, since = Backoff(), clock()
        while True:
            code = await process.wait()
            pause, how, words = pauses.pause_after(clock() - since), how_it_ended(code), self._data_dir.log.last_words()
            logger.warning("the embedded etcd ended %s, starting it again in %.1f s: %s", how, pause, words)
            process = await self._spawn_again(member, lifeline, pause)
            since = clock()
            if await _comes_up(member, process):
                logger.info("the embedded etcd serves again (process %d)", process.pid)
            elif process.returncode is None:
                logger.warning("the embedded etcd does not serve after %.0f s, waiting for it", _START_SECONDS)

    async def _spawn_again(self, member: Member, lifeline: int, pause: float) -> asyncio.subprocess.Process:
        while True:
            await asyncio.sleep(pause)
            try:
                return await self._spawn(member, lifeline)
            except OSError as error:  # no memory, no descriptors, a full disk: they may come back
                pause = backoff.LONGEST_SECONDS
                logger.warning("the embedded etcd cannot be started, trying again in %.1f s: %s", pause, error)


async def start_embedded_etcd(settings: Settings, stack: contextlib.AsyncExitStack) -> str:
    """Start the etcd that settings without endpoints ask for, until the stack is left; return its client URL.

    Raises:
        EmbeddedEtcdError: It cannot be started.
        SettingsError: There is no place for its data.
    """
    etcd = EmbeddedEtcd(await find_etcd_binary(settings.etcd_binary), settings.data_dir or default_data_dir())
    stack.push_async_callback(etcd.stop)
    return await etcd.start()


async def _comes_up(member: Member, process: asyncio.subprocess.Process) -> bool:
    """Wait until etcd serves; False if it ended, or takes too long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START_SECONDS):
            while process.returncode is None:
                if await asyncio.to_thread(member.serves):
                    return True
                await asyncio.sleep(_PROBE_PAUSE_SECONDS)
    return False


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        logger.warning("the embedded etcd did not end within %.0f s of SIGTERM, killing it", _STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
