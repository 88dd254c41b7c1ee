"""Until when a client may rely on its lock, on the clock that all processes of one machine share."""

_MOST = 1.5
"""A lock of 1 s may be granted for 2 (ETCD_FACTS, Leases), and asking etcd takes a moment."""


def told_until(locked_until: float, ahead: float, *, began: float, ended: float, lock_for_seconds: int) -> float:
    """Convert an answer's locked_until to the monotonic clock.

    Args:
        locked_until: As told, in seconds since 1970 by the replica's wall clock.
        ahead: How far this machine's wall clock is ahead of its monotonic one.
        began: When the call was sent.
        ended: When it was answered.
        lock_for_seconds: As asked for.

    Returns:
        The time told, if it can be right; otherwise the replica's wall clock is wrong, and what is sure is that the
        lock lasts as long as was asked for, counted from before the call.
    """
    until = locked_until - ahead
    earliest, latest = began + lock_for_seconds, ended + lock_for_seconds + _MOST
    return until if earliest <= until <= latest else earliest
