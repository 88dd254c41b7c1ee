"""docs/reference.md, as tools/reference.py writes it from the protos."""

import re

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from n0stack.operation.v1alpha.operation_service_pb2 import ErrorReason
from tools.committed import ROOT
from tools.reference import HTTP, OWN, PAGE, committed_descriptors, reference


@pytest.fixture(scope="module")
def page() -> str:
    return reference(committed_descriptors())


def own(descriptors: FileDescriptorSet) -> list[FileDescriptorProto]:
    return [file for file in descriptors.file if file.name.startswith(OWN)]


def test_the_committed_page_is_what_the_protos_say(page: str) -> None:
    assert (ROOT / PAGE).read_text() == page


def test_every_rpc_message_and_field_is_there(page: str) -> None:
    for file in own(committed_descriptors()):
        for service in file.service:
            for method in service.method:
                assert f"\n### {method.name}\n" in page
        for message in file.message_type:
            section = page.split(f"\n### {message.name}\n")[1].split("\n#", maxsplit=1)[0]
            assert re.findall(r"\n\| `(\w+)` \|", section) == [field.name for field in message.field]


def test_every_error_reason_is_there_with_its_status_code(page: str) -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| ([A-Z_]+) \|", page, re.MULTILINE))
    assert rows.keys() == {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()[1:]}
    assert rows["LOCKED"] == "FAILED_PRECONDITION"


def test_an_http_route_is_shown_where_there_is_one() -> None:
    descriptors = committed_descriptors()
    for file in own(descriptors):
        for service in file.service:
            rule = service.method[1].options.Extensions[HTTP]
            rule.Clear()
            rule.post = "/api/operation/v1alpha/{name=**}:propose"
            rule.additional_bindings.add(get="/again")
    assert "HTTP: `POST /api/operation/v1alpha/{name=**}:propose`, `GET /again`\n" in reference(descriptors)


def test_without_http_routes_none_is_shown() -> None:
    descriptors = committed_descriptors()
    for file in own(descriptors):
        for service in file.service:
            for method in service.method:
                method.options.ClearExtension(HTTP)
    assert "HTTP:" not in reference(descriptors)
