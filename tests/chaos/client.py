"""A client process: some tasks that take turns with the locks, until SIGTERM."""

import argparse
import asyncio
import random
import signal
from pathlib import Path

from chaos.caller import Caller
from chaos.history import Recorder
from chaos.store import StoreClient
from chaos.worker import Worker


async def run(options: argparse.Namespace) -> None:
    """Run the tasks."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    recorder = Recorder(options.history)
    async with asyncio.TaskGroup() as group:
        for number in range(1, options.tasks + 1):
            name = f"{options.name}t{number}"
            rng = random.Random(f"{options.seed} {name}")
            caller = Caller(name, options.replicas, recorder, rng)
            store = StoreClient(options.store)
            worker = Worker(caller, store, recorder, resources=options.resources, rng=rng, stopping=stopping)
            group.create_task(_run(worker, caller))
    recorder.close()


async def _run(worker: Worker, caller: Caller) -> None:
    try:
        await worker.run()
    finally:
        await caller.close()


def main() -> None:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--store", type=int, required=True)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--replicas", nargs="+", required=True)
    parser.add_argument("--resources", nargs="+", required=True)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
