"""No request keeps the service busy for long, however large it is: all callers share one loop."""

import time

import pytest
from fuzz.mutations import delimited, tag, varint
from fuzz.targets import METHODS, Method
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.status_pb2 import Status

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service import wire
from operation_service.errors import InvalidRequestError
from operation_service.request_parsing import parser
from operation_service.validation import Validator

SIZE = 4 * 1024 * 1024
SECONDS = 0.5
"""Of the processor's time. It was 2 and more."""

BYTES = {
    "fields of number zero": b"\0",
    "empty fields": delimited(1, b""),
    "wrong UTF-8": delimited(1, b"\xff"),
    "unknown fields": tag(1000, 0) + varint(1),
    "groups": tag(9, 3) + tag(9, 4),
    "wrong wire types": tag(3, 5) + b"abcd",
}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.path.decode())
@pytest.mark.parametrize("repeated", BYTES.values(), ids=BYTES)
def test_bytes(method: Method, repeated: bytes) -> None:
    data = (repeated * (SIZE // len(repeated) + 1))[:SIZE]
    began = time.process_time()
    parser(method.request_class)(data)
    assert time.process_time() - began < SECONDS


def test_many_states() -> None:
    request = pb.ListOperationsRequest(states=[pb.OPERATION_STATE_LOCKED] * SIZE)
    began = time.process_time()
    check = Validator()
    check.states(request.states, {})
    with pytest.raises(InvalidRequestError, match="states"):
        check.finish()
    assert time.process_time() - began < SECONDS


def test_many_details() -> None:
    error = Status.FromString(
        Status(code=2).SerializeToString() + Status(details=[AnyMessage()]).SerializeToString() * SIZE
    )
    began = time.process_time()
    check = Validator()
    check.error(error)
    with pytest.raises(InvalidRequestError, match="error"):
        check.finish()
    assert time.process_time() - began < SECONDS


def test_what_cannot_be_valid_is_not_parsed_and_the_field_that_is_too_large_is_named() -> None:
    details = Status(details=[AnyMessage()]).SerializeToString() * (SIZE // 2)
    complete = pb.CompleteOperationRequest(project="p", name="n").SerializeToString()
    for request, data, field in (
        (pb.CompleteOperationRequest, complete + tag(4, 2) + varint(len(details)) + details, "error"),
        (pb.CreateOperationRequest, delimited(1, b"p") + delimited(3, bytes(600_000)), "operation_request"),
        (pb.AppendOperationLogRequest, delimited(1, b"p") + delimited(3, bytes(40_000)), "log_message"),
        (pb.ListOperationsRequest, (tag(3, 0) + varint(1)) * 20_000, "states"),
        (pb.GetOperationRequest, delimited(9, bytes(40_000)), ""),
        (pb.GetOperationRequest, tag(9, 3) * 40_000, ""),
        (pb.GetOperationRequest, b"\xff" * 40_000, ""),
    ):
        refused = parser(request)(data)
        assert isinstance(refused, InvalidRequestError)
        assert [violation.field for violation in refused.violations] == [field]
        assert "bytes or less" in refused.message


def test_a_request_weighs_what_it_takes_in_memory() -> None:
    error = Status(details=[AnyMessage()] * 30_000)
    assert wire._weight(pb.CompleteOperationRequest(error=error)) > 1_800_000  # noqa: SLF001
    assert wire._weight(pb.CompleteOperationRequest(name="n" * 97)) == 99  # noqa: SLF001
