"""How long to wait before what has ended is started again: not at all long once, longer when it keeps ending."""

FIRST_SECONDS = 0.1
LONGEST_SECONDS = 5.0
STEADY_SECONDS = 60.0
"""After having run for so long, an end counts as the first one again."""


class Backoff:
    """The pauses between the starts of one process, each twice as long as the one before."""

    def __init__(self) -> None:
        self._next = FIRST_SECONDS

    def pause_after(self, lived_seconds: float) -> float:
        """Return how long to wait now.

        Args:
            lived_seconds: How long it has run this time.
        """
        pause = FIRST_SECONDS if lived_seconds >= STEADY_SECONDS else self._next
        self._next = min(2 * pause, LONGEST_SECONDS)
        return pause


def how_it_ended(code: int) -> str:
    """Say how a process ended, as people say it: by signal 9, with exit code 1.

    Args:
        code: As asyncio and subprocess tell it, negative for a signal.
    """
    return f"by signal {-code}" if code < 0 else f"with exit code {code}"
