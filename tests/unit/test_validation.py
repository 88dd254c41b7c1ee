"""The limits of CONTRACT section 4, each at its edge; what is wrong is named, and all of it at once."""

import hashlib
from collections.abc import Callable, Sequence

import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from operation_service.errors import InvalidRequestError
from operation_service.model import Failure, Resource, State
from operation_service.validation import (
    DEFAULT_PAGE_SIZE,
    MAX_ERROR_BYTES,
    MAX_LOG_MESSAGE_BYTES,
    MAX_PAGE_SIZE,
    MAX_REQUEST_BYTES,
    Validator,
    is_name,
    is_name_prefix,
    is_project,
)

MAX_INT32 = 2**31 - 1
MAX_UINT64 = 2**64 - 1
TYPE_URL = "type.googleapis.com/n0stack.infra.v1alpha.ShutdownVirtualMachineRequest"
KNOWN = {1: State.PENDING, 2: State.LOCKED}

# A text that is right but for one character, which no field with a fixed alphabet takes, at its end or in its middle.
STRAY = [
    "\n",
    "\r\n",
    "\0",
    "\t",
    " ",
    "\x7f",
    "\x1b",
    "\u200b",
    "\u2028",
    "#",
    "\\",
    "%",
    "*",
    "é",
    "あ",
    "\u0661",
    "\uff41",
]


def violations(check: Callable[[Validator], object]) -> list[str]:
    """The fields that a check finds wrong."""
    validator = Validator()
    check(validator)
    try:
        validator.finish()
    except InvalidRequestError as error:
        return [violation.field for violation in error.violations]
    return []


def names() -> st.SearchStrategy[str]:
    characters = st.text("azAZ09._:@-", min_size=1, max_size=20)
    segments = characters.filter(lambda segment: segment not in {".", ".."})
    return st.lists(segments, min_size=1, max_size=8).map("/".join)


class TestProject:
    @pytest.mark.parametrize("project", ["a", "Z", "0", "a.b", "a_b", "a-b", "a-", "a..", "0" * 63, "Az09._-"])
    def test_it_may_be_up_to_63_letters_digits_dots_underscores_and_hyphens(self, project: str) -> None:
        assert violations(lambda check: check.resource(project, "a")) == []
        assert is_project(project)

    @pytest.mark.parametrize("project", ["", "0" * 64, ".", "..", "-a", "_a", ".a", "/", "a/b", "a/", "a:b", "a@b"])
    def test_anything_else_is_refused(self, project: str) -> None:
        assert violations(lambda check: check.resource(project, "a")) == ["project"]
        assert not is_project(project)

    @pytest.mark.parametrize("stray", STRAY)
    @pytest.mark.parametrize("around", ["a{}", "{}a", "a{}a"])
    def test_control_characters_and_what_is_not_ascii_are_refused(self, around: str, stray: str) -> None:
        project = around.format(stray)
        assert violations(lambda check: check.resource(project, "a")) == ["project"]
        assert violations(lambda check: check.filter(project, "")) == ["project"]
        assert not is_project(project)


class TestName:
    @pytest.mark.parametrize(
        "name",
        [
            "a",
            "virtual_machines/web-1",
            "a/b/c/d",
            "0" * 253,
            "a/" * 126 + "a",
            "Az09._:@-",
            ".a",
            "...",
            "a.",
            "a/..b/c",
            ":",
            "-",
        ],
        ids=lambda name: name[:20],
    )
    def test_it_may_be_up_to_253_characters_in_segments_joined_by_single_slashes(self, name: str) -> None:
        assert violations(lambda check: check.resource("a", name)) == []
        assert is_name(name)

    @pytest.mark.parametrize(
        "name",
        ["", "0" * 254, "a/" * 126 + "aa", "/", "/a", "a/", "a//b", "//"],
        ids=lambda name: name[:20] or "empty",
    )
    def test_what_is_empty_or_too_long_or_has_stray_slashes_is_refused(self, name: str) -> None:
        assert violations(lambda check: check.resource("a", name)) == ["name"]
        assert not is_name(name)

    @pytest.mark.parametrize("name", [".", "..", "./a", "../a", "a/.", "a/..", "a/./b", "a/../b", "a/../../b"])
    def test_no_segment_is_a_step_in_a_path(self, name: str) -> None:
        assert violations(lambda check: check.resource("a", name)) == ["name"]

    @pytest.mark.parametrize("stray", STRAY)
    @pytest.mark.parametrize("around", ["a{}", "{}a", "a{}a", "a/{}", "a/b{}", "{}/a"])
    def test_control_characters_and_what_is_not_ascii_are_refused(self, around: str, stray: str) -> None:
        name = around.format(stray)
        assert violations(lambda check: check.resource("a", name)) == ["name"]
        assert violations(lambda check: check.filter("a", name)) == ["name_prefix"]

    def test_a_resource_is_what_was_checked(self) -> None:
        assert Validator().resource("project", "a/b") == Resource("project", "a/b")


