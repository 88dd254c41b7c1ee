"""Requests as JSON, and back: of known types, of unknown ones, and of none."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool, duration_pb2, struct_pb2  # noqa: F401, types to find
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.struct_pb2 import Value
from google.rpc.status_pb2 import Status
from support import shutdown_request

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service import descriptor_sets
from operation_service.answers import Answers
from operation_service.request_text import RequestText, UnknownTypeError, WrongRequestError

EXAMPLE = Path(__file__).parents[2] / "examples" / "virtual_machine.binpb"
TYPE = "n0stack.infra.v1alpha.ShutdownVirtualMachineRequest"
SHUTDOWN = {"@type": f"type.googleapis.com/{TYPE}", "name": "web-1", "project": "project", "hard": True}
DURATION = {"@type": "type.googleapis.com/google.protobuf.Duration"}


@pytest.fixture
def texts() -> RequestText:
    return RequestText([EXAMPLE])


def test_a_known_type_is_read_and_written(texts: RequestText) -> None:
    assert texts.to_json(shutdown_request()) == SHUTDOWN
    assert texts.from_json(SHUTDOWN) == shutdown_request()
    assert texts.from_json(SHUTDOWN | {"@type": TYPE}) == shutdown_request()


def test_who_else_knows_a_type_is_asked_once() -> None:
    asked = []

    def ask(name: str) -> list[bytes]:
        asked.append(name)
        return descriptor_sets.load([EXAMPLE]).file_of_symbol(name)

    texts = RequestText((), ask)
    assert texts.to_json(shutdown_request()) == SHUTDOWN
    assert texts.to_json(shutdown_request(hard=False)) == {k: v for k, v in SHUTDOWN.items() if k != "hard"}
    assert asked == [TYPE]


@pytest.mark.parametrize("answer", [[], [b"\xff"], [b""]], ids=["nothing", "nonsense", "an empty file"])
def test_an_unknown_type_is_shown_as_its_bytes(answer: list[bytes]) -> None:
    texts = RequestText((), lambda _: answer)
    shown = texts.to_json(shutdown_request())
    assert shown["@type"] == SHUTDOWN["@type"]
    assert TYPE in shown["@error"]
    assert shown["@value"] == "CgV3ZWItMRIHcHJvamVjdBgB"
    with pytest.raises(UnknownTypeError, match=TYPE):
        texts.from_json(SHUTDOWN)


def test_bytes_that_are_no_message_of_their_type_are_shown_as_they_are(texts: RequestText) -> None:
    shown = texts.to_json(AnyMessage(type_url=f"type.googleapis.com/{TYPE}", value=b"\xff\xff"))
    assert shown["@value"] == "//8="


def test_a_type_of_protobuf_itself_has_its_own_form(texts: RequestText) -> None:
    packed = AnyMessage()
    packed.Pack(pb.OperationRecord().remaining.__class__(seconds=90))
    assert texts.to_json(packed) == {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "90s"}
    unknown = AnyMessage()
    unknown.Pack(Value(string_value="x"))
    assert "@value" in texts.to_json(unknown)


@pytest.mark.parametrize(
    "value",
    [None, [], "text", {}, {"name": "web-1"}, {"@type": 1}, SHUTDOWN | {"hard": "yes"}, SHUTDOWN | {"no": 1}, DURATION],
)
def test_json_that_is_no_request_is_refused(texts: RequestText, value: Any) -> None:
    with pytest.raises(WrongRequestError):
        texts.from_json(value)


def test_details_of_an_error_are_read_like_requests(texts: RequestText) -> None:
    error = Status(code=13, message="broken", details=[shutdown_request(), AnyMessage(type_url="x/a.B", value=b"1")])
    shown = Answers(texts).record(pb.OperationRecord(project="demo", name="a", error=error))
    first, second = shown["error"]["details"]
    assert first == SHUTDOWN
    assert second["@value"] == "MQ=="
    assert shown["error"]["code"] == 13


@pytest.mark.parametrize(
    "request_of",
    [
        DURATION | {"value": "3s"},
        {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"name": "web-1"}},
    ],
    ids=["Duration", "Struct"],
)
def test_what_has_a_form_of_its_own_in_json_is_read_as_it_is_written(request_of: dict[str, Any]) -> None:
    kind = request_of["@type"].rpartition("/")[2]
    pool = descriptor_pool.Default()
    texts = RequestText((), lambda _: [pool.FindMessageTypeByName(kind).file.serialized_pb])
    assert texts.to_json(texts.from_json(request_of)) == request_of
