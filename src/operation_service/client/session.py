"""What all calls of a client have in common."""

import math

from operation_service.client import forks
from operation_service.client.clock import Clock
from operation_service.client.flows import Patience
from operation_service.client.peer import peer_token


class Session:
    """Who calls, and how patiently.

    Args:
        token: The peer token, or None for that of the process.
        timeout: How long a call may take in all, repeats included, in seconds.
        clock: The clock by which locks and patience are measured.

    Attributes:
        is_closing: Whether the client is being closed: no lock is taken any more.
    """

    def __init__(self, token: str | None, timeout: float, clock: Clock) -> None:
        if not 0 < timeout < math.inf:
            raise ValueError(f"timeout must be more than 0 seconds, and have an end, not {timeout}")
        if token is not None and not isinstance(token, str):
            raise TypeError(f"peer_token must be a string or None, not {token!r}")
        if token == "":
            raise ValueError("peer_token must not be empty: leave it out for that of the process")
        self._token = token
        self._generation = forks.generation()
        self.timeout = timeout
        self.clock = clock
        self.is_closing = False

    @property
    def token(self) -> str:
        """The peer token.

        Raises:
            RuntimeError: The token was given in another process: two processes with one token would share each lock.
        """
        if self._token is None:
            return peer_token()
        if self._generation != forks.generation():
            raise RuntimeError(
                "this client was made with a peer_token of its own before the process was forked: make a new client "
                "here, with another peer_token or none"
            )
        return self._token

    def patience(self) -> Patience:
        """Return how long a call that begins now may take."""
        return Patience(self.clock, self.clock() + self.timeout)
