"""A run: hurts a cluster while clients use it, and judges what they were told. `make chaos`."""

import argparse
import asyncio
import json
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from chaos import ending, watcher
from chaos.arena import Arena, ArenaError, arena
from chaos.broken import EXPIRY, MISTAKES, NEEDS
from chaos.checker import check
from chaos.cluster import ETCD
from chaos.faults import Faults
from chaos.history import Recorder, read
from chaos.namespaces import NetworkError
from chaos.report import Run, as_text, make_report
from chaos.schedule import plan
from chaos.verdict import late_takeovers, shortcomings

_CANNOT = 2
_INTERRUPTED = 130
_LEAST_SECONDS = 20.0
_MOST_SECONDS = 86_400.0
_NOTE_SECONDS = 1.0
_CALM_SECONDS = 15.0
"""At the beginning nothing is wrong, so that what comes later can be compared."""
_CALM_SHARE = 0.125
"""But of a short run no more than this."""


async def run(options: argparse.Namespace, directory: Path) -> Run:
    """Make a run, and leave its history in the directory."""
    async with arena(directory, options.seed, options.broken) as found:
        for what in found.left_out:
            _say(f"left out: {what}")
        recorder = Recorder(found.history / "controller.jsonl")
        await found.start_watchers()
        began = time.monotonic()
        await found.start_clients()
        noting = [asyncio.create_task(found.admin.note_revisions()), asyncio.create_task(_note_memory(found))]
        acts = plan(
            options.seed,
            options.seconds,
            has_namespaces=all(member.place.link for member in found.targets.members),
            beginning=NEEDS.get(options.broken, ()),
        )
        faults = Faults(found.targets, found.admin, recorder)
        await asyncio.sleep(min(_CALM_SECONDS, options.seconds * _CALM_SHARE))
        await faults.run(acts, began + options.seconds)
        quiet_at = time.monotonic()
        _say(f"{quiet_at - began:.0f} s are over: all is mended, the end is read")
        problems = await ending.all_well(found)
        problems += await ending.clients_finished(found)
        problems += await ending.read_what_is_left(found, recorder)
        for task in noting:
            task.cancel()
        for clock in (clock for replica in found.targets.replicas for clock in replica.clocks):
            recorder.add(clock)
        recorder.close()
        for replica in found.targets.replicas:
            replica.process.note_memory()
        watched = [line for process in found.watchers for line in process.log_path.read_text().splitlines()]
        problems += [line for line in watched if not line.startswith((watcher.RESUMED, watcher.BEGAN_ANEW))]
        return Run(
            seed=options.seed,
            seconds=options.seconds,
            began=began,
            quiet_at=quiet_at,
            broken=options.broken,
            left_out=found.left_out,
            skipped=faults.skipped,
            resumptions=sum(line.startswith(watcher.RESUMED) for line in watched),
            new_accounts=sum(line.startswith(watcher.BEGAN_ANEW) for line in watched),
            peak_rss={replica.name: replica.process.peak_rss for replica in found.targets.replicas},
            problems=tuple(problems),
        )


async def _note_memory(found: Arena) -> None:
    while True:
        for replica in found.targets.replicas:
            replica.process.note_memory()
        await asyncio.sleep(_NOTE_SECONDS)


async def _until_signalled(options: argparse.Namespace, directory: Path) -> Run:
    """Make a run that signals end in good order, that of a terminal which is closed as well."""
    task = asyncio.ensure_future(run(options, directory))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    return await task


def judge(options: argparse.Namespace, facts: Run, directory: Path) -> int:
    """Check the history and print the table; return the exit code."""
    entries = list(read(sorted((directory / "history").glob("*.jsonl"))))
    try:
        violations = [str(violation) for violation in check(entries)]
    except ValueError as error:
        _say(f"nothing is judged, the history is none: {error}")
        return _CANNOT
    report = make_report(facts, entries, violations)
    late, short = late_takeovers(report), shortcomings(report)
    problems = [*facts.problems, *short]
    _say(as_text(report, problems))
    (directory / "violations.txt").write_text("\n".join([*violations, *problems]) + "\n")
    if options.json:
        options.json.write_text(json.dumps(report.as_dict() | {"problems": problems}, indent=2) + "\n")
    if facts.broken:
        # Another mistake than the one that was built in is no proof that the run sees that one.
        is_found = bool(late if facts.broken == EXPIRY else violations)
        _say(
            f"{facts.broken} is found, as it has to be"
            if is_found
            else f"NOT FOUND: the run does not see {facts.broken}"
        )
        return 0 if is_found else 1
    _say("NOT GOOD" if violations or problems else "good: all that was judged is as it has to be")
    return 1 if violations or problems else 0


def main() -> None:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="for how long faults are made")
    parser.add_argument("--seed", type=int, default=None, help="of the schedule; chosen if it is not given")
    parser.add_argument("--broken", choices=("", *MISTAKES), default="", help="a mistake to build into the replicas")
    parser.add_argument("--json", type=Path, default=None, help="where to write the table as JSON")
    parser.add_argument("--keep", action="store_true", help="keep the history and the logs in any case")
    options = parser.parse_args()
    if not _LEAST_SECONDS <= options.seconds <= _MOST_SECONDS:
        parser.error(f"--seconds: {_LEAST_SECONDS:.0f} to {_MOST_SECONDS:.0f}; in less hardly anything happens")
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json: there is no directory {options.json.parent}")
    if options.seed is None:
        options.seed = secrets.randbelow(2**31)
    _say(
        f"seed {options.seed}, {options.seconds:.0f} s"
        + (f", broken on purpose: {options.broken}" if options.broken else "")
    )
    if not ETCD.exists():
        _say(f"there is no {ETCD}: install Debian's etcd-server")
        sys.exit(_CANNOT)
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    code = _CANNOT
    try:
        code = judge(options, asyncio.run(_until_signalled(options, directory)), directory)
    except (ArenaError, NetworkError) as error:
        _say(str(error))
    except asyncio.CancelledError:
        _say("interrupted; all that ran is ended")
        code = _INTERRUPTED
    finally:
        if (code in {0, _INTERRUPTED} or options.broken) and not options.keep:
            shutil.rmtree(directory)
        else:
            _say(f"history and logs: {directory}")
    sys.exit(code)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
