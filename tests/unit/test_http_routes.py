"""The google.api.http options: one path for each call, and for each path one call."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import pytest
from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodDescriptorProto

FILES = {
    file.name: file
    for file in FileDescriptorSet.FromString(files("operation_service").joinpath("descriptors.binpb").read_bytes()).file
}
(SERVICE,) = FILES["n0stack/operation/v1alpha/operation_service.proto"].service
METHODS = {method.name: method for method in SERVICE.method}
FIELDS = {
    f".{file.package}.{message.name}": {field.name for field in message.field}
    for file in FILES.values()
    for message in file.message_type
}

ALL = "/api/operation/v1alpha/operations"
PROJECT = "/api/operation/v1alpha/projects/{project}/operations"
RESOURCE = PROJECT + "/{name=*/**}"
MAIN = {
    "CreateOperation": ("post", RESOURCE + ":create"),
    "ProposeOperation": ("post", RESOURCE + ":propose"),
    "AppendOperationLog": ("post", RESOURCE + ":appendLog"),
    "CompleteOperation": ("post", RESOURCE + ":complete"),
    "CancelOperation": ("post", RESOURCE + ":cancel"),
    "GetOperation": ("get", RESOURCE),
    "ListOperations": ("get", PROJECT),
    "ListOperationLogs": ("get", RESOURCE + ":logs"),
    "WatchOperations": ("get", PROJECT + ":watch"),
}
FOR_ALL_PROJECTS = {"ListOperations": ALL, "WatchOperations": ALL + ":watch"}


def rule(method: MethodDescriptorProto) -> HttpRule:
    option: Any = annotations_pb2.http  # its stub does not say that it is an extension
    found: HttpRule = method.options.Extensions[option]
    return found


@dataclass(frozen=True)
class Route:
    """A method of HTTP and a template of paths, as google/api/http.proto defines them."""

    rpc: str
    verb: str
    template: str

    @property
    def variables(self) -> list[str]:
        return re.findall(r"{(\w+)", self.template)

    @property
    def custom_verb(self) -> str:
        return re.sub(r"{[^}]*}", "", self.template).partition(":")[2]

    def matches(self, path: str, custom_verbs: frozenset[str]) -> bool:
        """Whether it takes this path. What follows the last colon is a verb if any route has it as one."""
        head, _, last = path.rpartition(":")
        verb, bare = (last, head) if head and last in custom_verbs else ("", path)
        if verb != self.custom_verb:
            return False
        template = self.template.removesuffix(f":{self.custom_verb}")
        segments = re.sub(r"{\w+=([^}]*)}", r"\1", re.sub(r"{\w+}", "*", template)).split("/")[1:]
        return _match(segments, bare.split("/")[1:])


def _match(template: Sequence[str], path: Sequence[str]) -> bool:
    if not template:
        return not path
    if template[0] == "**":  # none or more, and always the last
        return True
    return bool(path) and template[0] in {"*", path[0]} and path[0] != "" and _match(template[1:], path[1:])


def routes() -> Iterator[Route]:
    for rpc, method in METHODS.items():
        for each in (rule(method), *rule(method).additional_bindings):
            verb = each.WhichOneof("pattern")
            assert verb in {"get", "post"}
            yield Route(rpc, verb, getattr(each, verb))


ROUTES = list(routes())
CUSTOM_VERBS = frozenset(route.custom_verb for route in ROUTES) - {""}
NAMES = (
    *("web-1", "virtual_machines/web-1", "a/b/c/d", "a.b/c..d", "mac/52:54:00:12:34:56", "a@b", "a:other", ":"),
    *("operations", "projects/demo/operations", "operations/a", "a/operations"),
    *(f"web{colon}{verb}" for verb in sorted(CUSTOM_VERBS) for colon in (":", "/", "%3A")),
    *(f"{verb}/web" for verb in sorted(CUSTOM_VERBS)),
    *(f"web:{verb}/x" for verb in sorted(CUSTOM_VERBS)),
)
SUFFIXES = ("", *(f":{verb}" for verb in sorted(CUSTOM_VERBS)))
PATHS = [
    f"{place}{suffix}"
    for suffix in SUFFIXES
    for place in (
        ALL,
        *(PROJECT.format(project=project) for project in ("demo", "operations", "projects")),
        *(f"{PROJECT.format(project='demo')}/{name}" for name in NAMES),
    )
]


def taking(verb: str, path: str) -> list[str]:
    return [route.rpc for route in ROUTES if route.verb == verb and route.matches(path, CUSTOM_VERBS)]


def test_each_rpc_has_its_main_route_in_n0stacks_style() -> None:
    assert {route.rpc: (route.verb, route.template) for route in reversed(ROUTES)} == MAIN
    assert set(MAIN) == set(METHODS)


def test_only_lists_and_watches_have_another_route_for_all_projects() -> None:
    others = Counter(route.rpc for route in ROUTES) - Counter(MAIN.keys())
    assert others == Counter(FOR_ALL_PROJECTS.keys())
    assert {route.rpc: route.template for route in ROUTES if "{" not in route.template} == FOR_ALL_PROJECTS


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.rpc} {route.template}")
def test_the_variables_of_a_path_are_fields_of_the_request(route: Route) -> None:
    fields = FIELDS[METHODS[route.rpc].input_type]
    assert set(route.variables) <= fields
    assert {"project", "name"} & fields <= {*route.variables, *({"project"} if "{" not in route.template else ())}


@pytest.mark.parametrize("rpc", METHODS)
def test_what_is_sent_has_all_other_fields_in_its_body_and_what_is_read_in_its_query(rpc: str) -> None:
    for each in (rule(METHODS[rpc]), *rule(METHODS[rpc]).additional_bindings):
        assert (each.body, each.response_body) == ("*" if each.WhichOneof("pattern") == "post" else "", "")


@pytest.mark.parametrize("verb", ["get", "post"])
def test_no_two_routes_take_the_same_path(verb: str) -> None:
    assert {path: rpcs for path in PATHS if len(rpcs := taking(verb, path)) > 1} == {}
    assert {rpc for path in PATHS for rpc in taking(verb, path)} == {
        rpc for rpc, (its, _) in MAIN.items() if its == verb
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_name_can_be_changed_whatever_it_ends_with(name: str) -> None:
    path = f"{PROJECT.format(project='demo')}/{name}"
    for rpc, (verb, template) in MAIN.items():
        if template.startswith(RESOURCE + ":"):
            assert taking(verb, template.replace(RESOURCE, path)) == [rpc]


def test_a_name_that_ends_like_a_verb_is_read_with_its_colon_escaped() -> None:
    path = PROJECT.format(project="demo")
    assert taking("get", f"{path}/web:propose") == []
    assert taking("get", f"{path}/web:logs") == ["ListOperationLogs"]
    assert taking("get", f"{path}/web:other") == ["GetOperation"]
    for verb in CUSTOM_VERBS:
        assert taking("get", f"{path}/web%3A{verb}") == ["GetOperation"]


def test_a_path_without_a_name_is_the_lists() -> None:
    assert taking("get", PROJECT.format(project="demo")) == ["ListOperations"]
    assert taking("get", PROJECT.format(project="demo") + ":logs") == []
    assert taking("post", PROJECT.format(project="demo") + ":propose") == []
