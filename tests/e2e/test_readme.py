"""README.md's session, run as it stands there: what it shows is what a reader gets."""

import asyncio
import itertools
import re
import shlex
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.support_e2e import GRPCURL, PROGRAM, ROOT, Serve, Server, environment, etcdctl_path, run

README = ROOT / "README.md"
READS = re.compile(r"call (Get|List)|etcdctl get|grep ")
"""Commands that change nothing: repeated until they show what README shows, since an expiry comes when it comes."""
PATIENCE_SECONDS = 15.0
COMMAND_SECONDS = 30.0

MASKS = [
    (re.compile(pattern), mask)
    for pattern, mask in (
        # What differs by nature from run to run, and is checked to be of its kind.
        (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", "<time>"),
        (r'"retryDelay":\s*"\d+(\.\d+)?s"', '"retryDelay":<duration>'),
        (r'"remaining":\s*"\d+(\.\d+)?s"', '"remaining":<duration>'),
        (r"\b127\.0\.0\.1:\d+\b", "<address>"),
        (r'"(revision|fencingToken)":\s*"[1-9]\d*"', r'"\1":<number>'),
        (r'"fencing_token":\s*"?[1-9]\d*"?', '"fencing_token":<number>'),
        (r"n0stack-fencing-token: [1-9]\d*", "n0stack-fencing-token: <number>"),
        (r"\b[0-9a-f]{32}\b", "<id>"),
        (r"\b[0-9a-f]{64}\b", "<digest>"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", "<time>"),
        # protobuf's JSON for Go is free to put spaces here and there.
        (r"(?<=[,:{\[])[ \t]+", ""),
    )
]


@dataclass(frozen=True)
class Command:
    """A command of a ```console block, and the output that stands below it."""

    line: int
    text: str
    shown: tuple[str, ...]


def commands(readme: str) -> list[Command]:
    """Take the console blocks apart; "> " continues a command."""
    found: list[Command] = []
    is_inside = False
    for number, line in enumerate(readme.splitlines(), 1):
        if line.startswith("```"):
            is_inside = line == "```console"
        elif is_inside and line.startswith("$ "):
            found.append(Command(number, line[2:], ()))
        elif is_inside and line.startswith("> ") and not found[-1].shown:
            last = found[-1]
            found[-1] = Command(last.line, f"{last.text}\n{line[2:]}", ())
        elif is_inside:
            last = found[-1]
            found[-1] = Command(last.line, last.text, (*last.shown, line))
    return found


def masked(lines: Sequence[str]) -> list[str]:
    text = "\n".join(line.rstrip() for line in lines)
    for pattern, mask in MASKS:
        text = pattern.sub(mask, text)
    return text.splitlines()


def is_shown(real: Sequence[str], shown: Sequence[str]) -> bool:
    """Whether the output is what README shows; a line `...` there stands for any lines, at least one."""
    cut = "\0"
    expected = "\n".join(cut if line.strip() == "..." else line for line in masked(shown))
    pattern = re.escape(expected).replace(re.escape(cut), r"[^\n]*(?:\n[^\n]*)*?")
    return re.fullmatch(pattern, "\n".join(masked(real))) is not None


class Shell:
    """One bash, in which commands are run one after the other."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, command: str) -> list[str]:
        """Run a command; return the lines that it wrote, on standard error too."""
        assert self._process.stdin
        assert self._process.stdout
        mark = f"end-{uuid.uuid4().hex}"
        self._process.stdin.write(f"{command}\necho {mark}\n".encode())
        lines: list[str] = []
        async with asyncio.timeout(COMMAND_SECONDS):
            while True:
                line = (await self._process.stdout.readline()).decode()
                assert line, f"bash ended at: {command}\n{lines}"
                head, is_end, _ = line.partition(mark)
                if head:
                    lines.append(head.rstrip("\n"))
                if is_end:
                    return lines

    async def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        await self._process.stdout.read()
        await self._process.wait()


async def shell(folder: Path) -> Shell:
    return Shell(
        await asyncio.create_subprocess_exec(
            *("bash", "--noprofile", "--norc"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=folder,
            env=environment(TMPDIR=str(folder)),
        )
    )


def flags_of(make_run: str) -> list[str]:
    """The service's flags in `make run ARGS="..."`."""
    _, _, *variables = shlex.split(make_run)
    (args,) = [variable.removeprefix("ARGS=") for variable in variables]
    return [str(ROOT / word) if word.startswith("examples/") else word for word in shlex.split(args)]


def adapted(text: str, server: Server, etcd_url: str) -> str:
    """A command as README has it, but for this service, its etcd, and the programs next to this Python."""
    return (
        text.replace("127.0.0.1:50051", server.address)
        .replace(".venv/bin/grpcurl", shlex.quote(str(GRPCURL)))
        .replace(".venv/bin/etcdctl", shlex.quote(str(etcdctl_path())))
        .replace(etcd_url, server.etcd_url)
    )


async def play(readme: str, folder: Path, serve: Serve) -> list[str]:
    """Run README's session; return what is not as it says."""
    first, *session = itertools.dropwhile(lambda each: "ARGS=" not in each.text, commands(readme))
    server = await serve(*flags_of(first.text))
    assert is_shown(["", *server.log.splitlines()], first.shown), server.log
    etcd_url = first.shown[-1].rpartition("etcd at ")[2]
    differences: list[str] = []
    bash = await shell(folder)
    try:
        for command in session:
            real = await bash.run(adapted(command.text, server, etcd_url))
            until_time = asyncio.get_running_loop().time() + PATIENCE_SECONDS
            while not is_shown(real, command.shown):
                if not READS.match(command.text) or asyncio.get_running_loop().time() > until_time:
                    shows, gives = "\n".join(command.shown), "\n".join(real)
                    differences.append(f"README.md:{command.line}: {command.text}\nshows:\n{shows}\ngives:\n{gives}")
                    break
                await asyncio.sleep(0.2)
                real = await bash.run(adapted(command.text, server, etcd_url))
            if differences:
                break
    finally:
        # It ends the watch that the session has left in the background, and with it bash's output.
        await server.stop()
        await bash.close()
    return differences


@pytest.mark.timeout(120)
async def test_the_session_in_the_readme_gives_what_the_readme_shows(tmp_path: Path, serve: Serve) -> None:
    differences = await play(README.read_text(), tmp_path, serve)
    assert not differences, differences[0]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"ts": "2', '"ts": "x'),
        ('"reason":"LOCKED"', '"reason":"BUSY"'),
    ],
)
async def test_a_readme_that_shows_something_else_is_found_out(
    right: str, wrong: str, tmp_path: Path, serve: Serve
) -> None:
    readme = README.read_text()
    assert right in readme
    (difference,) = await play(readme.replace(right, wrong, 1), tmp_path, serve)
    assert wrong in difference


def test_the_readme_shows_every_rpc_that_a_person_needs() -> None:
    text = "\n".join(command.text for command in commands(README.read_text()))
    for rpc in ("Create", "Propose", "Append", "Complete", "Cancel", "Get", "List", "Watch"):
        assert f"call {rpc}" in text


@pytest.mark.parametrize("path", [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda path: path.name)
def test_links_lead_to_files_that_are_there(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text())
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert not missing


async def test_the_flags_in_the_readme_are_those_of_the_help() -> None:
    help_text = (await run(PROGRAM, "serve", "--help", COLUMNS="200")).out
    in_help = set(re.findall(r"^ +(?:-h, )?(--[a-z-]+)", help_text, re.MULTILINE)) - {"--help"}
    in_readme = set(re.findall(r"^\| `(--[a-z-]+)", README.read_text(), re.MULTILINE))
    assert in_readme == in_help
