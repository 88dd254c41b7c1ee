"""The command line."""

import argparse
import asyncio
import importlib.util
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.machine import this_machine
from benchmarks.picture import draw
from benchmarks.report import NoPlaceError, lines_of, with_section, write
from benchmarks.run import NAMES, Results, run
from benchmarks.schedule import FULL, QUICK, Schedule

_INTERRUPTED = 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description="Measures the service beside what it stands on.")
    parser.add_argument("--quick", action="store_true", help="less of everything: under two minutes")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each figure is measured (3; quick: 1)")
    parser.add_argument("--only", choices=NAMES, action="append", help="measure only this; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write them into this document's marked section, and a picture"
    )
    return parser


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    arguments = parser.parse_args(words)
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if arguments.write:
        if importlib.util.find_spec("matplotlib") is None:
            parser.error("--write draws a picture, for which matplotlib has to be installed")
        if not arguments.write.is_file():
            parser.error(f"--write {arguments.write}: there is no such file")
        try:
            with_section(arguments.write.read_text(encoding="utf-8"), [], "")
        except NoPlaceError as error:
            parser.error(f"--write {arguments.write}: {error}")
    if arguments.json and (arguments.json.is_dir() or not arguments.json.parent.is_dir()):
        parser.error(f"--json {arguments.json}: there is no such folder, or that is one")
    return arguments


async def _run(schedule: Schedule, only: frozenset[str]) -> Results:
    task = asyncio.current_task()
    if task is not None:
        # As Ctrl-C: what was started is ended.
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await run(schedule, only)


def main(words: Sequence[str]) -> int:
    """Run the benchmark; return the exit code."""
    arguments = _arguments(words)
    schedule = QUICK if arguments.quick else FULL
    if arguments.rounds:
        schedule = replace(schedule, rounds=arguments.rounds)
    machine = this_machine()
    try:
        results = asyncio.run(_run(schedule, frozenset(arguments.only or NAMES)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    lines = lines_of(results, machine, schedule)
    print("\n".join(lines))
    rows = results.rows()
    if arguments.json:
        document = {
            "machine": asdict(machine),
            "versions": results.versions,
            "schedule": asdict(schedule),
            "figures": [asdict(figure) for figure in results.figures],
            "rows": [asdict(row) for row in rows],
            "sizes": [asdict(size) for size in results.sizes],
            "skipped": [asdict(skipped) for skipped in results.skipped],
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if arguments.write:
        draw(rows, write(arguments.write, lines))
    return 0
