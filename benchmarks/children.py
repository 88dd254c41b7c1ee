"""Clients are processes of their own: what to do goes in as JSON, what was counted comes back as JSON."""

import asyncio
import json
import shutil
import sys
from dataclasses import asdict
from typing import Any

from chaos.process import ROOT, environment

from benchmarks.load import Outcome, Plan

_SETPRIV = shutil.which("setpriv")
ENDS_WITH_US = (_SETPRIV, "--pdeathsig", "KILL") if _SETPRIV else ()
"""Before a command: whatever becomes of this process, even SIGKILL, what it has started ends with it."""


class ChildError(Exception):
    """A client could not do what it was to do; the message is what it wrote."""


async def run_child(module: str, plan: object) -> dict[str, Any]:
    """Run `python -m MODULE`, which gets a dataclass as JSON, to its end, and return its answer.

    Raises:
        ChildError: It failed.
    """
    child = await asyncio.create_subprocess_exec(
        *ENDS_WITH_US,
        *(sys.executable, "-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}", GRPC_VERBOSITY="NONE"),
        start_new_session=True,
    )
    try:
        out, err = await child.communicate(json.dumps(asdict(plan)).encode())  # type: ignore[call-overload]
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != 0:
        raise ChildError(f"{module}: {err.decode(errors='replace').strip()}")
    answer: dict[str, Any] = json.loads(out)
    return answer


async def run_load(plan: Plan) -> Outcome:
    """Run the load generator."""
    return Outcome(**await run_child("benchmarks.load", plan))
