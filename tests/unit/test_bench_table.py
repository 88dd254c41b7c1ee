"""What is printed, and what is written into a document."""

import pytest

from benchmarks.figures import Figure, summaries
from benchmarks.report import BEGIN, END, NoPlaceError, with_section
from benchmarks.table import aligned, number, table

CEILING = "ceiling"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.1234, "0.123"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (1234.5, "1,234"),
        (-12.34, "-12.3"),
    ],
)
def test_numbers_have_three_digits_that_say_something(value: float | None, text: str) -> None:
    assert number(value) == text


def test_words_stand_on_the_left_and_numbers_on_the_right() -> None:
    assert aligned([("what", "n"), ("a", "1,000"), ("longer", "2")], left=1) == [
        "what        n",
        "------  -----",
        "a       1,000",
        "longer      2",
    ]


def test_a_figure_stands_with_its_calls_in_flight_together() -> None:
    figures = [
        Figure(name, "few", in_flight, 1, per_second=per_second)
        for in_flight, factor in ((1, 1), (64, 10))
        for name, per_second in ((CEILING, 1000 * factor), ("call", 500 * factor))
    ]
    lines = table(summaries(figures, {}, (CEILING, "other")), (CEILING, "other"))
    assert [line.split()[:4] for line in lines[2:]] == [
        [CEILING, "few", "1", "1,000"],
        [CEILING, "few", "64", "10,000"],
        ["call", "few", "1", "500"],
        ["call", "few", "64", "5,000"],
    ]
    assert lines[4].split()[7:9] == ["0.50", "-"]


def test_only_the_marked_section_of_a_document_is_written_anew() -> None:
    before = f"# Title\n\n{BEGIN}\nold\n{END}\n\nThe rest.\n"
    after = with_section(before, ["new"], "picture.svg")
    assert after.startswith(f"# Title\n\n{BEGIN}\n")
    assert after.endswith(f"{END}\n\nThe rest.\n")
    assert "old" not in after
    assert "](picture.svg)\n\n```text\nnew\n```\n" in after
    assert with_section(after, ["new"], "picture.svg") == after


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}"])
def test_a_document_without_such_a_section_is_refused(text: str) -> None:
    with pytest.raises(NoPlaceError):
        with_section(text, ["new"], "picture.svg")
