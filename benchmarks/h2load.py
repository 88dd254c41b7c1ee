"""A second opinion on the load generator: the same calls made by h2load, which does not look at their statuses."""

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncIterator

from benchmarks import requests
from benchmarks.bench import Bench, Spot
from benchmarks.children import ChildError
from benchmarks.figures import Figure
from benchmarks.requests import HEALTH

H2LOAD = "Health/Check, by h2load"
_CONNECTIONS = 8
_IN_FLIGHT = 64
_FINISHED = re.compile(r"finished in [\d.]+\w+, ([\d.]+) req/s")


def is_installed() -> bool:
    """Whether this machine has it."""
    return shutil.which("h2load") is not None


def _body() -> bytes:
    message = bytes.fromhex(requests.health())
    return b"\x00" + len(message).to_bytes(4, "big") + message


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms"


async def h2load(bench: Bench, spot: Spot) -> AsyncIterator[Figure]:
    """Call Health/Check; at one level only, as one comparison is enough.

    Raises:
        ChildError: It said nothing of use.
    """
    if spot.in_flight != _IN_FLIGHT:
        return
    with tempfile.NamedTemporaryFile(prefix="bench-") as body:
        body.write(_body())
        body.flush()
        child = await asyncio.create_subprocess_exec(
            *("h2load", "-c", str(_CONNECTIONS), "-m", str(_IN_FLIGHT // _CONNECTIONS)),
            *("-D", _duration(bench.timing.seconds), "--warm-up-time", _duration(bench.timing.warm_up)),
            *("-d", body.name),
            *("-H", "te: trailers", "-H", "content-type: application/grpc"),
            f"http://{bench.service.address}{HEALTH}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            out, _ = await child.communicate()
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
    found = _FINISHED.search(out.decode(errors="replace"))
    if found is None:
        raise ChildError(f"h2load: {out.decode(errors='replace')[-500:]}")
    yield Figure(H2LOAD, spot.condition, spot.in_flight, spot.round, per_second=float(found.group(1)))
