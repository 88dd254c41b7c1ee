"""What gRPC raises comes out as the exception for its reason, with the facts of the error details."""

from typing import Any

import grpc
import pytest
from client_fakes import CallError
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.client import errors
from operation_service.client.errors import OperationServiceError, UnavailableError, Violation
from operation_service.client.translation import DOMAIN, REASONS, translated
from operation_service.status import DOMAIN as DOMAIN_OF_THE_SERVICE

DETAILS = "grpc-status-details-bin"
WORDS = "demo/web-1 is locked"


def blocking(code: grpc.StatusCode, message: str | None, trailers: Any) -> grpc.RpcError:
    return CallError(code, message, trailers)


def of_asyncio(code: grpc.StatusCode, message: str | None, trailers: Any) -> grpc.RpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*(trailers or ())), details=message)


def packed(*details: Message) -> list[AnyMessage]:
    each = [AnyMessage() for _ in details]
    for one, detail in zip(each, details, strict=True):
        one.Pack(detail)
    return each


def an_error(
    *details: Message,
    code: grpc.StatusCode = grpc.StatusCode.FAILED_PRECONDITION,
    message: str | None = WORDS,
    make: Any = blocking,
) -> OperationServiceError:
    trailers = ((DETAILS, Status(details=packed(*details)).SerializeToString()),)
    return translated(make(code, message, trailers), "GetOperation")


def info(reason: str, domain: str = DOMAIN, **metadata: str) -> ErrorInfo:
    return ErrorInfo(reason=reason, domain=domain, metadata=metadata)


def test_each_reason_of_the_proto_has_its_exception() -> None:
    assert {f"ERROR_REASON_{reason}" for reason in REASONS} == set(pb.ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}


def test_the_domain_is_that_of_the_service() -> None:
    assert DOMAIN == DOMAIN_OF_THE_SERVICE


@pytest.mark.parametrize("make", [blocking, of_asyncio])
@pytest.mark.parametrize("reason", REASONS)
def test_the_reason_decides_and_not_the_code(reason: str, make: Any) -> None:
    error = an_error(info(reason), code=grpc.StatusCode.UNAVAILABLE, make=make)
    assert type(error) is REASONS[reason]
    assert (error.reason, error.code, error.message, str(error)) == (reason, "UNAVAILABLE", WORDS, WORDS)


@pytest.mark.parametrize("make", [blocking, of_asyncio])
def test_the_facts_of_a_refusal_come_through(make: Any) -> None:
    since, until = "2026-01-02T03:04:05.678901Z", "2026-01-02T03:05:05Z"
    locked = an_error(
        info("LOCKED", holder="192.0.2.1:51234", locked_since=since, locked_until=until, last_log="stopping"),
        RetryInfo(retry_delay=Duration(seconds=12, nanos=500_000_000)),
        make=make,
    )
    assert isinstance(locked, errors.LockedError)
    assert (locked.holder, locked.last_log, locked.retry_after) == ("192.0.2.1:51234", "stopping", 12.5)
    assert locked.locked_since is not None
    assert locked.locked_since.isoformat() == "2026-01-02T03:04:05.678901+00:00"
    assert locked.locked_until is not None
    assert locked.locked_until.isoformat() == "2026-01-02T03:05:05+00:00"


def test_each_field_that_is_wrong_comes_through() -> None:
    bad = BadRequest(
        field_violations=[
            BadRequest.FieldViolation(field="name", description="must not be empty"),
            BadRequest.FieldViolation(field="project", description="is too long"),
        ]
    )
    error = an_error(info("INVALID_ARGUMENT"), bad)
    assert isinstance(error, errors.InvalidArgumentError)
    assert error.violations == (Violation("name", "must not be empty"), Violation("project", "is too long"))


