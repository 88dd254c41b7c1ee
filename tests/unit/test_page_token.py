"""Page tokens go out and come back; whatever else comes is refused, and page_token alone is to blame."""

import base64
import json
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from operation_service.errors import InvalidRequestError
from operation_service.model import State
from operation_service.page_token import LogsToken, OperationsToken, read, write

QUERY = "project\nvirtual_machines/\nLOCKED"
OPERATIONS = OperationsToken(57, "project", "virtual_machines/web-1", QUERY)
LOGS = LogsToken("operation-1", 250, 100, QUERY)
MAX_INT64 = 2**63 - 1

Token = OperationsToken | LogsToken
Kind = type[OperationsToken] | type[LogsToken]
both_kinds = pytest.mark.parametrize("token", [OPERATIONS, LOGS], ids=["operations", "logs"])


def refused(text: str, kind: Kind, query: str = QUERY) -> None:
    """Read a token that has to be refused, for page_token alone."""
    read_it: Callable[[], Token] = (
        (lambda: read(text, OperationsToken, query))
        if kind is OperationsToken
        else (lambda: read(text, LogsToken, query))
    )
    with pytest.raises(InvalidRequestError) as caught:
        read_it()
    assert [violation.field for violation in caught.value.violations] == ["page_token"]


def written(**values: object) -> str:
    """A token that somebody has made by hand."""
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


BY_HAND: dict[str, object] = {
    "revision": 57,
    "after_project": "project",
    "after_name": "name",
    "query": QUERY,
}


@given(
    st.builds(
        OperationsToken,
        revision=st.integers(1, MAX_INT64),
        after_project=st.text("Aa0._-", min_size=1, max_size=63),
        after_name=st.text("Aa0._:@-/", min_size=1, max_size=253),
        query=st.text(st.characters(codec="utf-8"), max_size=60),
    )
)
def test_a_token_of_operations_comes_back_as_it_was(token: OperationsToken) -> None:
    assert read(write(token), OperationsToken, token.query) == token


@given(
    st.builds(
        LogsToken,
        operation_id=st.text("0123456789abcdef", min_size=1, max_size=32),
        count=st.integers(1, MAX_INT64),
        after=st.integers(1, MAX_INT64),
        query=st.text(st.characters(codec="utf-8"), max_size=60),
    )
)
def test_a_token_of_logs_comes_back_as_it_was(token: LogsToken) -> None:
    assert read(write(token), LogsToken, token.query) == token


def test_the_longest_one_comes_back() -> None:
    query = "\n".join(["p" * 63, "n" * 253, *State])
    token = OperationsToken(MAX_INT64, "p" * 63, "n" * 253, query)
    assert read(write(token), OperationsToken, query) == token


@both_kinds
def test_it_goes_into_a_url_as_it_is(token: Token) -> None:
    text = write(token)
    assert text
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@both_kinds
@pytest.mark.parametrize("query", ["", f"{QUERY}\nEXPIRED", "project", QUERY.upper(), f"{QUERY}\n"])
def test_the_token_of_another_query_is_refused(token: Token, query: str) -> None:
    refused(write(token), type(token), query)


def test_the_token_of_another_kind_is_refused() -> None:
    refused(write(OPERATIONS), LogsToken)
    refused(write(LOGS), OperationsToken)


@pytest.mark.parametrize("kind", [OperationsToken, LogsToken])
@given(text=st.text(st.characters(codec="utf-8")))
@example(text="")
@example(text="=")
@example(text="A")
@example(text="あ")
@example(text="e30")
@example(text="bnVsbA")
@example(text="A" * 2_001)
@example(text="\0")
def test_garbage_is_refused(kind: Kind, text: str) -> None:
    refused(text, kind)


@pytest.mark.parametrize("kind", [OperationsToken, LogsToken])
@given(data=st.binary())
def test_garbage_in_base64_is_refused(kind: Kind, data: bytes) -> None:
    refused(base64.urlsafe_b64encode(data).decode().rstrip("="), kind)


@both_kinds
def test_a_part_of_a_token_is_refused(token: Token) -> None:
    text = write(token)
    for length in range(len(text)):
        refused(text[:length], type(token))


@both_kinds
@pytest.mark.parametrize("around", [" {}", "{} ", "{}\n", "\n{}", "{}A", "{0}{0}", "{}!"])
def test_a_token_with_more_around_it_is_refused(token: Token, around: str) -> None:
    refused(around.format(write(token)), type(token))


def test_what_is_like_a_token_would_do() -> None:
    assert read(written(**BY_HAND), OperationsToken, QUERY) == OperationsToken(57, "project", "name", QUERY)


@pytest.mark.parametrize("field", BY_HAND)
@pytest.mark.parametrize("value", [None, [], {}, True, 1.5])
def test_a_token_with_a_part_of_the_wrong_kind_is_refused(field: str, value: object) -> None:
    refused(written(**BY_HAND | {field: value}), OperationsToken)


@pytest.mark.parametrize("revision", [-(2**63) - 1, -1, 0, MAX_INT64 + 1, 10**40])
def test_a_revision_that_etcd_cannot_be_asked_for_is_refused(revision: int) -> None:
    # The service writes no such token, but somebody may, and etcd's messages cannot hold the number.
    refused(written(**BY_HAND | {"revision": revision}), OperationsToken)


def test_a_token_that_is_longer_than_any_is_refused() -> None:
    refused(written(**BY_HAND, x="x" * 2_000), OperationsToken)


def test_a_token_that_is_nested_too_deeply_is_refused() -> None:
    deep = json.dumps(BY_HAND)[:-1] + ', "x": ' + "[" * 1_300
    refused(base64.urlsafe_b64encode(deep.encode()).decode().rstrip("="), OperationsToken)
