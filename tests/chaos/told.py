"""Until when a client may rely on its lock, on the clock that all processes of one machine share."""

MOST_SECONDS = 1.5
"""A lock of 1 s may be granted for 2 (ETCD_FACTS, Leases), and asking etcd takes a moment."""


def told_until(said_until: float, *, began: float, ended: float, lock_for_seconds: int) -> float:
    """Tell until when a client may rely on its lock.

    Args:
        said_until: The answer's locked_until on the monotonic clock, if the replica's wall clock is this machine's.
        began: When the call was sent.
        ended: When it was answered.
        lock_for_seconds: As asked for.

    Returns:
        The time told, if it can be right; otherwise the replica's wall clock is wrong, and what is sure is that the
        lock lasts as long as was asked for, counted from before the call.
    """
    earliest, latest = began + lock_for_seconds, ended + lock_for_seconds + MOST_SECONDS
    return said_until if earliest <= said_until <= latest else earliest
