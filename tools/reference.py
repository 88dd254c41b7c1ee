"""The API reference, docs/reference.md, written from the comments of the protos.

`python -m tools.reference generate` writes it from the service's descriptor set, which has the comments in it; `check`
says whether it is up to date.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import dropwhile
from pathlib import Path
from typing import Any, NamedTuple

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from tools.committed import ROOT, main

PAGE = Path("docs/reference.md")
DESCRIPTORS = Path("src/operation_service/descriptors.binpb")
OWN = "n0stack/"
"""What the files that are written about are called; the others are Google's."""
REASONS = "ErrorReason"
HTTP: Any = annotations_pb2.http
"""The option that says by which HTTP requests an rpc can be called."""

# The numbers of fields in descriptor.proto, which a comment's path is made of.
MESSAGES, ENUMS, SERVICES = (
    FileDescriptorProto.DESCRIPTOR.fields_by_name[name].number for name in ("message_type", "enum_type", "service")
)
FIELDS, NESTED = (DescriptorProto.DESCRIPTOR.fields_by_name[name].number for name in ("field", "nested_type"))
VALUES = EnumDescriptorProto.DESCRIPTOR.fields_by_name["value"].number
METHODS = ServiceDescriptorProto.DESCRIPTOR.fields_by_name["method"].number

_SPECIAL = re.compile(r"([*\[\]<>|\\])")

_HEAD = """\
# API reference

<!-- Made by tools/reference.py from the comments in proto/: change those, and run `make proto`. -->

What each call, message, field and error means. [concepts.md](concepts.md) explains the words, [README.md](../README.md)
shows a session. The protos themselves are in [proto/](../proto). JSON has an enum's values with their prefix; the other
pages leave it out.
"""


class Source(NamedTuple):
    """A file and its comments, by the path of what they belong to."""

    file: FileDescriptorProto
    comments: Mapping[tuple[int, ...], str]


def reference(descriptors: FileDescriptorSet) -> str:
    """Write the page: services, messages, enums, error reasons."""
    sources = [_source(file) for file in descriptors.file if file.name.startswith(OWN)]
    sources.sort(key=lambda source: not source.file.service)
    parts = [
        _HEAD,
        *(part for source in sources for part in _services(source)),
        "## Messages\n",
        *(part for source in sources for part in _messages(source)),
        "## Enums\n",
        *(part for source in sources for part in _enums(source)),
        *(part for source in sources for part in _reasons(source)),
    ]
    return "\n".join(parts)


def _source(file: FileDescriptorProto) -> Source:
    locations = file.source_code_info.location
    return Source(file, {tuple(location.path): location.leading_comments for location in locations})


def _services(source: Source) -> Iterator[str]:
    for index, service in enumerate(source.file.service):
        path = (SERVICES, index)
        yield f"## {service.name}\n"
        yield f"`{source.file.package}.{service.name}`\n"
        yield _prose(source.comments[path])
        for number, method in enumerate(service.method):
            yield f"### {method.name}\n"
            yield _signature(method)
            yield _prose(source.comments[*path, METHODS, number])


def _signature(method: MethodDescriptorProto) -> str:
    answer = f"{'a stream of ' * method.server_streaming}{_linked(method.output_type)}"
    lines = [f"{_linked(method.input_type)} → {answer}\n"]
    if method.options.HasExtension(HTTP):
        rule = method.options.Extensions[HTTP]
        lines += [f"HTTP: {', '.join(_route(each) for each in (rule, *rule.additional_bindings))}\n"]
    return "\n".join(lines)


def _route(rule: HttpRule) -> str:
    verb = rule.WhichOneof("pattern")
    if verb == "custom":
        return f"`{rule.custom.kind} {rule.custom.path}`"
    return f"`{str(verb).upper()} {getattr(rule, str(verb))}`"


def _messages(source: Source) -> Iterator[str]:
    for index, message in enumerate(source.file.message_type):
        yield from _message(source, message, (MESSAGES, index), "")


