"""The command line."""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.run import NAMES, Results, run
from benchmarks.scenarios import CEILINGS
from benchmarks.schedule import FULL, QUICK, Schedule
from benchmarks.table import number, table

_INTERRUPTED = 130


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="Measures the service beside what it stands on.")
    parser.add_argument("--quick", action="store_true", help="less of everything: under two minutes")
    parser.add_argument("--rounds", type=int, help="how often each figure is measured (3)")
    parser.add_argument("--only", choices=NAMES, action="append", help="measure only this; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser.parse_args(words)


async def _run(schedule: Schedule, only: frozenset[str]) -> Results:
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run(schedule, only)


def main(words: Sequence[str]) -> int:
    """Run the benchmark; return the exit code."""
    arguments = _arguments(words)
    schedule = QUICK if arguments.quick else FULL
    if arguments.rounds:
        schedule = replace(schedule, rounds=arguments.rounds)
    try:
        results = asyncio.run(_run(schedule, frozenset(arguments.only or NAMES)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    rows = results.rows()
    print("\n".join(table(rows, CEILINGS)))
    print()
    for size in results.sizes:
        print(f"{size.what}: {number(size.bytes_each / 1024)} KiB ({size.count:,} of them)")
    for skipped in results.skipped:
        print(f"{skipped.name}: not measured, {skipped.why}")
    if arguments.json:
        document = {"figures": [asdict(figure) for figure in results.figures], "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0
