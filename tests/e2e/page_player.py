"""Plays a page: starts its service, runs its commands and scripts, and tells what is not as the page shows it."""

import asyncio
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from e2e.page_blocks import Command, Script, session
from e2e.page_masks import is_shown
from e2e.page_shell import Shell, shell
from e2e.support_e2e import ROOT, Serve, Server, etcdctl_path, run_in

READS = re.compile(
    r"call (Get|List)|etcdctl (get|alarm list|endpoint)|grep |(\.venv/bin/)?operation-service (health|list|get|logs)\b"
)
"""Commands that change nothing: repeated until they show what the page shows, since an expiry comes when it comes."""
PATIENCE_SECONDS = 15.0
PLACES = ("examples", "proto")
"""Folders of the repository that commands and scripts may name as a reader in the repository does."""


def program(name: str) -> Path:
    """What stands for `.venv/bin/NAME`: the program next to the Python of the tests."""
    return etcdctl_path() if name == "etcdctl" else Path(sys.executable).with_name(name)


def flags_of(make_run: str, folder: Path) -> list[str]:
    """The service's flags in `make run ARGS="..."`; files are the repository's, a data directory is the folder's."""
    _, _, *variables = shlex.split(make_run)
    (args,) = [variable.removeprefix("ARGS=") for variable in variables]
    words = shlex.split(args)
    is_data = [before == "--data-dir" for before in ["", *words]]
    return [
        str(folder / word) if data else str(ROOT / word) if word.split("/")[0] in PLACES else word
        for word, data in zip(words, is_data, strict=False)
    ]


@dataclass
class Player:
    """A page that is being played, in a folder with a bash of its own."""

    name: str
    folder: Path
    serve: Serve
    bash: Shell
    server: Server | None = None
    etcd_url: str = ""

    async def step(self, step: Command | Script) -> str:
        """Do what the page says; return how that differs from what the page shows, empty if it does not."""
        match step:
            case Script():
                return await self._script(step)
            case Command(is_start=True):
                return await self._start(step)
            case Command():
                return await self._command(step)

    async def _start(self, step: Command) -> str:
        """Start the service; one that runs is stopped before, and the new one listens where it did."""
        # Two pages may be played at once.
        flags = [flag.replace("127.0.0.1:50051", "127.0.0.1:0") for flag in flags_of(step.text, self.folder)]
        if self.server is not None:
            await self.server.stop()
            flags += ["--listen", self.server.address]
        self.server = await self.serve(*flags)
        self.etcd_url = step.shown[-1].rpartition("etcd at ")[2] if step.shown else ""
        return self._difference(step, ["", *self.server.log.splitlines()])

    async def _command(self, step: Command) -> str:
        loop = asyncio.get_running_loop()
        until_time = loop.time() + PATIENCE_SECONDS
        while True:
            difference = self._difference(step, await self.bash.run(self._adapted(step.text)))
            if not difference or not READS.match(step.text) or loop.time() > until_time:
                return difference
            await asyncio.sleep(0.2)

    async def _script(self, step: Script) -> str:
        path = self.folder / f"line-{step.line}.py"
        path.write_text(self._adapted(step.text))
        finished = await run_in(self.folder, sys.executable, path)
        if finished.code != 0:
            return f"{self.name}:{step.line}: the script ends with {finished.code}:\n{finished.out}{finished.err}"
        return self._difference(step, finished.out.splitlines())

    def _difference(self, step: Command | Script, real: list[str]) -> str:
        if step.shown is None or is_shown(real, step.shown):
            return ""
        shows, gives = "\n".join(step.shown), "\n".join(real)
        return f"{self.name}:{step.line}: {step.text}\nshows:\n{shows}\ngives:\n{gives}"

    def _adapted(self, text: str) -> str:
        """What the page says, but for this service, its etcd, and the programs next to this Python."""
        assert self.server
        text = text.replace("127.0.0.1:50051", self.server.address)
        text = re.sub(r"(?<![\w/.])\.venv/bin/([\w-]+)", lambda found: shlex.quote(str(program(found[1]))), text)
        return text.replace(self.etcd_url, self.server.etcd_url) if self.etcd_url else text


async def play(name: str, page: str, folder: Path, serve: Serve) -> list[str]:
    """Play a page up to the first thing that is not as it shows; return that, if there is any."""
    steps = session(page)
    assert steps, f"{name} has no `make run ARGS=...` that would start a service"
    for place in PLACES:
        (folder / place).symlink_to(ROOT / place)
    player = Player(name, folder, serve, await shell(folder))
    try:
        for step in steps:
            if difference := await player.step(step):
                return [difference]
    finally:
        # It ends the watches that the page has left in the background, and with them bash's output.
        if player.server is not None:
            await player.server.stop()
        await player.bash.close()
    return []
