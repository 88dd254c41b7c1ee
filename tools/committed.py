"""Files that are made by a tool and committed: `generate` writes them, `check` says whether they are what it makes."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(files: Mapping[Path, Callable[[], str]], again: str) -> None:
    """Do what the command line says. Exits with 1 if a file is stale, with a usage line if it says nothing of use.

    Args:
        files: What makes each file's text, by its path below the repository's root.
        again: The command that makes them, for whoever is told that one is stale.
    """
    match sys.argv[1:]:
        case ["generate"]:
            for path, make in files.items():
                (ROOT / path).write_text(make(), encoding="utf-8")
        case ["check"]:
            stale = [path for path, make in files.items() if _committed(path) != make()]
            for path in stale:
                print(f"{path} is stale: run `{again}`")
            sys.exit(bool(stale))
        case _:
            sys.exit(f"usage: {sys.argv[0]} generate | check")


def _committed(path: Path) -> str | None:
    whole = ROOT / path
    return whole.read_text(encoding="utf-8") if whole.is_file() else None
