"""Sends bad requests to a service of its own: `make fuzz REQUESTS=100000 SEED=7`."""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
from pathlib import Path

from e2e.support_e2e import etcd_binary, start_server
from fuzz.run import Plan, Verdict, fuzz


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, help="default: any")
    parser.add_argument("--first", type=int, default=0, help="the number of the first request")
    parser.add_argument("--only", default="", help="a part of the names of the kinds to send")
    parser.add_argument("--log", type=Path, help="where the service's log goes")
    return parser.parse_args()


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
    verdict = asyncio.run(_run(plan, arguments.log))
    failures = [f"FAILED: {failure}" for failure in verdict.failures] or ["passed"]
    sys.stdout.write("\n".join([verdict.report, *failures, ""]))
    return 1 if verdict.failures else 0


if __name__ == "__main__":
    sys.exit(main())
