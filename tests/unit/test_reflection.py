"""What reflection knows, and what it says: all without a server, but for two tests of the stream itself."""

import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_reflection.v1alpha.reflection_pb2 import (
    ExtensionRequest,
    ServerReflectionRequest,
    ServerReflectionResponse,
)
from hypothesis import given
from hypothesis import strategies as st

from operation_service.admission import Gate
from operation_service.delivery import Delivery
from operation_service.descriptor_sets import DescriptorSetError, load
from operation_service.descriptors import DescriptorIndex
from operation_service.errors import OverloadedError
from operation_service.reflection import add_reflection, answer

SERVICE = "n0stack.operation.v1alpha.OperationService"
SERVICE_FILE = "n0stack/operation/v1alpha/operation_service.proto"
EXAMPLE = Path(__file__).parents[2] / "examples" / "virtual_machine.binpb"

BASE = """
  name: "base.proto"
  package: "p"
  message_type {
    name: "M"
    field { name: "f" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING oneof_index: 0 }
    nested_type {
      name: "Inner"
      enum_type { name: "E" value { name: "ZERO" number: 0 } }
    }
    oneof_decl { name: "choice" }
    extension_range { start: 100 end: 200 }
  }
"""
EXTENSION = """
  name: "extension.proto"
  dependency: "base.proto"
  extension { name: "x" extendee: ".p.M" number: 101 label: LABEL_OPTIONAL type: TYPE_STRING }
  message_type {
    name: "Holder"
    extension { name: "y" extendee: ".p.M" number: 100 label: LABEL_OPTIONAL type: TYPE_STRING }
  }
"""
USER = 'name: "user.proto" dependency: "extension.proto" dependency: "base.proto"'

WriteSet = Callable[..., Path]


def parsed(text: str) -> FileDescriptorProto:
    return text_format.Parse(text, FileDescriptorProto())


def names(files: list[bytes]) -> list[str]:
    return [FileDescriptorProto.FromString(file).name for file in files]


def refusal(*paths: Path) -> str:
    with pytest.raises(DescriptorSetError) as caught:
        load(paths)
    return str(caught.value)


@pytest.fixture
def write(tmp_path: Path) -> WriteSet:
    def write_set(name: str, *files: str) -> Path:
        path = tmp_path / name
        path.write_bytes(FileDescriptorSet(file=map(parsed, files)).SerializeToString())
        return path

    return write_set


@pytest.fixture(scope="module")
def own() -> DescriptorIndex:
    return load([])


@pytest.fixture(scope="module")
def small() -> DescriptorIndex:
    return DescriptorIndex(map(parsed, (BASE, EXTENSION, USER)))


# Lookups.


def test_a_file_comes_first_and_its_imports_once_each(small: DescriptorIndex) -> None:
    assert names(small.file("user.proto")) == ["user.proto", "extension.proto", "base.proto"]
    assert names(small.file("base.proto")) == ["base.proto"]


@pytest.mark.parametrize(
    "symbol", ["p.M", "p.M.f", "p.M.choice", "p.M.Inner", "p.M.Inner.E", "p.M.Inner.ZERO", "p.M.Inner.E.ZERO"]
)
def test_every_kind_of_symbol_is_found(small: DescriptorIndex, symbol: str) -> None:
    assert names(small.file_of_symbol(symbol)) == ["base.proto"]


@pytest.mark.parametrize("symbol", ["x", "Holder", "Holder.y"])
def test_symbols_of_a_file_without_a_package_are_found(small: DescriptorIndex, symbol: str) -> None:
    assert names(small.file_of_symbol(symbol)) == ["extension.proto", "base.proto"]


@pytest.mark.parametrize("symbol", [SERVICE, f"{SERVICE}.GetOperation"])
def test_services_and_methods_are_found(own: DescriptorIndex, symbol: str) -> None:
    assert names(own.file_of_symbol(symbol))[0] == SERVICE_FILE


@pytest.mark.parametrize("symbol", ["", "p", "p.", ".p.M", "p.m", "nowhere.Message"])
def test_what_is_no_symbol_is_not_found(small: DescriptorIndex, symbol: str) -> None:
    with pytest.raises(KeyError):
        small.file_of_symbol(symbol)


def test_extensions_are_found_on_the_top_level_and_nested(small: DescriptorIndex) -> None:
    assert small.extension_numbers("p.M") == [100, 101]
    assert small.extension_numbers("Holder") == []
    assert names(small.file_of_extension("p.M", 100)) == ["extension.proto", "base.proto"]
    with pytest.raises(KeyError):
        small.file_of_extension("p.M", 102)
    with pytest.raises(KeyError):
        small.extension_numbers("p.Nothing")


# What the service always knows.