class TestFilter:
    @pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "virtual_machines/", "a/.", "a/..", ".", "..", "0" * 253])
    def test_a_prefix_may_be_empty_or_the_beginning_of_a_name(self, prefix: str) -> None:
        assert violations(lambda check: check.filter("project", prefix)) == []

    @pytest.mark.parametrize("prefix", ["/", "/a", "a//", "a//b", "./", "../", "a/./", "a/../b", "0" * 254])
    def test_a_prefix_that_no_name_begins_with_is_refused(self, prefix: str) -> None:
        assert violations(lambda check: check.filter("project", prefix)) == ["name_prefix"]

    @given(names())
    def test_every_beginning_of_a_name_is_a_prefix(self, name: str) -> None:
        assert is_name(name)
        assert all(is_name_prefix(name[:length]) for length in range(len(name) + 1))

    def test_a_project_may_be_empty_in_a_filter_only(self) -> None:
        assert violations(lambda check: check.filter("", "a")) == []
        assert violations(lambda check: check.resource("", "a")) == ["project"]

    @pytest.mark.parametrize("project", ["0" * 64, "a/b", ".a"])
    def test_a_project_in_a_filter_has_the_same_limits(self, project: str) -> None:
        assert violations(lambda check: check.filter(project, "")) == ["project"]


class TestToken:
    @pytest.mark.parametrize("token", ["a", "a" * 256, "é" * 128, "あ" * 85 + "a", "with space", "~!#$%/\\\"'", "🦀"])
    def test_it_may_be_up_to_256_bytes_of_printable_characters(self, token: str) -> None:
        assert violations(lambda check: check.token(token)) == []

    @pytest.mark.parametrize("token", ["", "a" * 257, "é" * 128 + "a", "é" * 129, "あ" * 86], ids=len)
    def test_empty_or_more_than_256_bytes_is_refused(self, token: str) -> None:
        assert violations(lambda check: check.token(token)) == ["proposing_peer_token"]

    @pytest.mark.parametrize("stray", ["\n", "\r", "\t", "\0", "\x1f", "\x7f", "\x85", "\u200b", "\u2028", "\u202e"])
    @pytest.mark.parametrize("around", ["{}", "a{}", "{}a", "a{}a"])
    def test_what_cannot_be_printed_is_refused(self, around: str, stray: str) -> None:
        token = around.format(stray)
        assert violations(lambda check: check.token(token)) == ["proposing_peer_token"]


class TestLockForSeconds:
    @pytest.mark.parametrize("seconds", [1, 2, 86_400])
    def test_it_may_be_1_to_the_maximum(self, seconds: int) -> None:
        assert violations(lambda check: check.lock_for_seconds(seconds, 86_400)) == []

    @pytest.mark.parametrize("seconds", [0, 86_401, 2**32 - 1])
    def test_0_or_more_than_the_maximum_is_refused(self, seconds: int) -> None:
        assert violations(lambda check: check.lock_for_seconds(seconds, 86_400)) == ["lock_for_seconds"]

    def test_the_maximum_is_told(self) -> None:
        check = Validator()
        check.lock_for_seconds(4, 3)
        with pytest.raises(InvalidRequestError, match="lock_for_seconds: must be 1 to 3"):
            check.finish()


class TestLogMessage:
    @pytest.mark.parametrize("message", ["", "a" * 4_096, "é" * 2_048, "two\nlines\0"], ids=len)
    def test_it_may_be_up_to_4_kib_of_anything(self, message: str) -> None:
        assert MAX_LOG_MESSAGE_BYTES == 4_096
        assert violations(lambda check: check.log_message(message)) == []

    @pytest.mark.parametrize("message", ["a" * 4_097, "é" * 2_048 + "a", "あ" * 1_366], ids=len)
    def test_more_than_4_kib_in_utf_8_is_refused(self, message: str) -> None:
        assert violations(lambda check: check.log_message(message)) == ["log_message"]

    def test_where_it_is_what_is_to_be_added_it_must_not_be_empty(self) -> None:
        assert violations(lambda check: check.log_message("", is_required=True)) == ["log_message"]
        assert violations(lambda check: check.log_message(" ", is_required=True)) == []


