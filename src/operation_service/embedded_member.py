"""Who the embedded etcd is: its name, its ports, its flags, and how to tell that it is this one that answers."""

import http.client
import json
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_PROBE_SECONDS = 2.0

_QUOTA_BYTES = 4 * 1024**3
"""etcd takes no more changes beyond this. Its default is 2 GiB, the most that it recommends is 8 GiB."""


@dataclass(frozen=True, slots=True)
class Member:
    """The only member of its cluster, on loopback.

    Attributes:
        name: Never used before: by it we know our own etcd from another one that was faster to take the port.
        client_port: For the service.
        peer_port: For nobody, but etcd will have one.
    """

    name: str
    client_port: int
    peer_port: int

    @classmethod
    def choose(cls) -> Self:
        """Choose a name and two ports that are free now, which need not last."""
        name = f"operation-service-{os.getpid()}-{secrets.token_hex(4)}"
        with socket.socket() as client, socket.socket() as peer:
            for one in (client, peer):
                one.bind(("127.0.0.1", 0))
            return cls(name, client.getsockname()[1], peer.getsockname()[1])

    @property
    def client_url(self) -> str:
        """Where the service finds it."""
        return f"http://127.0.0.1:{self.client_port}"

    def flags(self, data_dir: Path) -> list[str]:
        """Give etcd's flags, valid from 3.4 on. Name and ports may be others than the data was written with."""
        peer_url = f"http://127.0.0.1:{self.peer_port}"
        return [
            *("--name", self.name, "--data-dir", str(data_dir)),
            *("--listen-client-urls", self.client_url, "--advertise-client-urls", self.client_url),
            *("--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url),
            *("--initial-cluster", f"{self.name}={peer_url}", "--initial-cluster-token", self.name),
            # An hour of history: for so long a watch that broke can be resumed.
            *("--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1h"),
            *("--quota-backend-bytes", str(_QUOTA_BYTES)),
            *("--logger", "zap", "--log-level", "warn", "--log-outputs", "stderr"),
        ]

    def serves(self) -> bool:
        """Whether this very member answers, and reads what needs a leader. Blocks, for 2 s an answer at most.

        Not /health: that fails on an etcd that is out of space, which has to come up for its operator to make room.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.client_port, timeout=_PROBE_SECONDS)
        try:
            members = _ask(connection, "/v3/cluster/member/list", {})["members"]
            if [member.get("name") for member in members] != [self.name]:
                return False
            _ask(connection, "/v3/kv/range", {"key": "AA=="})
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            return False
        finally:
            connection.close()
        return True


def _ask(connection: http.client.HTTPConnection, path: str, request: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    connection.request("POST", path, json.dumps(request))
    response = connection.getresponse()
    answer: dict[str, list[dict[str, str]]] = json.load(response)
    if response.status != http.client.OK:
        raise ValueError(answer)
    return answer
