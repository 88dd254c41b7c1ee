"""What a fork of the process means to a client. Imported before gRPC: it has to be told before it is loaded.

gRPC's threads do not live on in a child, and a child that calls through it then hangs for ever, unless gRPC was loaded
with GRPC_ENABLE_FORK_SUPPORT=1 (measured with grpcio 1.85: with it the first call of a child takes some 10 ms, also
while a watch of the parent is open). Even then a child hangs, within `os.fork` itself, if another thread was just about
to begin or to end a call: gRPC takes a lock there that nobody in the child will ever let go of. So threads pass a gate
on their way into gRPC, and a fork waits until nobody is behind it. `grpc.aio` hangs in the child of a process that has
used it, in any case.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator

_VARIABLE = "GRPC_ENABLE_FORK_SUPPORT"
_TRUE = frozenset({"1", "t", "true", "y", "yes"})

if "grpc" not in sys.modules:
    os.environ.setdefault(_VARIABLE, "1")
_is_grpc_prepared = os.environ.get(_VARIABLE, "").lower() in _TRUE

_LEAVE_SECONDS = 5.0
"""How long a fork waits for the threads in gRPC. They leave within milliseconds; to wait for ever would be worse than
what may happen to the child."""

_after_fork: list[Callable[[], None]] = []
_hanging = threading.Lock()
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


class _Gate:
    """Lets threads into gRPC, but not while the process forks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._forks = 0
        self._inside = 0
        self._interrupts: list[Callable[[], object]] = []

    def enter(self, interrupt: Callable[[], object] | None) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._forks)
            self._inside += 1
            if interrupt is not None:
                self._interrupts.append(interrupt)

    def leave(self, interrupt: Callable[[], object] | None) -> None:
        with self._changed:
            self._inside -= 1
            if interrupt is not None:
                self._interrupts.remove(interrupt)
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._forks += 1
            interrupts = list(self._interrupts)
        for interrupt in interrupts:
            interrupt()
        with self._changed:
            self._changed.wait_for(lambda: not self._inside, _LEAVE_SECONDS)

    def open(self) -> None:
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()


_gate = _Gate()
_is_gate_hung = False


def guard() -> None:
    """Have forks wait for the threads in gRPC from now on: called when gRPC has begun its work in this process.

    What has to be done before a fork is done in reverse order, and gRPC stops its own threads, which those behind the
    gate wait for: it has to be in line already.
    """
    global _is_gate_hung  # noqa: PLW0603, a process has just one gRPC
    with _hanging:
        if not _is_gate_hung and hasattr(os, "register_at_fork"):
            os.register_at_fork(before=_before, after_in_parent=_parent)
        _is_gate_hung = True


@contextlib.contextmanager
def inside_grpc(interrupt: Callable[[], object] | None = None) -> Iterator[None]:
    """Be within gRPC: while this thread is, the process does not fork.

    Args:
        interrupt: Ends what this thread is doing there, if that may take long.
    """
    gate = _gate
    gate.enter(interrupt)
    try:
        yield
    finally:
        gate.leave(interrupt)


def _before() -> None:
    _gate.close()


def _parent() -> None:
    _gate.open()


def _forked() -> None:
    global _generation, _is_aio_broken, _gate, _hanging  # noqa: PLW0603, as above
    _gate, _hanging = _Gate(), threading.Lock()
    _generation += 1
    _is_aio_broken |= _was_aio_used
    for action in _after_fork:
        action()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