def request_of(size: int) -> Any:
    """A request that is `size` bytes long when serialized."""
    request = Any(type_url=TYPE_URL, value=bytes(size - 100))
    request.value = bytes(size - 100 + size - request.ByteSize())
    assert request.ByteSize() == size
    return request


class TestOperationRequest:
    def test_none_is_none(self) -> None:
        assert Validator().operation_request(Any()) == (None, "")

    def test_it_is_kept_as_it_is_with_its_digest(self) -> None:
        request = Any(type_url=TYPE_URL, value=b"\x0a\x01a")
        data, digest = Validator().operation_request(request)
        assert data is not None
        assert Any.FromString(data) == request
        assert digest == hashlib.sha256(data).hexdigest()

    @pytest.mark.parametrize(
        "other", [Any(type_url=TYPE_URL, value=b"\x0a\x01b"), Any(type_url="/a.B", value=b"\x0a\x01a")]
    )
    def test_another_request_has_another_digest(self, other: Any) -> None:
        request = Any(type_url=TYPE_URL, value=b"\x0a\x01a")
        assert Validator().operation_request(other)[1] != Validator().operation_request(request)[1]

    @pytest.mark.parametrize(
        ("size", "fields"), [(MAX_REQUEST_BYTES, []), (MAX_REQUEST_BYTES + 1, ["operation_request"])]
    )
    def test_it_may_be_up_to_256_kib(self, size: int, fields: list[str]) -> None:
        assert MAX_REQUEST_BYTES == 262_144
        assert violations(lambda check: check.operation_request(request_of(size))) == fields

    @pytest.mark.parametrize(
        "type_url", [TYPE_URL, "/Type", "example.com/a.b.Type", "https://example.com/x%20y/~z/a.B", "a:1/_a._1"]
    )
    def test_a_type_url_ends_with_a_slash_and_the_full_name_of_a_message(self, type_url: str) -> None:
        assert violations(lambda check: check.operation_request(Any(type_url=type_url))) == []

    @pytest.mark.parametrize(
        "type_url",
        [
            "",
            "Type",
            "a.b.Type",
            "type.googleapis.com/",
            "/",
            "/.a",
            "/a.",
            "/a..b",
            "/1a",
            "/a.1b",
            "/a-b",
            "/a b",
            "a b/Type",
            f"{TYPE_URL}\n",
            f"\n{TYPE_URL}",
            f"{TYPE_URL}\0",
            "/é",
            "é/Type",
        ],
    )
    def test_any_other_type_url_is_refused(self, type_url: str) -> None:
        request = Any(type_url=type_url, value=b"x")
        assert violations(lambda check: check.operation_request(request)) == ["operation_request.type_url"]


class TestError:
    @pytest.mark.parametrize("code", [code for code in Code.values() if code != Code.OK])
    def test_it_may_have_any_code_but_ok(self, code: int) -> None:
        assert violations(lambda check: check.error(Status(code=code))) == []

    @pytest.mark.parametrize("code", [Code.OK, -1, 17, MAX_INT32])
    def test_ok_and_what_is_no_code_are_refused(self, code: int) -> None:
        assert violations(lambda check: check.error(Status(code=code))) == ["error.code"]

    def test_it_is_kept_as_it_is(self) -> None:
        detail = Any(type_url=TYPE_URL, value=b"x")
        error = Status(code=Code.DATA_LOSS, message="the disk is gone", details=[detail])
        assert Validator().error(error) == Failure(15, "the disk is gone", (detail.SerializeToString(),))

    @pytest.mark.parametrize(("more", "fields"), [(0, []), (1, ["error"])])
    def test_it_has_to_fit_into_a_change(self, more: int, fields: list[str]) -> None:
        error = Status(code=Code.DATA_LOSS, message="a" * 60_000)
        error.message += "a" * (MAX_ERROR_BYTES + more - error.ByteSize())
        assert violations(lambda check: check.error(error)) == fields


