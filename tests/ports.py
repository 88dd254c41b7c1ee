"""Ports for servers that are started again on the same port."""

import random
import socket

_BELOW_WHAT_THE_SYSTEM_GIVES = range(20_000, 32_000)
"""Linux gives outgoing connections ports from 32768 on: one of those may be taken while a server is down."""


def a_port() -> int:
    """A port that is free now, and that no outgoing connection takes."""
    while True:
        port = random.choice(_BELOW_WHAT_THE_SYSTEM_GIVES)
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
