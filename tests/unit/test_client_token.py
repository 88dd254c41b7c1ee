"""A client's bearer token: where it may be sent, and that it is never shown."""

import traceback
from collections.abc import Callable

import grpc
import pytest

from operation_service.client import Tls, UnavailableError
from operation_service.client.bearer import MAX_TOKEN_BYTES, Bearer, stays_here
from operation_service.client.connection import Target

SECRET = "eyJhbGciOi.s3cr3t.s1gn4ture"


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:50051",
        "127.9.9.9:50051",
        "localhost:50051",
        "localhost",
        "[::1]:50051",
        "dns:///localhost:50051",
        "dns:localhost:50051",
        "ipv4:127.0.0.1:1,127.0.0.2:2",
        "ipv6:[::1]:1",
        "ipv6:%5B::1%5D:1",
        "unix:/run/operation.sock",
        "unix:///run/operation.sock",
        "unix-abstract:operation",
    ],
)
def test_a_token_may_be_sent_in_plaintext_within_the_machine(target: str) -> None:
    assert stays_here(target)
    assert Target(target, bearer_token=SECRET).metadata() == (("authorization", f"Bearer {SECRET}"),)


@pytest.mark.parametrize(
    "target",
    [
        "10.0.0.1:50051",
        "operation.example.com:50051",
        "localhost.example.com:50051",
        "127.0.0.1.example.com:50051",
        "dns:///operation.example.com:50051",
        "dns://127.0.0.1/operation.example.com:50051",
        "ipv4:127.0.0.1:1,10.0.0.1:1",
        "ipv6:[2001:db8::1]:1",
        "[2001:db8::1]:50051",
        "xds:///localhost",
        "passthrough:///localhost:50051",
        "::1",
    ],
)
def test_a_token_is_not_sent_in_plaintext_to_other_machines(target: str) -> None:
    assert not stays_here(target)
    with pytest.raises(ValueError, match="without TLS") as caught:
        Target(target, bearer_token=SECRET)
    assert SECRET not in str(caught.value)
    assert Target(target, bearer_token=SECRET, allow_plaintext_token=True).metadata()
    assert Target(target, grpc.ssl_channel_credentials(), bearer_token=SECRET).metadata()


def test_the_token_comes_beside_the_fencing_token() -> None:
    target = Target("localhost:1", bearer_token=SECRET)
    assert target.metadata(41) == (("n0stack-fencing-token", "41"), ("authorization", f"Bearer {SECRET}"))


def test_a_function_is_asked_for_each_call() -> None:
    tokens = iter(["first", "second"])
    bearer = Bearer(lambda: next(tokens))
    assert [bearer.metadata(), bearer.metadata()] == [
        ("authorization", "Bearer first"),
        ("authorization", "Bearer second"),
    ]


def fails() -> str:
    raise RuntimeError("the vault is down")


@pytest.mark.parametrize("ask", [fails, lambda: SECRET + "\n", lambda: "", lambda: None, lambda: b"bytes"])
def test_no_token_at_this_moment_is_as_no_answer_and_nothing_was_sent(ask: Callable[[], str]) -> None:
    with pytest.raises(UnavailableError) as caught:
        Bearer(ask).metadata()
    assert not caught.value.may_have_been_carried_out
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("token", ["", " ", f"{SECRET} more", f"{SECRET}\n", f"\x00{SECRET}", f"{SECRET}é"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ValueError, match="bearer_token") as caught:
        Bearer(token)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_token_that_the_service_may_not_take_is_refused_before_it_is_sent() -> None:
    largest = "x" * MAX_TOKEN_BYTES
    assert Bearer(largest).metadata() == ("authorization", f"Bearer {largest}")
    with pytest.raises(ValueError, match="bearer_token has more than 7,168 bytes"):
        Bearer(f"{largest}x")
    with pytest.raises(UnavailableError, match="bearer_token has more than 7,168 bytes"):
        Bearer(lambda: f"{largest}x").metadata()


def test_a_token_is_a_string_or_a_function() -> None:
    not_a_string: str = b"bytes"  # type: ignore[assignment]
    with pytest.raises(TypeError, match="bearer_token"):
        Bearer(not_a_string)


def test_no_repr_shows_a_token() -> None:
    target = Target("localhost:1", bearer_token=SECRET)
    assert SECRET not in repr((target, Bearer(SECRET), vars(target)))


def test_a_certificate_and_its_key_go_together() -> None:
    for alone in ({"cert": "a"}, {"key": "a"}):
        with pytest.raises(ValueError, match="both cert and key"):
            Tls(**alone)


def test_tls_and_gRPCs_own_credentials_are_not_both_given() -> None:  # noqa: N802
    with pytest.raises(ValueError, match="one of them"):
        Target("localhost:1", grpc.ssl_channel_credentials(), tls=Tls())
