"""The seed's messages are what the rest of n0stack compiled against; and whoever reads our protos finds a comment."""

from collections.abc import Iterator
from importlib.resources import files

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

SEED = "n0stack/protobuf/operation.proto"
SERVICE = "n0stack/operation/v1alpha/operation_service.proto"
PACKAGED = FileDescriptorSet.FromString(files("operation_service").joinpath("descriptors.binpb").read_bytes())
FILES = {file.name: file for file in PACKAGED.file}
MESSAGES = {message.name: message for message in FILES[SEED].message_type}

ANY, TIMESTAMP, LOG = ".google.protobuf.Any", ".google.protobuf.Timestamp", ".n0stack.protobuf.Operation.Log"
OPERATION = [
    (1, "operation_request", ANY),
    (2, "locked_until", TIMESTAMP),
    (3, "is_disabled_cancel", "bool"),
    (4, "proposing_peer_token", "string"),
    (5, "logs", f"repeated {LOG}"),
]
OPERATION_LOG = [(1, "ts", TIMESTAMP), (2, "message", "string")]
PROPOSE_OPERATION_REQUEST = [
    (1, "name", "string"),
    (2, "project", "string"),
    (3, "lock_for_seconds", "uint32"),
    (4, "log_message", "string"),
    (5, "is_disabled_cancel", "bool"),
    (6, "proposing_peer_token", "string"),
]


def typed(field: FieldDescriptorProto) -> tuple[int, str, str]:
    kind = field.type_name or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    repeated = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
    return field.number, field.name, repeated + kind


def bare(name: str) -> FileDescriptorProto:
    file = FileDescriptorProto()
    file.CopyFrom(FILES[name])
    file.ClearField("source_code_info")
    return file


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (MESSAGES["Operation"], OPERATION),
        (MESSAGES["Operation"].nested_type[0], OPERATION_LOG),
        (MESSAGES["ProposeOperationRequest"], PROPOSE_OPERATION_REQUEST),
    ],
    ids=["Operation", "Operation.Log", "ProposeOperationRequest"],
)
def test_the_fields_are_the_seeds(message: DescriptorProto, fields: list[tuple[int, str, str]]) -> None:
    assert [typed(field) for field in message.field] == fields


def test_the_messages_are_the_seeds() -> None:
    assert list(MESSAGES) == ["Operation", "ProposeOperationRequest"]
    assert [nested.name for nested in MESSAGES["Operation"].nested_type] == ["Log"]


def test_there_is_nothing_else_in_the_seeds_file() -> None:
    parts = {part.name for part, _ in bare(SEED).ListFields()}
    assert parts == {"name", "package", "dependency", "message_type", "options", "syntax"}
    for message in (*MESSAGES.values(), *MESSAGES["Operation"].nested_type):
        assert {part.name for part, _ in message.ListFields()} <= {"name", "field", "nested_type"}
        for field in message.field:
            parts = {part.name for part, _ in field.ListFields()}
            assert parts <= {"name", "number", "label", "type", "type_name", "json_name"}


def test_the_names_that_others_import_by() -> None:
    seed = FILES[SEED]
    assert (seed.package, seed.syntax) == ("n0stack.protobuf", "proto3")
    assert [option.name for option, _ in seed.options.ListFields()] == ["go_package"]
    assert seed.options.go_package == "n0st.ac/n0stack/protobuf;protobuf"
    assert FILES[SERVICE].package == "n0stack.operation.v1alpha"


# Comments. A declaration's place is its path through the fields of FileDescriptorProto.

Place = tuple[int, ...]


def in_message(message: DescriptorProto, place: Place, name: str) -> Iterator[tuple[Place, str]]:
    yield place, name
    for i, field in enumerate(message.field):
        yield (*place, DescriptorProto.FIELD_FIELD_NUMBER, i), f"{name}.{field.name}"
    for i, nested in enumerate(message.nested_type):
        yield from in_message(nested, (*place, DescriptorProto.NESTED_TYPE_FIELD_NUMBER, i), f"{name}.{nested.name}")


def declarations(file: FileDescriptorProto) -> Iterator[tuple[Place, str]]:
    for i, message in enumerate(file.message_type):
        yield from in_message(message, (FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER, i), message.name)
    for i, enum in enumerate(file.enum_type):
        place = (FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER, i)
        yield place, enum.name
        for j, value in enumerate(enum.value):
            yield (*place, EnumDescriptorProto.VALUE_FIELD_NUMBER, j), value.name
    for i, service in enumerate(file.service):
        place = (FileDescriptorProto.SERVICE_FIELD_NUMBER, i)
        yield place, service.name
        for j, method in enumerate(service.method):
            yield (*place, ServiceDescriptorProto.METHOD_FIELD_NUMBER, j), method.name


@pytest.mark.parametrize("name", [SEED, SERVICE])
def test_everything_has_a_comment(name: str) -> None:
    file = FILES[name]
    comments = {tuple(location.path): location.leading_comments for location in file.source_code_info.location}
    declared = dict(declarations(file))
    assert len(declared) > len(file.message_type)
    assert [symbol for place, symbol in declared.items() if not comments.get(place, "").strip()] == []


@pytest.mark.parametrize(
    ("message", "field", "says"),
    [
        ("Operation", "operation_request", "the ShutdownVirtualMachineRequest"),
        ("Operation", "locked_until", "no other operator may operate on the resource"),
        ("Operation", "is_disabled_cancel", "True and locked_until passed: the operator has died"),
        ("Operation", "proposing_peer_token", "deliberately loose"),
        ("ProposeOperationRequest", "proposing_peer_token", "generated when the process starts"),
    ],
)
def test_the_fields_say_what_the_seed_means_by_them(message: str, field: str, says: str) -> None:
    file = FILES[SEED]
    places = {symbol: place for place, symbol in declarations(file)}
    place = places[f"{message}.{field}"]
    comments = [
        location.leading_comments for location in file.source_code_info.location if location.path == list(place)
    ]
    assert says in " ".join(comments[0].split())