def _message(source: Source, message: DescriptorProto, path: tuple[int, ...], scope: str) -> Iterator[str]:
    yield f"### {scope}{message.name}\n"
    yield f"`{source.file.package}.{scope}{message.name}`\n"
    yield _prose(source.comments[path])
    yield "| field | type | number | |\n|---|---|---|---|"
    for number, field in enumerate(message.field):
        comment = _line(source.comments[*path, FIELDS, number])
        yield f"| `{field.name}` | {_type(field)} | {field.number} | {comment} |"
    yield ""
    for number, nested in enumerate(message.nested_type):
        yield from _message(source, nested, (*path, NESTED, number), f"{scope}{message.name}.")


def _enums(source: Source) -> Iterator[str]:
    for index, enum in enumerate(source.file.enum_type):
        if enum.name == REASONS:
            continue
        path = (ENUMS, index)
        yield f"### {enum.name}\n"
        yield _prose(source.comments[path])
        yield "| value | number | |\n|---|---|---|"
        for number, value in enumerate(enum.value):
            yield f"| `{value.name}` | {value.number} | {_line(source.comments[*path, VALUES, number])} |"
        yield ""


def _reasons(source: Source) -> Iterator[str]:
    """Each comment begins with the status code, and goes on with when it comes and what to do."""
    for index, enum in enumerate(source.file.enum_type):
        if enum.name != REASONS:
            continue
        path = (ENUMS, index)
        yield f"## {enum.name}\n"
        yield _prose(source.comments[path])
        yield "| reason | code | when, what comes with it, and what to do |\n|---|---|---|"
        prefix = enum.value[0].name.removesuffix("UNSPECIFIED")
        for number, value in list(enumerate(enum.value))[1:]:
            code, text = _line(source.comments[*path, VALUES, number]).split(". ", 1)
            yield f"| `{value.name.removeprefix(prefix)}` | {code} | {text} |"
        yield ""


def _type(field: FieldDescriptorProto) -> str:
    repeated = "repeated " * (field.label == FieldDescriptorProto.LABEL_REPEATED)
    if field.type_name:
        return f"{repeated}{_linked(field.type_name)}"
    return f"{repeated}{FieldDescriptorProto.Type.Name(field.type).removeprefix('TYPE_').lower()}"


def _linked(full_name: str) -> str:
    """Link a type: to its heading on the page, or to Google's own pages."""
    full_name = full_name.removeprefix(".")
    name = ".".join(dropwhile(str.islower, full_name.split(".")))
    package = full_name.removesuffix(name)
    if package == "google.protobuf.":
        anchor = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
        return f"[{package}{name}](https://protobuf.dev/reference/protobuf/google.protobuf/#{anchor})"
    if package == "google.rpc.":
        return (
            f"[{package}{name}](https://github.com/googleapis/googleapis/blob/master/google/rpc/{name.lower()}.proto)"
        )
    return f"[{name}](#{name.replace('.', '').lower()})"


def _line(comment: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(comment.split()))


def _prose(comment: str) -> str:
    """Keep a comment's paragraphs and lists, and what has a meaning in Markdown for what it is."""
    lines = (line.removeprefix(" ") for line in comment.rstrip().splitlines())
    escaped = [_SPECIAL.sub(r"\\\1", line).rstrip() for line in lines]
    text = "\n".join(re.sub(r"^ {2}(?=- )", "", re.sub(r"^ {4}", "  ", line)) for line in escaped)
    return re.sub(r"(?<=[^\n])\n(?=- )", "\n\n", text, count=1) + "\n"


def committed_descriptors() -> FileDescriptorSet:
    """Return the service's descriptor set, comments included."""
    return FileDescriptorSet.FromString((ROOT / DESCRIPTORS).read_bytes())


if __name__ == "__main__":
    main({PAGE: lambda: reference(committed_descriptors())}, "make proto")
