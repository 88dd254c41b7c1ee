"""Sends bad requests to a service of its own: `make fuzz REQUESTS=100000 SEED=7`."""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from e2e.support_e2e import etcd_binary, start_server
from fuzz.run import Plan, Verdict, fuzz

from operation_service.embedded_etcd import EmbeddedEtcdError
from operation_service.settings import SettingsError

_CANNOT = 2
_INTERRUPTED = 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, help="default: any")
    parser.add_argument("--first", type=int, default=0, help="the number of the first request")
    parser.add_argument("--only", default="", help="a part of the names of the kinds to send")
    parser.add_argument("--log", type=Path, help="where the service's log goes")
    arguments = parser.parse_args()
    if arguments.requests < 1:
        parser.error("--requests: at least 1")
    return arguments


async def _until_signalled(work: Coroutine[Any, Any, Verdict]) -> Verdict:
    """Do the work; a signal cancels it, so that what was started for it ends in order."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


async def _run(plan: Plan, log: Path | None) -> Verdict:
    binary = await etcd_binary()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
        flags = ("--listen", "127.0.0.1:0", "--etcd-binary", binary.path, "--data-dir", Path(directory) / "data")
        server = await start_server(log or Path(directory) / "log", *map(str, flags))
        try:
            return await fuzz(await server.serving(), plan)
        finally:
            await server.stop(signal.SIGTERM)


def main() -> int:
    """Run, and tell."""
    arguments = _arguments()
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    sys.stdout.write(f"SEED={seed} REQUESTS={arguments.requests}\n")
    sys.stdout.flush()
    plan = Plan(seed, arguments.requests, arguments.first, arguments.only)
    try:
        verdict = asyncio.run(_until_signalled(_run(plan, arguments.log)))
    except asyncio.CancelledError:
        sys.stdout.write("interrupted; nothing is left behind\n")
        return _INTERRUPTED
    except (EmbeddedEtcdError, SettingsError) as error:
        sys.stdout.write(f"ETCD=...: {error}\n")
        return _CANNOT
    failures = [f"FAILED: {failure}" for failure in verdict.failures] or ["passed"]
    sys.stdout.write("\n".join([verdict.report, *failures, ""]))
    return 1 if verdict.failures else 0


if __name__ == "__main__":
    sys.exit(main())
