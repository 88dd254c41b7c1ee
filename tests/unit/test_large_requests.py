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
    wire._parser(method.request_class)(data)  # noqa: SLF001
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
