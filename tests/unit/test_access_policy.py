"""Who may do what: the roles of each RPC, and what follows from the bindings of a policy."""

import json
import tracemalloc
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import given
from hypothesis import strategies as st

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.access_policy import Binding, Policy
from operation_service.grants import Grants
from operation_service.policy_file import MAX_PROJECTS, policy_of
from operation_service.roles import INCLUDED, NEEDED, OF_ALL_PROJECTS, Role
from operation_service.settings_error import SettingsError

FILE = Path("policy.toml")
METHODS = pb.DESCRIPTOR.services_by_name["OperationService"].methods_by_name
SUBJECTS = ("certificate:a", "certificate:b", "token:a", "token:b", "certificate:*", "token:*")
PROJECTS = ("a", "a-b", "a.b", "b", "*")


def some(values: Sequence[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=3).map(tuple)


bindings = st.lists(
    st.builds(
        Binding,
        subjects=some(SUBJECTS),
        roles=st.lists(st.sampled_from(list(Role)), min_size=1, max_size=2).map(tuple),
        projects=some(PROJECTS),
    ),
    max_size=12,
)
callers = st.sampled_from(["certificate:a", "certificate:b", "certificate:c", "token:a", "token:b", "token:c", "a", ""])


def is_granted(granted: Sequence[Binding], caller: str, role: Role, project: str) -> bool:
    """The rule as people read it: some binding names the caller, the project, and a role that includes it."""
    kind = caller.partition(":")[0] + ":*" if ":" in caller else None
    return any(
        (caller in each.subjects or kind in each.subjects)
        and (project in each.projects or "*" in each.projects)
        and any(role in INCLUDED[given] for given in each.roles)
        for each in granted
    )


@given(bindings, callers, st.sampled_from(list(Role)), st.sampled_from(["a", "a-b", "a.b", "b", "c"]))
def test_a_role_is_there_if_and_only_if_a_binding_grants_it(
    granted: list[Binding], caller: str, role: Role, project: str
) -> None:
    assert (role in Policy(granted).grants(caller).on(project)) == is_granted(granted, caller, role, project)


@given(bindings, callers)
def test_the_readable_projects_are_those_with_a_role_in_the_order_of_their_keys(
    granted: list[Binding], caller: str
) -> None:
    readable = Policy(granted).grants(caller).readable
    if readable is None:
        assert is_granted(granted, caller, Role.READ, "any")
    else:
        wanted = [each for each in PROJECTS if each != "*" and is_granted(granted, caller, Role.READ, each)]
        assert list(readable) == sorted(wanted, key=lambda project: f"{project}/".encode())
        assert not is_granted(granted, caller, Role.READ, "any")


@given(bindings, st.randoms(), callers)
def test_the_order_of_bindings_does_not_matter(granted: list[Binding], random: st.DataObject, caller: str) -> None:
    shuffled = list(granted)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert all_of(Policy(shuffled).grants(caller)) == all_of(Policy(granted).grants(caller))


def all_of(grants: Grants) -> tuple[object, ...]:
    return grants.everywhere, [(project, grants.on(project)) for project in grants.projects]


@given(bindings, bindings, callers, st.sampled_from(["a", "b", "c"]))
def test_more_bindings_never_take_anything_away(
    some_of_them: list[Binding], more: list[Binding], caller: str, project: str
) -> None:
    fewer = Policy(some_of_them).grants(caller).on(project)
    assert fewer <= Policy([*some_of_them, *more]).grants(caller).on(project)


def test_every_rpc_has_a_role_and_no_other_name_has_one() -> None:
    assert NEEDED.keys() == set(METHODS)


def test_what_may_leave_the_project_empty_is_what_says_so_in_the_proto() -> None:
    inputs = {name: method.input_type for name, method in METHODS.items()}
    assert {name for name, kind in inputs.items() if "name" not in kind.fields_by_name} == OF_ALL_PROJECTS
    assert all("project" in kind.fields_by_name for kind in inputs.values())


def test_the_proto_says_of_each_rpc_which_role_it_needs() -> None:
    descriptors = FileDescriptorSet.FromString(files("operation_service").joinpath("descriptors.binpb").read_bytes())
    (file,) = (each for each in descriptors.file if each.name.endswith("operation_service.proto"))
    comments = {tuple(each.path): each.leading_comments for each in file.source_code_info.location}
    for place, method in enumerate(file.service[0].method):
        said = f" required_roles:\n   - project: that of the request\n     role: {NEEDED[method.name]}\n"
        assert comments[6, 0, 2, place].endswith("\n" + said)


def test_whoever_may_change_something_may_look_and_neither_of_the_two_includes_the_other() -> None:
    assert {
        Role.READ: {Role.READ},
        Role.WRITE: {Role.READ, Role.WRITE},
        Role.OPERATE: {Role.READ, Role.OPERATE},
    } == INCLUDED


def policy(text: str) -> Policy:
    return policy_of(text.encode(), FILE)


def test_a_policy_is_read() -> None:
    granted = policy(
        """
        [[bindings]]
        subjects = ["certificate:spiffe://n0stack/agent-1", "token:alice"]
        roles = ["operate"]
        projects = ["demo"]

        [[bindings]]
        subjects = ["token:*"]
        roles = ["read"]
        projects = ["*"]
        """
    )
    assert granted.grants("certificate:spiffe://n0stack/agent-1").on("demo") == {Role.READ, Role.OPERATE}
    assert granted.grants("certificate:spiffe://n0stack/agent-1").on("other") == frozenset()
    assert granted.grants("token:alice").on("demo") == {Role.READ, Role.OPERATE}
    assert granted.grants("token:bob").on("demo") == {Role.READ}
    assert granted.grants("token:alice").readable is None
    assert granted.grants("token:spiffe://n0stack/agent-1").on("demo") == {Role.READ}


ONE = '[[bindings]]\nsubjects = ["token:alice"]\nroles = ["read"]\nprojects = ["demo"]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xff", "it is not UTF-8"),
        (b"[[bindings", "it is no TOML: Expected ']]' at the end of an array declaration (at end of document)"),
        (b"", "Object missing required field `bindings`"),
        (b"bindings = []", "it has no [[bindings]]: nobody could do anything"),
        (ONE.replace("roles", "role").encode(), "Object contains unknown field `role` - at `$.bindings[0]`"),
        (ONE.replace('"read"', '"admin"').encode(), "Invalid enum value 'admin' - at `$.bindings[0].roles[0]`"),
        (ONE.replace('["read"]', "[]").encode(), "bindings[0].roles: it names none"),
        (ONE.replace('["demo"]', '"demo"').encode(), "Expected `array`, got `str` - at `$.bindings[0].projects`"),
        (
            (ONE + ONE.replace("demo", "team-*")).encode(),
            "bindings[1].projects[0]: must be a project, or \"*\" for all, not 'team-*'",
        ),
        (
            ONE.replace("token:alice", "alice").encode(),
            "bindings[0].subjects[0]: must be certificate:NAME or token:SUB, not 'alice'",
        ),
        (
            ONE.replace("token:alice", "token:team-*").encode(),
            "bindings[0].subjects[0]: 'token:team-*' is no whole name, nor token:*, and matches nobody",
        ),
        (
            ONE.replace("token:alice", "token: alice").encode(),
            "bindings[0].subjects[0]: 'token: alice' is no whole name, nor token:*, and matches nobody",
        ),
        (ONE.replace("token:alice", "token:").encode(), "bindings[0].subjects[0]: what is behind token: is empty"),
        (
            ONE.replace("token:alice", "token:" + "a" * 256).encode(),
            "bindings[0].subjects[0]: what is behind token: has more than 255 bytes",
        ),
        (
            ONE.replace("token:alice", "token:a\\u0000").encode(),
            "bindings[0].subjects[0]: what is behind token: has characters that are not printable",
        ),
    ],
    ids=lambda value: value.decode(errors="replace")[:30] if isinstance(value, bytes) else "",
)
def test_what_is_wrong_with_a_policy_is_told_in_one_line_with_its_place(text: bytes, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        policy_of(text, FILE)
    assert str(refused.value) == f"--policy policy.toml: {said}"


def test_a_number_with_more_digits_than_python_reads_is_no_toml() -> None:
    with pytest.raises(SettingsError, match="it is no TOML"):
        policy_of(b"bindings = " + b"1" * 5_000, FILE)


def test_the_name_of_a_field_cannot_make_a_second_line() -> None:
    with pytest.raises(SettingsError) as refused:
        policy_of(ONE.encode() + b'"a\\nb" = 1\n', FILE)
    assert "\n" not in str(refused.value)


def test_a_subject_may_have_roles_on_so_many_projects_and_no_more() -> None:
    names = [f'"p{number}"' for number in range(MAX_PROJECTS + 1)]
    half = MAX_PROJECTS // 2
    parts = [ONE.replace('"demo"', ", ".join(each)) for each in (names[:half], names[half:MAX_PROJECTS], names[half:])]
    assert len(policy(parts[0] + parts[1]).grants("token:alice").projects) == MAX_PROJECTS
    with pytest.raises(SettingsError, match="a subject has roles on 1001 projects; 1000 are the most"):
        policy(parts[0] + parts[2])


def table(subjects: Sequence[str], projects: Sequence[str], role: str = "read") -> str:
    """A table of a policy, as TOML."""
    return f"[[bindings]]\nsubjects = {json.dumps(subjects)}\nroles = [{role!r}]\nprojects = {json.dumps(projects)}\n"


AGENTS = [f"certificate:a{number}" for number in range(2_000)]
MANY = [f"p{number}" for number in range(900)]
LARGE = {
    "one binding for all of a kind, and one for many of them": table(["certificate:*"], MANY)
    + table(AGENTS, ["demo"], "operate"),
    "one binding for many": table(AGENTS, MANY),
    "one binding for many, and one more for each": table(AGENTS, MANY)
    + "".join(table([agent], [f"own-{place}"], "operate") for place, agent in enumerate(AGENTS)),
    "several bindings with the same projects": "".join(table([*AGENTS, f"token:{each}"], MANY) for each in range(6)),
    "a kind that many bindings name": "".join(
        table(["certificate:*", agent], [MANY[place % len(MANY)]]) for place, agent in enumerate(AGENTS)
    ),
    "a project for each binding": "".join(
        table([AGENTS[1], agent], [MANY[place % len(MANY)]]) for place, agent in enumerate(AGENTS)
    ),
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_a_policy_takes_memory_by_its_size_and_not_by_subjects_times_projects(text: str) -> None:
    tracemalloc.start()
    try:
        granted = policy(text)
        asked = [granted.grants(agent).on("p1") and granted.grants(agent).readable is not None for agent in AGENTS]
        taken, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert asked[1]
    assert taken < 32 * len(text)
    assert most < 64 * len(text)


def test_subjects_that_the_same_bindings_name_share_what_they_are_granted() -> None:
    granted = policy(table(["certificate:a", "certificate:b", "token:a"], ["demo"]) + table(["token:*"], ["lab"]))
    assert granted.grants("certificate:a") is granted.grants("certificate:b")
    assert granted.grants("token:a") is not granted.grants("certificate:a")
    assert granted.grants("token:b") is granted.grants("token:c")
    assert list(granted.grants("token:a").projects) == ["demo", "lab"]


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("file", [ROOT / "examples/policy.toml", *ROOT.glob("deploy/**/policy.toml")], ids=str)
def test_the_policies_that_come_with_the_project_are_good(file: Path) -> None:
    policy_of(file.read_bytes(), file)


def test_the_example_grants_what_its_comments_say() -> None:
    granted = policy((ROOT / "examples" / "policy.toml").read_text())
    for agent in ("certificate:agent-a", "certificate:spiffe://n0stack/agent-b"):
        assert granted.grants(agent).on("demo") == granted.grants(agent).on("lab") == {Role.READ, Role.OPERATE}
        assert granted.grants(agent).on("other") == frozenset()
    assert granted.grants("certificate:api.n0stack.example").on("any") == {Role.READ, Role.WRITE}
    assert list(granted.grants("token:anybody").readable or ()) == ["demo"]
    assert granted.grants("certificate:anybody").readable is not None
    assert not granted.grants("certificate:anybody").readable