@pytest.mark.parametrize(
    "symbol",
    [
        SERVICE,
        "n0stack.protobuf.Operation",
        "google.rpc.ErrorInfo",
        "google.rpc.BadRequest",
        "google.rpc.RetryInfo",
        "google.rpc.Code",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    ],
)
def test_the_service_and_the_standard_types_are_known(own: DescriptorIndex, symbol: str) -> None:
    assert own.file_of_symbol(symbol)


def test_comments_and_json_names_are_kept(own: DescriptorIndex) -> None:
    file = FileDescriptorProto.FromString(own.file("n0stack/protobuf/operation.proto")[0])
    assert any("the operator has died" in location.leading_comments for location in file.source_code_info.location)
    operation = next(message for message in file.message_type if message.name == "Operation")
    assert [field.json_name for field in operation.field][:2] == ["operationRequest", "lockedUntil"]


# Further descriptor sets.


def test_a_further_set_is_known_too() -> None:
    index = load([EXAMPLE])
    assert index.file_of_symbol("n0stack.infra.v1alpha.ShutdownVirtualMachineRequest")
    assert index.file_of_symbol(SERVICE)


def test_sets_may_lean_on_each_other_and_on_the_service(write: WriteSet) -> None:
    user = 'name: "n.proto" dependency: "base.proto" dependency: "google/protobuf/any.proto"'
    index = load([write("a", user), write("b", BASE)])
    assert names(index.file("n.proto")) == ["n.proto", "base.proto", "google/protobuf/any.proto"]


@pytest.mark.parametrize("commented_first", [True, False])
def test_of_two_same_files_the_one_with_comments_is_served(write: WriteSet, *, commented_first: bool) -> None:
    commented = BASE + 'source_code_info { location { leading_comments: "why" } }'
    sets = [write("bare", BASE), write("commented", commented)]
    index = load(sets[::-1] if commented_first else sets)
    assert FileDescriptorProto.FromString(index.file("base.proto")[0]).HasField("source_code_info")


def test_options_for_code_generators_do_not_make_a_file_another_one(write: WriteSet, own: DescriptorIndex) -> None:
    older = FileDescriptorProto.FromString(own.file("google/protobuf/any.proto")[0])
    older.options.go_package = "github.com/golang/protobuf/ptypes/any"
    index = load([write("older", text_format.MessageToString(older))])
    served = FileDescriptorProto.FromString(index.file("google/protobuf/any.proto")[0])
    assert served.options.go_package == "google.golang.org/protobuf/types/known/anypb"


def test_a_file_that_differs_from_the_services_own_is_refused(write: WriteSet) -> None:
    path = write("mine", 'name: "n0stack/protobuf/operation.proto" package: "n0stack.protobuf"')
    reason = "n0stack/protobuf/operation.proto is not the same as that of the service itself"
    assert refusal(path) == f"{path}: {reason}"


def test_a_file_that_differs_from_another_sets_is_refused(write: WriteSet) -> None:
    first, second = write("first", BASE), write("second", BASE.replace('"f"', '"g"'))
    assert refusal(first, second) == f"{second}: base.proto is not the same as that of {first}"


def test_features_do_make_a_file_another_one(write: WriteSet) -> None:
    first = write("first", BASE + "edition: EDITION_2023")
    second = write("second", BASE + "edition: EDITION_2023 options { features { enum_type: CLOSED } }")
    assert refusal(first, second) == f"{second}: base.proto is not the same as that of {first}"


def test_a_symbol_of_the_service_in_another_file_is_refused(write: WriteSet) -> None:
    path = write("mine", 'name: "mine.proto" package: "n0stack.protobuf" message_type { name: "Operation" }')
    reason = (
        "mine.proto defines n0stack.protobuf.Operation, "
        "as n0stack/protobuf/operation.proto of the service itself does already"
    )
    assert refusal(path) == f"{path}: {reason}"


def test_a_missing_import_is_named(write: WriteSet) -> None:
    path = write("incomplete", EXTENSION)
    reason = "extension.proto imports base.proto, which is missing (protoc: --include_imports)"
    assert refusal(path) == f"{path}: {reason}"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (
            ['name: "a" dependency: "b"', 'name: "b" dependency: "a"'],
            "a circle of imports: ",
        ),
        (
            ['name: "a" message_type { name: "M" field { name: "f" number: 1 type_name: ".No" } }'],
            "a: couldn't resolve name '.No'",
        ),
        (
            ['name: "a" message_type { name: "M" } message_type { name: "M" }'],
            "a: duplicate symbol 'M'",
        ),
        (
            ['name: "a" message_type { name: "no-name" }'],
            "a: invalid name",
        ),
    ],
)
def test_descriptors_that_no_client_could_use_are_refused(write: WriteSet, files: list[str], reason: str) -> None:
    path = write("broken", *files)
    assert refusal(path).startswith(f"{path}: {reason}")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a descriptor set, or one without files"),
        (b"\x12\x00", "not a descriptor set, or one without files"),  # another message: unknown fields only
        (b"\n\x00", "not a descriptor set, or one without files"),  # a file without a name
        (b'syntax = "proto3";', "not a descriptor set (a serialized FileDescriptorSet)"),
        (EXAMPLE.read_bytes()[:-1], "not a descriptor set (a serialized FileDescriptorSet)"),
    ],
)
def test_what_is_no_descriptor_set_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "junk"
    path.write_bytes(content)
    assert refusal(path) == f"{path}: {reason}"


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == f"{tmp_path}/none: No such file or directory"
    assert refusal(tmp_path) == f"{tmp_path}: Is a directory"


