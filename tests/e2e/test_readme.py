"""README.md's session, run as it stands there: what it shows is what a reader gets."""

import re
from pathlib import Path

import pytest
from e2e.page_blocks import commands, fences
from e2e.page_player import play
from e2e.support_e2e import PROGRAM, ROOT, Serve, run

README = ROOT / "README.md"


@pytest.mark.timeout(120)
async def test_the_session_in_the_readme_gives_what_the_readme_shows(tmp_path: Path, serve: Serve) -> None:
    differences = await play(README.name, README.read_text(), tmp_path, serve)
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
    (difference,) = await play(README.name, readme.replace(right, wrong, 1), tmp_path, serve)
    assert wrong in difference


def test_the_readme_shows_every_rpc_that_a_person_needs() -> None:
    text = "\n".join(command.text for command in commands(fences(README.read_text())))
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
