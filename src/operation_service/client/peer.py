"""Who this process is: its peer token, made once, when this module is loaded."""

import hashlib
import os
import socket
import time

from operation_service.client import forks


def _made() -> str:
    facts = f"{socket.gethostname()}|{os.getpid()}|{time.time_ns()}|{os.urandom(16).hex()}"
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


# At once, not with the first call: two threads whose first calls coincide would make one each.
_token = _made()


def peer_token() -> str:
    """Return this process's token: the same in each call, and another one in each other process, children included.

    It is a hash of the host's name, the process id, the time, and random bytes, as `proposing_peer_token` is described
    in the proto: 32 hexadecimal digits.
    """
    return _token


def _make_anew() -> None:
    global _token  # noqa: PLW0603, one for the process is the point
    _token = _made()


forks.in_child(_make_anew)
