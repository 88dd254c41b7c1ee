"""How many files and connections the process may have open."""

import logging
import resource

_log = logging.getLogger(__name__)

_OWN = 256
"""For what is not a caller: etcd's connections, an embedded etcd's pipes, gRPC's own, the files that Python reads."""
_ENOUGH = 10_000 + _OWN
_MOST_CONNECTIONS = 100_000


def max_connections() -> int:
    """Raise the process's limit of open files as far as it may, and return how many callers' connections that leaves.

    Callers beyond it are turned away when they connect: the service needs to reach etcd to serve those that it has.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files = _MOST_CONNECTIONS + _OWN if hard == resource.RLIM_INFINITY else hard
    if files < _ENOUGH:
        _log.warning(
            "only %d files may be open (ulimit -n): room for %d connections of callers", files, max(files - _OWN, 1)
        )
    return min(max(files - _OWN, 1), _MOST_CONNECTIONS)
