"""The service as it is under load, though a run has little: `python -m chaos.gathering serve ...`.

Whatever goes to etcd waits a moment for what else may come, so that changes are committed together, and lost together.
Production code has no switch for that, and so this reaches into its privates.
"""

import asyncio
import random

from operation_service import cli
from operation_service.together import Answer, Request, Together, _Waiting

_SECONDS = 0.12


def gather(most_seconds: float = _SECONDS) -> None:
    """Let everything wait before it is sent, up to so long."""
    at_once = Together._send  # noqa: SLF001

    async def send(self: Together[Request, Answer], some: list[_Waiting[Request, Answer]]) -> None:
        """Wait, and take what has come meanwhile."""
        await asyncio.sleep(random.uniform(0.0, most_seconds))
        await at_once(self, some + self._next())

    Together._send = send  # type: ignore[method-assign]  # noqa: SLF001


if __name__ == "__main__":
    gather()
    cli.main()