@pytest.mark.parametrize(
    ("reason", "metadata", "attribute", "value"),
    [
        ("FENCING_TOKEN_MISMATCH", {"fencing_token": "42"}, "current_fencing_token", 42),
        ("FENCING_TOKEN_MISMATCH", {}, "current_fencing_token", 0),
        ("WATCHER_TOO_SLOW", {"resume_revision": "77"}, "resume_revision", 77),
        ("WATCH_INTERRUPTED", {}, "resume_revision", 0),
        ("NOT_LOCKED", {"state": "EXPIRED"}, "state", "EXPIRED"),
        ("LOCKED", {}, "locked_until", None),
        ("LOCKED", {}, "holder", ""),
        ("LOCKED", {}, "retry_after", None),
    ],
)
def test_a_fact_is_an_attribute(reason: str, metadata: dict[str, str], attribute: str, value: object) -> None:
    assert getattr(an_error(info(reason, **metadata)), attribute) == value


def test_a_delay_of_nothing_is_not_the_same_as_no_delay() -> None:
    assert an_error(info("OVERLOADED"), RetryInfo()).retry_after == 0.0
    assert an_error(info("OVERLOADED")).retry_after is None


@pytest.mark.parametrize(
    ("reason", "metadata", "may"),
    [
        ("LOCKED", {}, False),
        ("CONTENTION", {}, False),
        ("OVERLOADED", {}, False),
        ("ETCD_UNAVAILABLE", {}, False),
        ("ETCD_UNAVAILABLE", {"outcome": "unknown"}, True),
        ("ETCD_UNAVAILABLE", {"outcome": "unchanged"}, False),
        ("ETCD_OUT_OF_SPACE", {}, False),
        ("UNFORESEEN", {}, True),
    ],
)
def test_only_what_the_service_calls_unknown_may_have_been_carried_out(
    reason: str, metadata: dict[str, str], may: bool
) -> None:
    assert an_error(info(reason, **metadata)).may_have_been_carried_out is may


@pytest.mark.parametrize("make", [blocking, of_asyncio])
@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED]
)
def test_what_the_service_did_not_answer_is_unavailable_and_may_have_been_carried_out(
    code: grpc.StatusCode, make: Any
) -> None:
    error = translated(make(code, "Socket closed\nat a.cc:1", ()), "GetOperation")
    assert type(error) is UnavailableError
    assert error.may_have_been_carried_out
    assert str(error) == f"GetOperation was not answered: {code.name}: Socket closed at a.cc:1"


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNKNOWN])
def test_any_other_code_without_a_reason_is_the_plain_error_and_may_have_been_carried_out(
    code: grpc.StatusCode,
) -> None:
    error = translated(blocking(code, None, None), "GetOperation")
    assert type(error) is OperationServiceError
    assert error.may_have_been_carried_out
    assert (str(error), error.code, error.reason) == (f"GetOperation: {code.name}", code.name, "")


def test_a_reason_of_a_later_service_is_the_plain_error_with_its_facts() -> None:
    error = an_error(info("FULL_MOON", until="dawn"))
    assert type(error) is OperationServiceError
    assert (error.reason, error.facts.metadata, error.may_have_been_carried_out) == (
        "FULL_MOON",
        {"until": "dawn"},
        False,
    )


def test_the_reason_of_another_domain_is_none_of_ours() -> None:
    error = an_error(info("LOCKED", domain="envoy", holder="x"), code=grpc.StatusCode.UNAVAILABLE)
    assert type(error) is UnavailableError
    assert (error.reason, error.facts.metadata) == ("", {})


BROKEN = {
    "no status": b"\xff\xff\xff",
    "no error info": Status(
        details=[AnyMessage(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")]
    ).SerializeToString(),
    "a delay that no clock can count": Status(
        details=packed(RetryInfo(retry_delay=Duration(seconds=10**17)))
    ).SerializeToString(),
}


@pytest.mark.parametrize("details", BROKEN.values(), ids=BROKEN)
def test_broken_details_leave_the_code(details: bytes) -> None:
    error = translated(blocking(grpc.StatusCode.UNAVAILABLE, "no", ((DETAILS, details),)), "GetOperation")
    assert type(error) is UnavailableError
    assert (error.code, error.reason, error.retry_after) == ("UNAVAILABLE", "", None)


def test_an_error_that_is_no_call_is_the_plain_error() -> None:
    error = translated(grpc.RpcError("what"), "GetOperation")
    assert type(error) is OperationServiceError
    assert "GetOperation" in str(error)
    assert "what" in str(error)