@given(position=st.integers(0, len(EXAMPLE.read_bytes()) - 1), byte=st.integers(0, 255))
def test_a_damaged_set_is_served_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int
) -> None:
    content = bytearray(EXAMPLE.read_bytes())
    content[position] = byte
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    said = ""
    try:
        load([path])
    except DescriptorSetError as error:
        said = str(error)
    assert not said or (said.startswith(f"{path}: ") and said.isprintable())


# Answers.


@pytest.mark.parametrize(
    "request_",
    [
        ServerReflectionRequest(file_by_filename="base.proto"),
        ServerReflectionRequest(file_containing_symbol="p.M"),
    ],
)
def test_files_are_answered(small: DescriptorIndex, request_: ServerReflectionRequest) -> None:
    response = answer(small, [], request_)
    assert names(list(response.file_descriptor_response.file_descriptor_proto)) == ["base.proto"]


def test_extensions_are_answered(small: DescriptorIndex) -> None:
    extension = ExtensionRequest(containing_type="p.M", extension_number=101)
    response = answer(small, [], ServerReflectionRequest(file_containing_extension=extension))
    files = names(list(response.file_descriptor_response.file_descriptor_proto))
    assert files == ["extension.proto", "base.proto"]
    response = answer(small, [], ServerReflectionRequest(all_extension_numbers_of_type="p.M"))
    assert response.all_extension_numbers_response.base_type_name == "p.M"
    assert list(response.all_extension_numbers_response.extension_number) == [100, 101]


def test_services_are_listed(small: DescriptorIndex) -> None:
    response = answer(small, ["a.A", "b.B"], ServerReflectionRequest(list_services="*"))
    assert [service.name for service in response.list_services_response.service] == ["a.A", "b.B"]


def test_host_and_request_come_back(small: DescriptorIndex) -> None:
    request = ServerReflectionRequest(host="h", file_containing_symbol="p.M")
    response = answer(small, [], request)
    assert (response.valid_host, response.original_request) == ("h", request)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ServerReflectionRequest(file_by_filename="no.proto"), "file_by_filename: 'no.proto'"),
        (ServerReflectionRequest(file_containing_symbol="no.Symbol"), "file_containing_symbol: 'no.Symbol'"),
        (
            ServerReflectionRequest(file_containing_extension={"containing_type": "p.M", "extension_number": 7}),
            "file_containing_extension: 7",
        ),
        (ServerReflectionRequest(all_extension_numbers_of_type="no.M"), "all_extension_numbers_of_type: 'no.M'"),
    ],
)
def test_what_is_unknown_is_not_found(small: DescriptorIndex, request_: ServerReflectionRequest, message: str) -> None:
    error = answer(small, [], request_).error_response
    assert error.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert error.error_message == f"{message} is not known here"


def test_a_request_for_nothing_is_an_invalid_argument(small: DescriptorIndex) -> None:
    error = answer(small, [], ServerReflectionRequest()).error_response
    assert error.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


# The stream.


@pytest.fixture
async def channel(own: DescriptorIndex) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    add_reflection(server, own, [SERVICE], Delivery(), Gate(1, OverloadedError))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop(None)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_both_versions_answer_request_after_request(channel: grpc.aio.Channel, version: str) -> None:
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )(iter([ServerReflectionRequest(list_services=""), ServerReflectionRequest(file_by_filename=SERVICE_FILE)]))
    listed, file = [response async for response in call]
    services = [service.name for service in listed.list_services_response.service]
    assert services == ["grpc.reflection.v1alpha.ServerReflection", SERVICE]
    assert names(list(file.file_descriptor_response.file_descriptor_proto))[0] == SERVICE_FILE


@pytest.mark.parametrize("junk", [b"\xff\xff", b"\x1a\x01\xff"], ids=["no message", "no UTF-8"])
async def test_junk_is_an_invalid_argument_and_no_traceback(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture, junk: bytes
) -> None:
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    send: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
    call = send(iter([junk]))
    with caplog.at_level(logging.DEBUG), pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Traceback" not in caplog.text


async def test_a_service_that_could_not_be_described_is_not_listed(own: DescriptorIndex) -> None:
    with pytest.raises(KeyError, match=r"no\.Service"):
        add_reflection(grpc.aio.server(), own, ["no.Service"], Delivery(), Gate(1, OverloadedError))
