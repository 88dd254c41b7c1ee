"""On what was measured, without which no figure means anything."""

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine, and when.

    Attributes:
        measured_at: UTC, to the minute.
        processor: Its model.
        cores: How many this process may use.
        load: What was running beside the benchmark when it began, as the mean of a minute.
        kernel: The operating system's.
        python: The version.
        grpcio: The version.
        service: The version.
    """

    measured_at: str
    processor: str
    cores: int
    load: float
    kernel: str
    python: str
    grpcio: str
    service: str

    def lines(self, versions: dict[str, str]) -> list[str]:
        """Say it to people, with the versions of servers."""
        servers = ", ".join(f"{name} {number}" for name, number in versions.items())
        where = f"{self.cores} cores of {self.processor}, {self.kernel}"
        return [
            f"Measured {self.measured_at} on {where}; load when it began: {self.load:.1f}.",
            f"Service {self.service}, Python {self.python}, grpcio {self.grpcio}; {servers}.",
        ]


def this_machine() -> Machine:
    """Return what this machine is, now."""
    return Machine(
        measured_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        load=os.getloadavg()[0],
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        grpcio=grpc.__version__,
        service=version("n0stack-operation-service"),
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
