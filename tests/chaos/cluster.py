"""Three members of etcd, each a process in its place."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from chaos.namespaces import Place
from chaos.process import Process
from ports import a_port

ETCD = Path("/usr/bin/etcd")
"""Debian's: it keeps what it acknowledged (ETCD_FACTS); a wheel's 3.5.1 would be blamed on the service."""


@dataclass
class Member:
    """One member.

    Attributes:
        process: Itself.
        place: Where it runs.
        client_port: For clients.
        peer_port: For its peers.
        data_dir: Its data, kept when it is killed.
    """

    process: Process
    place: Place
    client_port: int
    peer_port: int
    data_dir: Path

    @property
    def name(self) -> str:
        """As etcd knows it."""
        return self.process.name

    @property
    def address(self) -> str:
        """HOST:PORT for clients."""
        return f"{self.place.host}:{self.client_port}"

    @property
    def peer_url(self) -> str:
        """For its peers."""
        return f"http://{self.place.host}:{self.peer_port}"


def members(places: list[Place], directory: Path) -> list[Member]:
    """Return members that have yet to be started; on loopback, with ports that are free now."""
    found = []
    for number, place in enumerate(places, 1):
        ports = (2379, 2380) if place.link else (a_port(), a_port())
        process = Process(f"m{number}", directory / f"m{number}.log")
        found.append(Member(process, place, *ports, directory / f"m{number}"))
    return found


async def start(member: Member, everyone: list[Member], binary: Path = ETCD) -> None:
    """Start a member, for the first time or again."""
    client_url = f"http://{member.address}"
    await member.process.start(
        [
            binary,
            *("--name", member.name, "--data-dir", member.data_dir),
            *("--listen-client-urls", client_url, "--advertise-client-urls", client_url),
            *("--listen-peer-urls", member.peer_url, "--initial-advertise-peer-urls", member.peer_url),
            *("--initial-cluster", ",".join(f"{each.name}={each.peer_url}" for each in everyone)),
            *("--initial-cluster-token", "chaos"),
            # So few that a member that was away for some seconds is sent a snapshot, and not only the log.
            *("--snapshot-count", "500"),
            *("--logger", "zap", "--log-level", "info", "--log-outputs", "stderr"),
        ],
        member.place.prefix,
    )


async def start_all(everyone: list[Member], binary: Path = ETCD) -> None:
    """Start all members."""
    await asyncio.gather(*(start(member, everyone, binary) for member in everyone))