class TestStates:
    def test_none_is_all_and_known_ones_are_translated_once(self) -> None:
        assert Validator().states([], KNOWN) == frozenset()
        assert Validator().states([1, 2, 1], KNOWN) == {State.PENDING, State.LOCKED}

    @pytest.mark.parametrize("number", [0, 3, -1, MAX_INT32])
    def test_unspecified_and_unknown_ones_are_refused(self, number: int) -> None:
        assert violations(lambda check: check.states([1, number], KNOWN)) == ["states"]

    def test_however_many_are_wrong_a_few_are_told(self) -> None:
        check = Validator()
        check.states(range(3, 1_000), KNOWN)
        with pytest.raises(InvalidRequestError, match=r"not 3, 4, 5, 6, 7, 8, 9, 10, 11, 12$"):
            check.finish()


class TestPageSize:
    @pytest.mark.parametrize(
        ("size", "taken"),
        [(0, 100), (1, 1), (100, 100), (999, 999), (1_000, 1_000), (1_001, 1_000), (MAX_INT32, 1_000)],
    )
    def test_0_is_100_and_more_than_1000_is_1000(self, size: int, taken: int) -> None:
        check = Validator()
        assert check.page_size(size) == taken
        check.finish()
        assert (DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE) == (100, 1_000)

    @pytest.mark.parametrize("size", [-1, -(2**31)])
    def test_less_than_0_is_refused(self, size: int) -> None:
        assert violations(lambda check: check.page_size(size)) == ["page_size"]


class TestStartRevision:
    @pytest.mark.parametrize("revision", [0, 1, 2**63 - 1])
    def test_0_or_more_is_taken(self, revision: int) -> None:
        assert violations(lambda check: check.start_revision(revision)) == []

    @pytest.mark.parametrize("revision", [-1, -(2**63)])
    def test_less_than_0_is_refused(self, revision: int) -> None:
        assert violations(lambda check: check.start_revision(revision)) == ["start_revision"]


class TestFencingTokenMetadata:
    @pytest.mark.parametrize(
        ("values", "token"),
        [
            ([], None),
            (["0"], 0),
            (["41"], 41),
            (["041"], 41),
            ([str(MAX_UINT64)], MAX_UINT64),
            (["41", "41"], 41),
        ],
    )
    def test_it_is_one_decimal_number_or_none(self, values: Sequence[str], token: int | None) -> None:
        check = Validator()
        assert check.fencing_token(values) == token
        check.finish()

    @pytest.mark.parametrize(
        "values",
        [
            [""],
            ["-1"],
            ["+1"],
            [" 1"],
            ["1 "],
            ["1\n"],
            ["1.0"],
            ["1e3"],
            ["0x1"],
            ["1_000"],
            ["one"],
            ["\u0661"],
            ["\uff11"],
            ["²"],
            [b"1"],
            [str(MAX_UINT64 + 1)],
            ["1" * 5_000],
            ["1", "2"],
            ["1", "01"],
        ],
        ids=lambda values: ascii(values)[:20],
    )
    def test_anything_else_is_refused_and_the_metadata_named(self, values: Sequence[str | bytes]) -> None:
        check = Validator()
        assert check.fencing_token(values) is None
        with pytest.raises(InvalidRequestError, match="metadata") as caught:
            check.finish()
        assert [violation.field for violation in caught.value.violations] == ["n0stack-fencing-token"]


class TestEveryViolationIsReportedAtOnce:
    def test_all_of_them_in_the_order_of_the_checks(self) -> None:
        check = Validator()
        check.resource("-", "a//b")
        check.token("")
        check.lock_for_seconds(0, 10)
        check.log_message("a" * 4_097)
        check.operation_request(Any(type_url="x", value=bytes(MAX_REQUEST_BYTES)))
        check.error(Status(message="a" * MAX_ERROR_BYTES))
        check.fencing_token(["x"])
        check.wrong("is_disabled_cancel", "needs a lock")
        with pytest.raises(InvalidRequestError) as caught:
            check.finish()
        assert [violation.field for violation in caught.value.violations] == [
            "project",
            "name",
            "proposing_peer_token",
            "lock_for_seconds",
            "log_message",
            "operation_request.type_url",
            "operation_request",
            "error.code",
            "error",
            "n0stack-fencing-token",
            "is_disabled_cancel",
        ]
        for violation in caught.value.violations:
            assert f"{violation.field}: {violation.description}" in caught.value.message

    def test_nothing_wrong_is_nothing_raised(self) -> None:
        check = Validator()
        check.resource("a", "b")
        check.finish()
