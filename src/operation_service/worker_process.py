"""A worker's process: the ordinary service, told what to do by a supervisor, and not outliving it.

Run as `python -m operation_service.worker_process NUMBER SUPERVISOR_PID [METRICS_SOCKET]`. Standard input: the order,
and then nothing until the supervisor has gone. Standard output: the reports (see handover).
"""

import asyncio
import logging
import math
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

from operation_service import event_loop, handover
from operation_service.descriptor_sets import DescriptorSetError
from operation_service.embedded_exec import ask_for_death_signal
from operation_service.ending import ServerEndedError
from operation_service.logs import log_to_standard_error
from operation_service.settings import Settings, SettingsError
from operation_service.telling import Telling

_log = logging.getLogger(__name__)


def main(number: int, supervisor_pid: int, metrics_socket: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT, or the end of the supervisor.

    Args:
        number: Which of the workers this is.
        supervisor_pid: The process that started this one.
        metrics_socket: Where it is to tell metrics. None: nowhere.
    """
    # Until the service listens to it, Ctrl-C needs no traceback of each worker.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    settings = handover.settings_of(sys.stdin.buffer.readline())
    _end_with(supervisor_pid)
    telling = Telling(worker=f"{number}", metrics_socket=metrics_socket)
    lines = log_to_standard_error(telling.who, settings.log_format)
    _serve(settings, replace(telling, lines=lines))


def _end_with(supervisor_pid: int) -> None:
    """See to it that this process ends when its supervisor does, also by SIGKILL.

    At once, as a service in one process would: whoever starts the service again finds the port free. What was in flight
    is as unclear to its callers as it is after any loss of a replica.
    """
    if not ask_for_death_signal(signal.SIGKILL):
        threading.Thread(target=_end_with_input, daemon=True).start()
    # And if it was killed before we asked? Then nobody will tell us: we have another parent by now.
    if os.getppid() != supervisor_pid:
        sys.exit("not serving: the supervisor that wanted it is gone")


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGKILL)


def _serve(settings: Settings, telling: Telling) -> None:
    # gRPC takes a while to import, and nothing of it is needed before.
    from operation_service import server  # noqa: PLC0415

    try:
        # Asked again and again, it still ends in good order: the signal may have come from a terminal, make or a
        # supervisor of processes to all of the group, and from ours once more. Ours ends it at once by SIGKILL.
        event_loop.run(
            server.serve(settings, tell=lambda _: _report(handover.READY), again_seconds=math.inf, telling=telling)
        )
    except (DescriptorSetError, SettingsError) as error:
        _report(handover.wrong(str(error)))
        sys.exit(handover.WRONG_SETTINGS)
    except ServerEndedError as error:
        _log.error("%s", error)
        sys.exit(1)
    except asyncio.CancelledError:
        sys.exit(0)


def _report(line: bytes) -> None:
    os.write(sys.stdout.fileno(), line + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *map(Path, sys.argv[3:]))
