"""What others have written, made safe for a terminal."""

import json

from hypothesis import given
from hypothesis import strategies as st

from operation_service.terminal_text import as_json, shown


@given(st.text())
def test_whatever_it_is_it_becomes_one_printable_line(text: str) -> None:
    assert shown(text).isprintable()


@given(st.text(st.characters(categories=["L", "N", "P", "S", "M"])))
def test_readable_text_of_every_language_stays_as_it_is(text: str) -> None:
    if text.isprintable():
        assert shown(text) == text


@given(st.dictionaries(st.text(), st.text() | st.lists(st.text())), st.sampled_from([None, 2]))
def test_json_means_the_same_and_is_safe_to_print(value: dict[str, object], indent: int | None) -> None:
    written = as_json(value, indent)
    assert json.loads(written) == value
    assert written.replace("\n", "").isprintable()
    assert indent or "\n" not in written


def test_json_keeps_what_is_readable() -> None:
    assert as_json({"log": "停止中\x1b\u009b"}) == '{"log": "停止中\\u001b\\u009b"}'
