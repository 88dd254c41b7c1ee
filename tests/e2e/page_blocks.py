"""A Markdown page taken apart: its fences, the commands of its console blocks, the scripts of its Python blocks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from e2e.support_e2e import ROOT


@dataclass(frozen=True)
class Fence:
    """A fenced block: the line that it begins on, its info string, and what is in it."""

    line: int
    info: str
    lines: tuple[str, ...]

    @property
    def head(self) -> str:
        """Its first line, by which it is told from the others of its page."""
        return self.lines[0] if self.lines else ""


@dataclass(frozen=True)
class Command:
    """A command of a ```console block, and the output that stands below it."""

    line: int
    text: str
    shown: tuple[str, ...] = ()

    @property
    def is_start(self) -> bool:
        """Whether it starts the page's service."""
        return self.text.startswith("make run ARGS=")


@dataclass(frozen=True)
class Script:
    """A ```python block with what continues it; `shown` is what the ```text blocks say it prints, None if none does."""

    line: int
    text: str
    shown: tuple[str, ...] | None = None


def pages() -> list[Path]:
    """Every page whose blocks have to be run: README.md and those of docs/, the decisions apart."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def fences(page: str) -> list[Fence]:
    """Take a page apart; a fence that is indented, as in a list, counts too."""
    found: list[Fence] = []
    begun: Fence | None = None
    indent = 0
    for number, line in enumerate(page.splitlines(), 1):
        stripped = line.lstrip(" ")
        if begun is None and stripped.startswith("```"):
            begun, indent = Fence(number, stripped.removeprefix("```").strip(), ()), len(line) - len(stripped)
        elif begun is not None and stripped.rstrip() == "```":
            found.append(begun)
            begun = None
        elif begun is not None:
            begun = replace(begun, lines=(*begun.lines, line[min(indent, len(line) - len(stripped)) :]))
    assert begun is None, f"the fence of line {begun.line} has no end"
    return found


def commands(blocks: Iterable[Fence]) -> list[Command]:
    """Take console blocks apart; "> " continues a command."""
    found: list[Command] = []
    for fence in blocks:
        if fence.info != "console":
            continue
        assert fence.head.startswith("$ "), f"the console block of line {fence.line} does not begin with a command"
        for number, line in enumerate(fence.lines, fence.line + 1):
            if line.startswith("$ "):
                found.append(Command(number, line[2:]))
            elif line.startswith("> ") and not found[-1].shown:
                found[-1] = replace(found[-1], text=f"{found[-1].text}\n{line[2:]}")
            else:
                found[-1] = replace(found[-1], shown=(*found[-1].shown, line))
    return found


def played(blocks: Iterable[Fence]) -> Iterator[Fence]:
    """The fences that are part of a page's session: from the block that starts its service on."""
    has_begun = is_after_script = False
    for fence in blocks:
        has_begun = has_begun or any(command.is_start for command in commands([fence]))
        is_python = fence.info in {"python", "python continued"}
        if has_begun and (fence.info == "console" or is_python or (fence.info == "text" and is_after_script)):
            yield fence
        is_after_script = is_python


def session(page: str) -> list[Command | Script]:
    """What a reader of a page does, in order, from the command on that starts the service; empty if none does."""
    steps: list[Command | Script] = []
    for fence in played(fences(page)):
        match fence.info, steps:
            case "console", _:
                steps += commands([fence])
            case "python", _:
                steps.append(Script(fence.line, "\n".join(fence.lines)))
            case "python continued", [*_, Script() as script]:
                steps[-1] = replace(script, text="\n".join([script.text, *fence.lines]))
            case "text", [*_, Script() as script]:
                steps[-1] = replace(script, shown=(*(script.shown or ()), *fence.lines))
            case _:
                raise AssertionError(f"line {fence.line} continues no Python block")
    starts = [number for number, step in enumerate(steps) if isinstance(step, Command) and step.is_start]
    return steps[starts[0] :] if starts else []
