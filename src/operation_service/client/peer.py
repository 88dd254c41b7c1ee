"""Who this process is: its peer token, made once when the process starts to need it."""

import hashlib
import os
import socket
import time

from operation_service.client import forks

_token: str | None = None


def peer_token() -> str:
    """Return this process's token: the same in each call, and another one in each other process, children included.

    It is a hash of the host's name, the process id, the time, and random bytes, as `proposing_peer_token` is described
    in the proto: 32 hexadecimal digits.
    """
    global _token  # noqa: PLW0603, one for the process is the point
    if _token is None:
        facts = f"{socket.gethostname()}|{os.getpid()}|{time.time_ns()}|{os.urandom(16).hex()}"
        _token = hashlib.sha256(facts.encode()).hexdigest()[:32]
    return _token


def _forget() -> None:
    global _token  # noqa: PLW0603, as above
    _token = None


forks.in_child(_forget)
