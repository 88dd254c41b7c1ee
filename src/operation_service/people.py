"""Who sits at the terminal: a name for logs, and a peer token."""

import getpass
import os
import socket
from pathlib import Path

_START_TIME_FIELD = 19
"""Of /proc/PID/stat, counted from behind the program's name: when the process started, in ticks since the boot."""


def user_at_host() -> str:
    """Return who runs this program, and where."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid-{os.getuid()}"
    return _printable(f"{user}@{socket.gethostname()}")


def terminal_token() -> str:
    """Return a peer token that is the same for all commands of one terminal, and another one in every other.

    With one for each person, two terminals would share each lock: the second proposal would renew the first one's lock
    instead of being refused. So it names the session, which is what the system calls what runs in one terminal, and
    when it began, since numbers of sessions come again.
    """
    session = os.getsid(0)
    return f"{user_at_host()}:{session}{_started_at(session)}"


def _started_at(pid: int) -> str:
    """Return when a process started, or nothing where the system does not tell."""
    try:
        _, _, fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(") ")
        return f"-{fields.split()[_START_TIME_FIELD]}"
    except (OSError, IndexError):
        return ""


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() and char.isascii() else "?" for char in text)[:200]
