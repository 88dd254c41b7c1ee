"""What a fork of the process means to a client. Imported before gRPC: it has to be told before it is loaded.

gRPC's threads do not live on in a child, and a child that calls through it then hangs for ever, unless gRPC was loaded
with GRPC_ENABLE_FORK_SUPPORT=1 (measured with grpcio 1.85: with it the first call of a child takes some 10 ms, also
while a watch of the parent is open). `grpc.aio` hangs in the child of a process that has used it, in any case.
"""

import os
import sys
from collections.abc import Callable

_VARIABLE = "GRPC_ENABLE_FORK_SUPPORT"
_TRUE = frozenset({"1", "t", "true", "y", "yes"})

if "grpc" not in sys.modules:
    os.environ.setdefault(_VARIABLE, "1")
_is_grpc_prepared = os.environ.get(_VARIABLE, "").lower() in _TRUE

_after_fork: list[Callable[[], None]] = []
_generation = 0
_was_aio_used = False
_is_aio_broken = False


def generation() -> int:
    """Return how many forks lie between this process and the one that loaded this module."""
    return _generation


def in_child(action: Callable[[], None]) -> None:
    """Have something done in each child, right after the fork, in the order in which it was asked for."""
    _after_fork.append(action)


def use_grpc() -> None:
    """Say that gRPC is about to be used in this process.

    Raises:
        RuntimeError: It would hang, as this is a child and gRPC was loaded without being prepared for that.
    """
    if _generation and not _is_grpc_prepared:
        raise RuntimeError(
            f"gRPC hangs in a forked process unless it was loaded with {_VARIABLE}=1: set that in the environment, or "
            "import operation_service.client before grpc, or start processes with the method spawn"
        )


def use_aio() -> None:
    """Say that grpc.aio is about to be used in this process.

    Raises:
        RuntimeError: It would hang, as this is a child of a process that has used it.
    """
    global _was_aio_used  # noqa: PLW0603, a process has just one gRPC
    use_grpc()
    if _is_aio_broken:
        raise RuntimeError(
            "grpc.aio hangs in a process that was forked from one that has used it: use the blocking Client here, or "
            "start processes with the method spawn"
        )
    _was_aio_used = True


def _forked() -> None:
    global _generation, _is_aio_broken  # noqa: PLW0603, as above
    _generation += 1
    _is_aio_broken |= _was_aio_used
    for action in _after_fork:
        action()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
