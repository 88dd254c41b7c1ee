"""A file that is read again when it changes."""

import logging
from pathlib import Path

import pytest

from operation_service.kept_file import KeptFile
from operation_service.settings_error import SettingsError


def number(content: bytes, file: Path) -> int:
    try:
        return int(content)
    except ValueError as error:
        raise SettingsError(f"--number {file}: it is no number") from error


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
    kept = KeptFile("--number", file, number)
    assert (await kept.look(), kept.meaning) == (False, 1)
    put(file, "2")
    assert (await kept.look(), kept.meaning) == (False, 1)
    assert (await kept.look(), kept.meaning, await kept.look()) == (True, 2, False)
    assert caplog.messages == [f"--number {file}: what is in it now is in use"]


async def test_what_is_bad_or_gone_leaves_the_last_good_in_use_and_is_told_once(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = KeptFile("--number", file, number)
    for bad in ("?", "!"):
        put(file, bad)
        for _ in range(4):
            assert (await kept.look(), kept.meaning) == (False, 1)
    put(file, None)
    for _ in range(4):
        assert (await kept.look(), kept.meaning) == (False, 1)
    assert caplog.messages == [
        f"what was read before stays in use: --number {file}: it is no number",
        f"what was read before stays in use: --number {file}: it cannot be read: No such file or directory",
    ]
    put(file, "3")
    await kept.look()
    assert (await kept.look(), kept.meaning) == (True, 3)


async def test_what_changes_from_look_to_look_is_not_taken_before_it_stays_as_it_is(file: Path) -> None:
    kept = KeptFile("--number", file, number)
    for half_written in ("2", "23", "234"):
        put(file, half_written)
        assert (await kept.look(), kept.meaning) == (False, 1)
    assert (await kept.look(), kept.meaning) == (True, 234)


async def test_what_was_bad_and_is_bad_again_is_told_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = KeptFile("--number", file, number)
    for content in ("?", "1", "?"):
        put(file, content)
        for _ in range(3):
            await kept.look()
    assert len(caplog.messages) == 2


async def test_a_link_that_leads_elsewhere_is_followed(tmp_path: Path) -> None:
    """As Kubernetes replaces what it mounts: `policy` is a link by way of `..data`, which is put in place at once."""
    for name, content in (("one", "1"), ("two", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy").write_text(content)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "policy").symlink_to("..data/policy")
    kept = KeptFile("--number", tmp_path / "policy", number)
    (tmp_path / "..next").symlink_to("two")
    (tmp_path / "..next").replace(tmp_path / "..data")
    await kept.look()
    assert (await kept.look(), kept.meaning) == (True, 2)


@pytest.mark.parametrize("what", ["folder", "missing", "large", "bad"])
def test_what_is_not_good_at_the_start_is_an_error(what: str, file: Path, tmp_path: Path) -> None:
    if what == "large":
        file.write_bytes(bytes(1024 * 1024 + 1))
    elif what == "bad":
        file.write_text("?")
    path = {"folder": tmp_path, "missing": tmp_path / "missing"}.get(what, file)
    with pytest.raises(SettingsError, match=f"^--number {path}: it "):
        KeptFile("--number", path, number)
