"""What processes have used of the machine, as Linux counts it in /proc."""

import os
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_UTIME, _RSS = 11, 21
"""Places in /proc/PID/stat after the name. utime and stime stand together, and those of ended children follow."""


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def family(pid: int) -> list[int]:
    """Return a process, its children, and theirs; those that end meanwhile may be left out."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, children.read_text(encoding="ascii").split())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def cpu_seconds(pid: int) -> float:
    """Return the seconds of a core that a process and its family have used, the ended children's included."""
    ticks = 0
    for member in family(pid):
        try:
            ticks += sum(map(int, _stat(member)[_UTIME : _UTIME + 4]))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return ticks / _TICKS_A_SECOND


def resident_bytes(pid: int) -> int:
    """Return the memory that a process and its family hold; pages that they share count for each."""
    total = 0
    for member in family(pid):
        try:
            total += int(_stat(member)[_RSS]) * _PAGE_BYTES
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total
