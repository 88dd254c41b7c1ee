"""Files that are read again when they change."""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

from operation_service import daemon_thread
from operation_service.kept_files import KeptFiles
from operation_service.settings_error import SettingsError

Meaning = TypeVar("Meaning")


def numbers(**files: Path) -> KeptFiles[tuple[int, ...]]:
    """Kept numbers, each in a file that a flag names."""
    return KeptFiles({f"--{flag}": file for flag, file in files.items()}, as_numbers)


def as_numbers(contents: Mapping[str, bytes]) -> tuple[int, ...]:
    try:
        return tuple(int(content) for content in contents.values())
    except ValueError as error:
        raise SettingsError("there is no number in it") from error


def settling(file: Path) -> KeptFiles[int]:
    """A kept number that is taken only once it stays as it is."""

    def number(contents: Mapping[str, bytes]) -> int:
        try:
            return int(contents["--number"])
        except ValueError as error:
            raise SettingsError(f"--number {file}: it is no number") from error

    return KeptFiles({"--number": file}, number, settles=True)


async def seen(kept: KeptFiles[Meaning]) -> Meaning:
    """What is meant after a look."""
    await kept.look()
    return kept.meaning


def put(file: Path, content: str | None) -> None:
    """Write a file, or remove it."""
    if content is None:
        file.unlink()
    else:
        file.write_text(content)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "number").write_text("1")
    return tmp_path / "number"


async def test_it_means_what_is_in_it_now(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    kept = settling(file)
    assert await seen(kept) == 1
    put(file, "2")
    assert [await seen(kept) for _ in range(3)] == [1, 2, 2]
    assert caplog.messages == [f"--number {file}: what is in it now is in use"]


async def test_what_is_bad_or_gone_leaves_the_last_good_in_use_and_is_told_once(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = settling(file)
    for bad in ("?", "!"):
        put(file, bad)
        assert [await seen(kept) for _ in range(4)] == [1, 1, 1, 1]
    put(file, None)
    assert [await seen(kept) for _ in range(4)] == [1, 1, 1, 1]
    assert caplog.messages == [
        f"what was read before stays in use: --number {file}: it is no number",
        f"what was read before stays in use: --number {file}: it cannot be read: No such file or directory",
    ]
    put(file, "3")
    assert [await seen(kept) for _ in range(2)] == [1, 3]


async def test_what_was_refused_is_not_looked_into_again_before_something_else_is_in_the_file(file: Path) -> None:
    asked: list[bytes] = []

    def number(contents: Mapping[str, bytes]) -> int:
        asked.append(contents["--number"])
        if b"?" in asked[-1]:
            raise SettingsError("it is no number")
        return int(asked[-1])

    kept = KeptFiles({"--number": file}, number, settles=True)
    for content in ("?", "2", "?"):
        put(file, content)
        for _ in range(4):
            await kept.look()
    assert asked == [b"1", b"?", b"2", b"?"]


async def test_what_changes_from_look_to_look_is_not_taken_before_it_stays_as_it_is(file: Path) -> None:
    kept = settling(file)
    for half_written in ("2", "23", "234"):
        put(file, half_written)
        assert await seen(kept) == 1
    assert await seen(kept) == 234


async def test_what_was_bad_and_is_bad_again_is_told_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    kept = settling(file)
    for content in ("?", "1", "?"):
        put(file, content)
        for _ in range(3):
            await kept.look()
    trouble = f"what was read before stays in use: --number {file}: it is no number"
    assert caplog.messages == [trouble, f"--number {file}: what is in use is there again", trouble]


async def test_a_link_that_leads_elsewhere_is_followed(tmp_path: Path) -> None:
    """As Kubernetes replaces what it mounts: `policy` is a link by way of `..data`, which is put in place at once."""
    for name, content in (("one", "1"), ("two", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy").write_text(content)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "policy").symlink_to("..data/policy")
    kept = settling(tmp_path / "policy")
    (tmp_path / "..next").symlink_to("two")
    (tmp_path / "..next").replace(tmp_path / "..data")
    assert [await seen(kept) for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("what", ["folder", "missing", "large", "bad"])
def test_what_is_not_good_at_the_start_is_an_error(what: str, file: Path, tmp_path: Path) -> None:
    if what == "large":
        file.write_bytes(bytes(1024 * 1024 + 1))
    elif what == "bad":
        file.write_text("?")
    path = {"folder": tmp_path, "missing": tmp_path / "missing"}.get(what, file)
    with pytest.raises(SettingsError, match=f"^--number {path}: it "):
        settling(path)


async def test_files_that_fit_together_are_taken_at_once_and_the_log_names_those_that_have_changed(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    other = tmp_path / "other"
    put(other, "10")
    kept = numbers(one=file, two=other)
    put(other, "20")
    assert await seen(kept) == (1, 20)
    put(file, "2")
    put(other, "?")
    assert await seen(kept) == (1, 20)
    put(other, "30")
    assert await seen(kept) == (2, 30)
    assert caplog.messages == [
        f"--two {other}: what is in it now is in use",
        f"--one {file}, --two {other}: what is in them now is in use",
    ]


# --- what does not come back


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """What reads hang in, and where something is written for them."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(writing)
    os.close(reading)


def hanging(file: Path, pipe: int) -> KeptFiles[int]:
    """Kept files of which every look at something new waits for a byte."""
    is_first = True

    def number(contents: Mapping[str, bytes]) -> int:
        nonlocal is_first
        if not is_first:
            os.read(pipe, 1)
        is_first = False
        return int(contents["--number"])

    return KeptFiles({"--number": file}, number)


def looks_under_way() -> int:
    return sum(thread.name == daemon_thread.__name__ for thread in threading.enumerate())


async def test_a_look_that_hangs_holds_up_nothing_is_told_once_and_is_the_only_one_until_it_is_over(
    file: Path, pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    kept = hanging(file, pipe[0])
    put(file, "2")
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    turning = asyncio.create_task(turn())
    for _ in range(4):
        before = turns
        await kept.look(0.1)
        assert turns > before
        assert (kept.meaning, looks_under_way()) == (1, 1)
    turning.cancel()
    silent = f"--number {file}: it takes long to read: does its file system answer?"
    assert caplog.messages == [f"what was read before stays in use: {silent}"]
    os.write(pipe[1], b"!")
    await kept.look(10)
    assert kept.meaning == 2
    assert caplog.messages[1:] == [f"--number {file}: what is in it now is in use"]


_PROCESS = """
import asyncio, os, sys
from pathlib import Path
from operation_service.kept_files import KeptFiles

is_first = True

def understand(contents):
    global is_first
    if not is_first:
        os.read(0, 1)
    is_first = False

async def main():
    file = Path(sys.argv[1])
    kept = KeptFiles({"--number": file}, understand)
    file.write_text("2")
    await kept.look(0.1)

asyncio.run(main())
print("over", flush=True)
"""


async def test_a_process_ends_though_a_look_hangs(file: Path) -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROCESS, str(file)), stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        # Its standard input is open, and says nothing.
        async with asyncio.timeout(20):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"over\n", b"")


async def test_that_no_thread_can_be_started_leaves_in_use_what_is(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a container may have no more of them: calls of etcd that want a token look at its password."""
    kept = numbers(number=file)

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    put(file, "2")
    assert [await seen(kept) for _ in range(3)] == [(1,)] * 3
    (told,) = caplog.messages
    assert told == f"what was read before stays in use: --number {file}: it cannot be read: can't start new thread"
