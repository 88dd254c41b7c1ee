"""Every code block of README.md and docs/ is run, and shows what a reader gets."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from e2e.page_blocks import fences, pages, session
from e2e.page_fences import ELSEWHERE, not_run
from e2e.page_player import play
from e2e.support_e2e import ROOT, Serve, run, run_in

TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in pages()}
PLAYED = [name for name, text in TEXTS.items() if name != "README.md" and session(text)]
"""README.md's session has tests of its own."""
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
MAKE = re.compile(r"^(?:\$ )?(make .*?) *(?: # .*)?$", re.MULTILINE)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", PLAYED)
async def test_the_session_of_a_page_gives_what_the_page_shows(page: str, tmp_path: Path, serve: Serve) -> None:
    differences = await play(page, TEXTS[page], tmp_path, serve)
    assert not differences, differences[0]


@pytest.mark.parametrize("page", TEXTS)
def test_every_block_of_the_pages_is_run(page: str) -> None:
    left = not_run(TEXTS[page], ELSEWHERE.get(page, {}))
    hint = "no session runs it, and tests/e2e/page_fences.py does not say which test does"
    assert not left, "\n".join(f"{page}:{fence.line}: ```{fence.info}: {hint}" for fence in left)


@pytest.mark.parametrize(
    ("page", "begin", "test"),
    [(page, begin, test) for page, listed in ELSEWHERE.items() for begin, test in listed.items()],
)
def test_what_is_run_elsewhere_is_there_and_has_its_test(page: str, begin: str, test: str) -> None:
    path, _, name = test.partition("::")
    assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)
    assert [fence.head for fence in not_run(TEXTS[page], ()) if fence.head.startswith(begin)]


@pytest.mark.parametrize("page", [*TEXTS, "CONTRIBUTING.md"])
async def test_what_the_pages_make_can_be_made(page: str) -> None:
    for fence in fences(TEXTS.get(page, CONTRIBUTING)):
        for command in MAKE.findall("\n".join(fence.lines)):
            _, *words = shlex.split(command)
            dry = await run("make", "--dry-run", "--directory", ROOT, *words)
            assert dry.code == 0, f"{page}:{fence.line}: {command}\n{dry.err}"
            if words[0] == "bench":
                help_text = await run_in(ROOT, sys.executable, "-m", "benchmarks", "--help", PYTHONPATH="tests")
                assert set(re.findall(r"--[a-z]+", command)) <= set(re.findall(r"--[a-z]+", help_text.out))


async def test_the_figures_of_the_limits_can_be_measured_again(serve: Serve) -> None:
    (fence,) = not_run(TEXTS["docs/limits.md"], ())
    server = await serve()
    with_less = {"127.0.0.1:50051": server.address, " PID": f" {server.process.pid} 0.01", " 10 2560 ": " 1 8 "}
    script = "\n".join(fence.lines).replace(".venv/bin/python", shlex.quote(sys.executable))
    for shown, tried in with_less.items():
        assert shown in script
        script = script.replace(shown, tried)
    finished = await run_in(ROOT, "bash", "-e", "-c", f"{script}\nwait $!")
    assert finished.code == 0, finished.err
    assert re.findall(r"^\d+ (held locks|idle connections|watches):", finished.out, re.MULTILINE)
    assert finished.out.count('"OK ": ') + finished.out.count('"OK": ') == 2, finished.out


@pytest.mark.parametrize("page", TEXTS)
def test_links_of_the_pages_lead_to_files_that_are_there(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXTS[page])
    missing = [link for link in links if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()]
    assert not missing
