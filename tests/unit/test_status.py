"""How failures leave the service: code, reason and details as CONTRACT section 5 says, in trailers that fit."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from unit_support import RESOURCE, UNTIL, a_lock

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service import errors, wire
from operation_service.admission import Admission
from operation_service.delivery import Delivery
from operation_service.errors import OperationError, Violation
from operation_service.model import Lock, Log, Resource, State
from operation_service.status import TABLE, to_duration, to_status
from operation_service.validation import Validator

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LONGEST = Resource("p" * 63, "n" * 253)
LONGEST_KEY = f"/{'k' * 198}/details/{LONGEST}#{'0' * 32}/log/0000000001"
LONGEST_LOCK = a_lock(token="t" * 256, holder="[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535")
MAX_TRAILERS = 8 * 1024
SECOND = timedelta(seconds=1)


def leaves(kind: type[OperationError]) -> Iterator[type[OperationError]]:
    if not kind.__subclasses__():
        yield kind
    for below in kind.__subclasses__():
        yield from leaves(below)


def one_of_each(resource: Resource, lock: Lock, log: Log, key: str) -> dict[type[OperationError], OperationError]:
    """Return each error, as told of a resource, its lock, its newest log and one of its keys."""
    each: list[OperationError] = [
        errors.InvalidRequestError([Violation("name", "is wrong")]),
        errors.IdentityRequiredError(),
        errors.BearerTokenInvalidError("its key takes RS256, RS384, RS512, PS256, PS384, PS512 alone (alg)"),
        errors.BearerTokenExpiredError(),
        errors.RoleRequiredError("operate", resource.project, "certificate:" + "s" * 255),
        errors.NotFoundError(resource),
        errors.LockedError(resource, lock, log, timedelta(seconds=39.5)),
        errors.TokenMismatchError(resource, lock),
        errors.NotLockedError(resource, State.OPERATOR_DEAD),
        errors.CancelDisabledError(resource, lock, timedelta(seconds=39.5)),
        errors.OperationCancelledError(resource, lock, timedelta(seconds=39.5)),
        errors.OperationOverError(resource, State.SUCCEEDED),
        errors.AlreadyExistsError(resource, State.OPERATOR_DEAD),
        errors.FencingTokenMismatchError(resource, 2**64 - 1, 2**63),
        errors.ContentionError(resource, 10),
        errors.OverloadedError(256, SECOND),
        errors.TooManyWatchesError(2_000, SECOND),
        errors.StoreUnavailableError("it did not answer in time", is_outcome_unknown=True),
        errors.StoreOutOfSpaceError(),
        errors.LayoutError(key, "2", 1),
        errors.RevisionCompactedError(2**63 - 1),
        errors.RevisionInFutureError(2**62),
        errors.PageTokenExpiredError(),
        errors.WatcherTooSlowError(2**63 - 1),
        errors.WatchInterruptedError("the service is stopping", 2**63 - 1),
        errors.CorruptRecordError(key, "Expected `int`, got `str` - at `$.lock.ttl_seconds`"),
        errors.UnforeseenError(),
    ]
    return {type(error): error for error in each}


EACH = one_of_each(RESOURCE, a_lock(), Log(NOW, "the newest log"), "/records/project/name")
every_error = pytest.mark.parametrize("error", EACH.values(), ids=[kind.__name__ for kind in EACH])

# CONTRACT section 5, and the reasons of section 4.
TOLD = {
    errors.InvalidRequestError: ("INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    errors.IdentityRequiredError: ("UNAUTHENTICATED", "IDENTITY_REQUIRED"),
    errors.BearerTokenInvalidError: ("UNAUTHENTICATED", "BEARER_TOKEN_INVALID"),
    errors.BearerTokenExpiredError: ("UNAUTHENTICATED", "BEARER_TOKEN_EXPIRED"),
    errors.RoleRequiredError: ("PERMISSION_DENIED", "ROLE_REQUIRED"),
    errors.NotFoundError: ("NOT_FOUND", "NOT_FOUND"),
    errors.LockedError: ("FAILED_PRECONDITION", "LOCKED"),
    errors.TokenMismatchError: ("PERMISSION_DENIED", "TOKEN_MISMATCH"),
    errors.NotLockedError: ("FAILED_PRECONDITION", "NOT_LOCKED"),
    errors.CancelDisabledError: ("FAILED_PRECONDITION", "CANCEL_DISABLED"),
    errors.OperationCancelledError: ("FAILED_PRECONDITION", "OPERATION_CANCELLED"),
    errors.OperationOverError: ("FAILED_PRECONDITION", "OPERATION_OVER"),
    errors.AlreadyExistsError: ("ALREADY_EXISTS", "ALREADY_EXISTS"),
    errors.FencingTokenMismatchError: ("FAILED_PRECONDITION", "FENCING_TOKEN_MISMATCH"),
    errors.ContentionError: ("ABORTED", "CONTENTION"),
    errors.OverloadedError: ("RESOURCE_EXHAUSTED", "OVERLOADED"),
    errors.TooManyWatchesError: ("RESOURCE_EXHAUSTED", "TOO_MANY_WATCHES"),
    errors.StoreUnavailableError: ("UNAVAILABLE", "ETCD_UNAVAILABLE"),
    errors.LayoutError: ("UNAVAILABLE", "ETCD_UNAVAILABLE"),
    errors.StoreOutOfSpaceError: ("RESOURCE_EXHAUSTED", "ETCD_OUT_OF_SPACE"),
    errors.RevisionCompactedError: ("OUT_OF_RANGE", "REVISION_COMPACTED"),
}

# Where waiting helps.
RETRY_SECONDS = {
    errors.LockedError: 39.5,
    errors.CancelDisabledError: 39.5,
    errors.OperationCancelledError: 39.5,
    errors.ContentionError: 0.1,
    errors.OverloadedError: 1.0,
    errors.TooManyWatchesError: 1.0,
    errors.StoreUnavailableError: 1.0,
    errors.LayoutError: 1.0,
    errors.WatcherTooSlowError: 1.0,
    errors.WatchInterruptedError: 1.0,
}


def details(status: grpc.Status) -> Status:
    ((key, value),) = trailing(status)
    assert key == "grpc-status-details-bin"
    return Status.FromString(value)


def trailing(status: grpc.Status) -> list[tuple[str, bytes]]:
    metadata: Any = status.trailing_metadata
    return list(metadata)


def unpacked(status: Status) -> SimpleNamespace:
    """The details by their kinds; a kind that is not there is None."""
    kinds: dict[str, Any] = {"info": ErrorInfo, "bad_request": BadRequest, "retry": RetryInfo}
    found: dict[str, Any] = dict.fromkeys(kinds)
    for detail in status.details:
        name, kind = next((name, kind) for name, kind in kinds.items() if detail.Is(kind.DESCRIPTOR))
        assert found[name] is None, "each kind once"
        found[name] = kind.FromString(detail.value)
    return SimpleNamespace(**found)


def size(status: grpc.Status) -> int:
    """Bytes of the trailers, as HTTP/2 counts them: 32 for each, binary ones in base64, the message percent-encoded."""
    message = sum(1 if 0x20 <= byte <= 0x7E and byte != ord("%") else 3 for byte in status.details.encode())
    headers = [("grpc-status", 2), ("grpc-message", message), ("n0stack-fencing-token", 20)]
    headers += [(key, len(base64.b64encode(value))) for key, value in trailing(status)]
    return sum(32 + len(key) + length for key, length in headers)


def test_the_table_has_a_row_for_every_error_and_no_other() -> None:
    assert set(TABLE) == set(leaves(OperationError))
    assert set(EACH) == set(TABLE)


def test_every_reason_is_in_the_protocol_and_every_one_there_is_told() -> None:
    # A layout of another version is to callers what an etcd out of reach is.
    reasons = [f"ERROR_REASON_{reason}" for kind, (_, reason) in TABLE.items() if kind is not errors.LayoutError]
    assert sorted(reasons) == sorted(set(pb.ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"})


@pytest.mark.parametrize(("kind", "told"), TOLD.items(), ids=[kind.__name__ for kind in TOLD])
def test_code_and_reason_are_the_contracts(kind: type[OperationError], told: tuple[str, str]) -> None:
    status = to_status(EACH[kind])
    assert (status.code.name, unpacked(details(status)).info.reason) == told


@every_error
def test_the_status_and_its_details_say_the_same(error: OperationError) -> None:
    code, reason = TABLE[type(error)]
    status = to_status(error)
    assert (status.code, status.details) == (code, error.message)
    assert (details(status).code, details(status).message) == (code.value[0], error.message)
    assert (unpacked(details(status)).info.domain, unpacked(details(status)).info.reason) == (
        "operation.n0stack",
        reason,
    )


@every_error
def test_the_facts_are_the_metadata_with_project_and_name(error: OperationError) -> None:
    info = unpacked(details(to_status(error, project="project", name="a/b"))).info
    assert dict(info.metadata) == error.metadata | {"project": "project", "name": "a/b"}


@every_error
def test_no_project_and_no_name_are_left_out(error: OperationError) -> None:
    assert dict(unpacked(details(to_status(error))).info.metadata) == error.metadata


@pytest.mark.parametrize("wrong", ["a\n", "é", "a//b", "n" * 254, "\0", "p" * 100_000])
def test_what_can_be_no_project_and_no_name_is_not_told_back(wrong: str) -> None:
    info = unpacked(details(to_status(errors.StoreOutOfSpaceError(), project=wrong, name=wrong))).info
    assert dict(info.metadata) == {}


@every_error
def test_a_retry_hint_is_there_where_waiting_helps_and_nowhere_else(error: OperationError) -> None:
    retry = unpacked(details(to_status(error))).retry
    seconds = None if retry is None else retry.retry_delay.ToTimedelta().total_seconds()
    assert seconds == RETRY_SECONDS.get(type(error))


def test_a_lock_that_is_just_running_out_is_not_to_be_tried_for_before_etcd_has_ended_its_lease() -> None:
    retry = unpacked(details(to_status(errors.LockedError(RESOURCE, a_lock(), None, timedelta())))).retry
    assert retry.retry_delay.ToTimedelta() == timedelta(seconds=0.5)


@every_error
def test_the_violations_are_there_for_a_wrong_request_and_nothing_else(error: OperationError) -> None:
    is_there = unpacked(details(to_status(error))).bad_request is not None
    assert is_there == isinstance(error, errors.InvalidRequestError)


def test_every_violation_is_told() -> None:
    error = errors.InvalidRequestError([Violation("name", "is wrong"), Violation("project", "is wrong too")])
    told = unpacked(details(to_status(error))).bad_request.field_violations
    assert [(violation.field, violation.description) for violation in told] == [
        ("name", "is wrong"),
        ("project", "is wrong too"),
    ]


@pytest.mark.parametrize(("is_unknown", "outcome"), [(False, "unchanged"), (True, "unknown")])
def test_whether_the_change_may_have_been_made_is_told(outcome: str, *, is_unknown: bool) -> None:
    error = errors.StoreUnavailableError("it has no leader", is_outcome_unknown=is_unknown)
    assert error.metadata == {"outcome": outcome}


def test_the_message_of_a_refusal_tells_its_facts_to_a_person() -> None:
    message = EACH[errors.LockedError].message
    for fact in (str(RESOURCE), a_lock().holder, errors.rfc3339(a_lock().locked_since), errors.rfc3339(UNTIL)):
        assert fact in message


class TestTheNewestLog:
    def told(self, message: str) -> str:
        return errors.LockedError(RESOURCE, a_lock(), Log(NOW, message), SECOND).metadata["last_log"]

    @pytest.mark.parametrize("message", ["", "a" * 1_024, "é" * 512, "🦀" * 256], ids=len)
    def test_is_told_whole_up_to_1_kib(self, message: str) -> None:
        assert self.told(message) == message

    @pytest.mark.parametrize("character", ["a", "é", "あ", "🦀"])
    @pytest.mark.parametrize("shift", range(4))
    def test_is_cut_between_characters_beyond_1_kib(self, character: str, shift: int) -> None:
        message = "a" * shift + character * (1_024 // len(character.encode()) + 1)
        told = self.told(message)
        assert told.endswith("…")
        assert message.startswith(told[:-1])
        assert 1_024 - len(character.encode()) < len(told.encode()) <= 1_024


class TestTrailersFit:
    """gRPC peers accept 8 KiB of them; what does not fit is lost, and the caller gets an error of its own library."""

    @pytest.mark.parametrize("character", ["a", "%", "\n", "é", "あ", "🦀"])
    @pytest.mark.parametrize("kind", TABLE, ids=[kind.__name__ for kind in TABLE])
    def test_with_the_longest_names_token_key_and_log(self, kind: type[OperationError], character: str) -> None:
        log = Log(NOW, character * (4_096 // len(character.encode())))
        error = one_of_each(LONGEST, LONGEST_LOCK, log, LONGEST_KEY)[kind]
        assert size(to_status(error, project=LONGEST.project, name=LONGEST.name)) < MAX_TRAILERS

    def test_with_everything_wrong_that_a_call_checks(self) -> None:
        check = Validator()
        check.resource("-" * 5_000, "/" * 5_000)
        check.filter("-" * 5_000, "/" * 5_000)
        check.token("")
        check.lock_for_seconds(0, 2**31)
        check.log_message("é" * 5_000)
        check.log_message("", is_required=True)
        check.operation_request(AnyMessage(type_url="é" * 5_000, value=bytes(300_000)))
        check.error(Status(message="é" * 100_000))
        check.states(range(-(2**31), -(2**31) + 100), {})
        check.page_size(-1)
        check.start_revision(-1)
        check.fencing_token(["1" * 5_000])
        check.wrong("is_disabled_cancel", "needs a lock: set lock_for_seconds too")
        with pytest.raises(errors.InvalidRequestError) as caught:
            check.finish()
        assert len(caught.value.violations) > 10
        assert size(to_status(caught.value, project="-" * 5_000, name="/" * 5_000)) < MAX_TRAILERS

    def test_with_a_request_whose_fields_are_wrong_utf_8_again_and_again(self) -> None:
        project_again_and_again = b"\x0a\x01\xff" * 1_000
        error = deserialized("CreateOperation", project_again_and_again)
        assert isinstance(error, errors.InvalidRequestError)
        assert [violation.field for violation in error.violations[:1]] == ["project"]
        assert size(to_status(error)) < MAX_TRAILERS


def deserialized(rpc: str, data: bytes) -> object:
    """What the service makes of the bytes of a request."""
    service = pb.DESCRIPTOR.services_by_name["OperationService"]
    servicer = SimpleNamespace(**dict.fromkeys((method.name for method in service.methods), lambda *_: None))
    handler: Any = wire.handlers(service, servicer, wire.Around(Delivery(), Admission(1, 1)))[rpc]
    return handler.request_deserializer(data)


@pytest.mark.parametrize("delta", [timedelta(), timedelta(microseconds=1), SECOND, timedelta(days=3_650)])
def test_durations_are_kept_to_the_microsecond(delta: timedelta) -> None:
    assert to_duration(delta).ToTimedelta() == delta
