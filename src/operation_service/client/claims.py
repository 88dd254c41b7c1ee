"""One hold a resource within a process: a second proposal with the same token would only renew the first lock."""

import threading
from concurrent.futures import Future

from operation_service.client import forks
from operation_service.client.errors import HeldHereError
from operation_service.client.session import Session

_Key = tuple[str, str]

_mutex = threading.Lock()
_claims: "dict[_Key, Future[None]]" = {}


class Claim:
    """A resource that a hold of this process wants for itself.

    Args:
        resource: Which, as messages name it.
        session: With which peer token.
    """

    def __init__(self, resource: str, session: Session) -> None:
        self._resource = resource
        self._session = session
        self._taken: tuple[_Key, Future[None]] | None = None

    def try_take(self) -> "Future[None] | None":
        """Take it, or return what is done when whoever has it lets go."""
        key = (self._session.token, self._resource)
        with _mutex:
            if other := _claims.get(key):
                return other
            mine: Future[None] = Future()
            _claims[key] = mine
            self._taken = (key, mine)
            return None

    @property
    def is_taken(self) -> bool:
        """Whether this one took it, and has not let go of it."""
        return self._taken is not None

    def release(self) -> None:
        """Let go of it."""
        taken, self._taken = self._taken, None
        if taken is None:
            return
        key, mine = taken
        with _mutex:
            # In a child of the process the claims are others, and who waits for this one is not there.
            if _claims.get(key) is not mine:
                return
            del _claims[key]
        mine.set_result(None)

    def check_free(self) -> None:
        """Raise if a hold of this process has it.

        Raises:
            HeldHereError: One has.
        """
        with _mutex:
            is_held = (self._session.token, self._resource) in _claims
        if is_held:
            raise self.held_here()

    def held_here(self) -> HeldHereError:
        """Return the error that says so."""
        return HeldHereError(
            f"{self._resource} is held by this process already, with the same peer_token: wait for its end, or "
            "give a client of its own another peer_token"
        )


def _forget() -> None:
    global _mutex  # noqa: PLW0603, whoever held it is not in this process
    _mutex = threading.Lock()
    _claims.clear()


forks.in_child(_forget)
