"""Asks whether anything known speaks against the versions in requirements/*.txt.

`python -m tools.audit` exits with 1 if something does. Where nobody can be asked, since there is no network or the
package index knows of no vulnerabilities, it exits with 0 and says, on standard error and not to be overlooked, what
has not been looked at.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tools.committed import ROOT
from tools.locked import BUILD, IMAGE

SERVICES = ("pypi", "osv")
"""Whom pip-audit can ask; the second is asked if the first does not know all."""
_SECONDS = 60.0
"""For one file and one service. An answer takes a few seconds; a network that swallows packets would take for ever."""


class Answer(NamedTuple):
    """What a service says of a file.

    Attributes:
        clean: What nothing speaks against.
        unknown: What it knows nothing of.
        found: What speaks against which package, a line each.
    """

    clean: frozenset[str]
    unknown: frozenset[str]
    found: tuple[str, ...]


def answer(report: Iterable[dict[str, Any]]) -> Answer:
    """Return what a report of pip-audit says: its `dependencies`."""
    clean, unknown, found = set(), set(), list[str]()
    for each in report:
        if "skip_reason" in each:
            unknown.add(each["name"])
        elif not each["vulns"]:
            clean.add(each["name"])
        for vulnerability in each.get("vulns", ()):
            fixed = ", ".join(vulnerability["fix_versions"]) or "nowhere yet"
            found.append(f"{each['name']} {each['version']}: {vulnerability['id']}, fixed in {fixed}")
    return Answer(frozenset(clean), frozenset(unknown), tuple(found))


def verdict(path: Path, answers: Iterable[Answer]) -> tuple[list[str], list[str]]:
    """Return what speaks against a file's packages, and what has not been looked at, as lines."""
    answers = list(answers)
    found = [f"{path}: {line}" for each in answers for line in each.found]
    looked_at = frozenset().union(*(each.clean for each in answers))
    unknown = frozenset().union(*(each.unknown for each in answers)) - looked_at
    if not answers:
        return found, [f"{path}: none of it"]
    return found, [f"{path}: {', '.join(sorted(unknown))}"] if unknown else []


def _ask(path: Path, service: str) -> Answer | None:
    """Ask a service; None if it does not answer in time, or not at all."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(path), "--disable-pip", "--require-hashes"]
    flags = ("--format=json", "--progress-spinner=off", "--timeout=10", f"--vulnerability-service={service}")
    try:
        done = subprocess.run(
            [*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        return answer(json.loads(done.stdout)["dependencies"])
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        return None


def _answers(path: Path) -> Iterable[Answer]:
    for service in SERVICES:
        if (told := _ask(path, service)) is not None:
            yield told
            if not told.unknown:
                return


def _main() -> None:
    verdicts = [verdict(path, _answers(path)) for path in (IMAGE, BUILD)]
    found = [line for lines, _ in verdicts for line in lines]
    unseen = [line for _, lines in verdicts for line in lines]
    if unseen:
        rule = "!" * 100
        text = "NOT AUDITED, since no service that knows of vulnerabilities could be asked about it:"
        print("\n".join([rule, text, *unseen, rule]), file=sys.stderr)
    if found:
        sys.exit("\n".join(["known vulnerabilities:", *dict.fromkeys(found)]))
    if not unseen:
        print("nothing known speaks against the versions in requirements/")


if __name__ == "__main__":
    _main()
