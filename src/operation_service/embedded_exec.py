"""Becomes etcd, after seeing to it that etcd ends when the service does, also by SIGKILL.

Run as `python -I -S embedded_exec.py SERVICE_PID ETCD [ARGUMENT]...`; standard input is the read end of a pipe whose
write end only the service holds. A program of its own, since what has to happen between fork and exec is not safe as
a `preexec_fn` next to gRPC's threads. It imports only the standard library: it runs at every start of etcd.
"""

import os
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1
_WATCH_SECONDS = 1.0
"""How long, at most, the watchdog outlives an etcd that ended by itself."""

_DESCRIPTORS = 65536
"""More than a service has open when it starts its etcd. The system's own limit may be in the billions."""


def ask_for_death_signal(number: int = signal.SIGTERM) -> bool:
    """Ask the kernel for a signal at the service's death; exec keeps that. False where there is no such thing.

    The kernel takes the *thread* that started us for the parent: the service has to start etcd from a thread that
    lives as long as it does, as the main thread.
    """
    try:
        import ctypes  # noqa: PLC0415 - not every Python has it

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, AttributeError, OSError):
        return False
    return bool(prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number)) == 0)


def start_watchdog() -> None:
    """Leave a child that sends etcd a SIGTERM at the service's death, where the kernel does not (not Linux).

    Weaker than the kernel's signal: who kills the watchdog too keeps etcd alive.
    """
    etcd_pid = os.getpid()
    if os.fork():
        return
    # All but the pipe is let go, the lock of the data directory above all: it must be free once etcd is gone.
    os.closerange(1, _DESCRIPTORS)
    while os.getppid() == etcd_pid:
        if select.select([0], [], [], _WATCH_SECONDS)[0]:  # end of file: the service is gone
            os.kill(etcd_pid, signal.SIGTERM)
            break
    os._exit(0)


def main(service_pid: int, command: list[str]) -> None:
    """Become `command`, unless the service is gone.

    Args:
        service_pid: The process that started this one.
        command: The program's path, and its arguments.
    """
    # exec hands on what is ignored and blocked, and Python itself ignores SIGPIPE. etcd must hear SIGTERM.
    for number in (signal.SIGPIPE, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if not ask_for_death_signal():
        start_watchdog()
    # And if the service was killed before we asked? Then nobody will tell us: we have another parent by now.
    if os.getppid() != service_pid:
        sys.exit("not starting etcd: the service that wanted it is gone")
    try:
        os.execv(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
