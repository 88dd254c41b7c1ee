"""Files that are made by a tool and committed: `generate` writes them, `check` says what is wrong with them."""

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(files: Mapping[Path, Callable[[], str]], again: str) -> None:
    """Do what the command line says, for files that have to be what is made now, to the last byte.

    Exits with 1 if a file is not, with a usage line if the command line says nothing of use.

    Args:
        files: What makes each file's text, by its path below the repository's root.
        again: The command that makes them, for whoever is told that one is stale.
    """

    def generate() -> None:
        for path, make in files.items():
            (ROOT / path).write_text(make(), encoding="utf-8")

    def stale() -> Iterable[str]:
        return (f"{path} is stale" for path, make in files.items() if _committed(path) != make())

    generate_or_check(generate, stale, again)


def generate_or_check(generate: Callable[[], None], complaints: Callable[[], Iterable[str]], again: str) -> None:
    """Do what the command line says. Exits with 1 if there are complaints, with a usage line if it says nothing of use.

    Args:
        generate: Writes the files.
        complaints: Says what is wrong with what is committed, a line each.
        again: The command that mends it.
    """
    match sys.argv[1:]:
        case ["generate"]:
            generate()
        case ["check"]:
            if wrong := list(complaints()):
                sys.exit("\n".join([*wrong, f"run `{again}`"]))
        case _:
            sys.exit(f"usage: {sys.argv[0]} generate | check")


def _committed(path: Path) -> str | None:
    whole = ROOT / path
    return whole.read_text(encoding="utf-8") if whole.is_file() else None
