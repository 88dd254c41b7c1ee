"""How a process tells of itself, beside what its settings say."""

from dataclasses import dataclass
from pathlib import Path

from operation_service.lines import Lines


@dataclass(frozen=True, slots=True)
class Telling:
    """Where what is told goes.

    Attributes:
        lines: The way to standard error. None: nothing is audited.
        worker: The number of this worker. Empty: it is the only process.
        metrics_socket: Where metrics are told to the supervisor, instead of at the port.
    """

    lines: Lines | None = None
    worker: str = ""
    metrics_socket: Path | None = None

    @property
    def who(self) -> str:
        """What log lines call this process."""
        return f"worker {self.worker}" if self.worker else ""
