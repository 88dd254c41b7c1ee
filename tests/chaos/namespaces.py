"""Network namespaces for the members of etcd, on a bridge of the run's own: who is cut off is a black hole for all."""

import asyncio
import functools
import itertools
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SUBNETS = range(1, 250)


@dataclass(frozen=True)
class Place:
    """Where a member runs.

    Attributes:
        host: Its address.
        prefix: What comes before its command.
        link: Its network device on our side. Empty: it has none, and cannot be cut off.
    """

    host: str
    prefix: tuple[str, ...] = ()
    link: str = ""


class NetworkError(Exception):
    """A command of `ip` failed."""


@functools.cache
def why_not() -> str:
    """Say why there can be no namespaces here; empty if there can. Root in a container may lack what they take."""
    ip = shutil.which("ip")
    if ip is None:
        return "there is no `ip`"
    name = f"chp{os.getpid()}"
    for kind, more in (("link", ("type", "bridge")), ("netns", ())):
        made = subprocess.run([ip, kind, "add", name, *more], capture_output=True, text=True, check=False)
        subprocess.run([ip, kind, "delete", name], capture_output=True, check=False)
        if made.returncode:
            return f"`ip {kind} add` fails ({made.stderr.strip()})"
    return ""


def are_demanded() -> bool:
    """Whether CHAOS_NEEDS_NAMESPACES=1 says that there have to be some here: then doing without is an error."""
    return os.environ.get("CHAOS_NEEDS_NAMESPACES") == "1"


class Network:
    """A bridge with an address for us, and one namespace a member. Everything has this process's id in its name."""

    _made = itertools.count()

    def __init__(self) -> None:
        # A number of its own, too: the kernel takes its time to remove what an earlier network left.
        self._run = f"{os.getpid()}x{next(self._made)}"
        self._bridge = f"chb{self._run}"
        self._subnet = ""
        self._namespaces: list[str] = []

    async def open(self, count: int) -> list[Place]:
        """Make it all.

        Returns:
            A place for each member.

        Raises:
            NetworkError: It cannot be made here.
        """
        await _sweep()
        taken = await _ip("-4", "-o", "address", "show")
        subnets = (f"10.77.{(os.getpid() + number) % 250}" for number in _SUBNETS)
        self._subnet = next(subnet for subnet in subnets if f" {subnet}." not in taken)
        await _ip("link", "add", self._bridge, "type", "bridge")
        await _ip("address", "add", f"{self._subnet}.1/24", "dev", self._bridge)
        await _ip("link", "set", self._bridge, "up")
        return [await self._place(number) for number in range(1, count + 1)]

    async def _place(self, number: int) -> Place:
        namespace, link = f"chaos-{self._run}-m{number}", f"chv{self._run}m{number}"
        host = f"{self._subnet}.{10 + number}"
        await _ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        await _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        await _ip("link", "set", link, "master", self._bridge, "up")
        inside = ("netns", "exec", namespace, "ip")
        await _ip(*inside, "link", "set", "lo", "up")
        await _ip(*inside, "address", "add", f"{host}/24", "dev", "eth0")
        await _ip(*inside, "link", "set", "eth0", "up")
        return Place(host, ("ip", "netns", "exec", namespace), link)

    async def close(self) -> None:
        """Remove it all; the processes inside have to have ended."""
        for namespace in self._namespaces:
            # Its end of the link goes with it, and with that ours.
            await _ip("netns", "delete", namespace, must_work=False)
        await _ip("link", "delete", self._bridge, must_work=False)


async def _sweep() -> None:
    """Remove what runs have left that were killed before they could."""
    namespaces = await _ip("netns", "list", must_work=False)
    for namespace, pid in re.findall(r"^(chaos-(\d+)x\d+-m\d+)\b", namespaces, re.MULTILINE):
        if not _is_running(pid):
            await _ip("netns", "delete", namespace, must_work=False)
    links = await _ip("-o", "link", "show", "type", "bridge", must_work=False)
    for bridge, pid in re.findall(r"\b(chb(\d+)x\d+):", links):
        if not _is_running(pid):
            await _ip("link", "delete", bridge, must_work=False)


def _is_running(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


async def cut(place: Place) -> None:
    """Take a member's link down: packets to and from it are lost, and nobody is told."""
    await _ip("link", "set", place.link, "down")


async def heal(place: Place) -> None:
    """Take it up again."""
    await _ip("link", "set", place.link, "up")


async def _ip(*arguments: str, must_work: bool = True) -> str:
    process = await asyncio.create_subprocess_exec(
        "ip",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    out, err = await process.communicate()
    if process.returncode and must_work:
        raise NetworkError(f"ip {' '.join(arguments)}: {err.decode().strip()}")
    return out.decode()
