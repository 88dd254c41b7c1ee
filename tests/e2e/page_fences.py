"""The fences of pages that no page's session runs, each with the test that covers it."""

from collections.abc import Iterable

from e2e.page_blocks import Fence, fences, played

ELSEWHERE: dict[str, dict[str, str]] = {
    # page: how the fence begins: the test
    "README.md": {
        "$ make run": "tests/e2e/test_pages.py::test_what_the_pages_make_can_be_made",
    },
    "docs/limits.md": {
        "PYTHONPATH=tests .venv/bin/python tools/memory.py": (
            "tests/e2e/test_pages.py::test_the_figures_of_the_limits_can_be_measured_again"
        ),
    },
    "docs/performance.md": {
        "$ make bench": "tests/e2e/test_pages.py::test_what_the_pages_make_can_be_made",
        "Measured 20": "tests/unit/test_bench_table.py::test_only_the_marked_section_of_a_document_is_written_anew",
    },
    "docs/reliability.md": {
        "make chaos SECONDS=600 SEED=...": "tests/e2e/test_pages.py::test_what_the_pages_make_can_be_made",
    },
}


def not_run(page: str, elsewhere: Iterable[str]) -> list[Fence]:
    """The fences of a page that its session does not run, and that do not begin like one that is run elsewhere."""
    blocks = fences(page)
    in_session = {fence.line for fence in played(blocks)}
    return [
        fence
        for fence in blocks
        if fence.line not in in_session and not any(fence.head.startswith(begin) for begin in elsewhere)
    ]
