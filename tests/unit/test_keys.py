"""Where things lie in etcd: nobody's keys among another's, and every key leads back to whose it is."""

import hashlib

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from operation_service.keys import KeyRange, Keys, ResourceKeys, prefix_range, resource_named
from operation_service.model import Resource

PREFIX = "/n0stack/operation/"
KEYS = Keys(PREFIX)
RESOURCE = Resource("project", "virtual_machines/web-1")
OPERATION_ID = "0123456789abcdef"
TOKEN = "a token with / and # in it"
TOKEN_HASH = hashlib.sha256(TOKEN.encode()).hexdigest()[:32]

projects = st.builds(str.__add__, st.sampled_from("a0"), st.text("a0._-", max_size=4))
segments = st.text("a0._:@-", min_size=1, max_size=4).filter(lambda segment: segment not in {".", ".."})
names = st.lists(segments, min_size=1, max_size=3).map("/".join)
resources = st.builds(Resource, projects, names)
operation_ids = st.text("0123456789abcdef", min_size=1, max_size=32)


def is_in(key: bytes, keys: KeyRange) -> bool:
    return keys.start <= key < keys.end


def details_of(resource: Resource, operation_id: str = OPERATION_ID) -> list[bytes]:
    """The keys of what an operation has left."""
    logs = [KEYS.log(resource, operation_id, number) for number in (1, 2, 9_999_999_999)]
    return [KEYS.request(resource, operation_id), *logs]


def all_of(resource: Resource) -> list[bytes]:
    """Every kind of key that a resource can have."""
    cancelled = [KEYS.cancelled(resource, token) for token in (TOKEN, "another token")]
    return [KEYS.record(resource), KEYS.lock(resource), *cancelled, *details_of(resource)]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (KEYS.record(RESOURCE), "records/project/virtual_machines/web-1"),
        (KEYS.lock(RESOURCE), "locks/project/virtual_machines/web-1"),
        (KEYS.cancelled(RESOURCE, TOKEN), f"cancelled/project/virtual_machines/web-1#{TOKEN_HASH}"),
        (KEYS.request(RESOURCE, "ab12"), "details/project/virtual_machines/web-1#ab12/request"),
        (KEYS.log(RESOURCE, "ab12", 1), "details/project/virtual_machines/web-1#ab12/log/0000000001"),
    ],
    ids=["record", "lock", "cancelled", "request", "log"],
)
def test_the_keys_are_those_that_people_look_for(key: bytes, text: str) -> None:
    assert key.decode() == PREFIX + text


@given(one=resources, other=resources)
@example(one=Resource("p", "a"), other=Resource("p", "a/1"))
@example(one=Resource("p", "a"), other=Resource("p", "a-b"))
@example(one=Resource("p", "a"), other=Resource("p", "aa"))
@example(one=Resource("p", "a/b"), other=Resource("p", "a:b"))
@example(one=Resource("p", "a"), other=Resource("p-a", "a"))
@example(one=Resource("p", "a"), other=Resource("p.a", "a"))
@example(one=Resource("p", "a"), other=Resource("p", "a/request"))
def test_no_two_resources_share_a_key_or_a_range(one: Resource, other: Resource) -> None:
    assume(one != other)
    assert set(all_of(one)).isdisjoint(all_of(other))
    for keys in (KEYS.details(one), KEYS.operation_details(one, OPERATION_ID)):
        assert not [key for key in all_of(other) if is_in(key, keys)]


@given(resources)
def test_no_two_keys_of_a_resource_are_the_same(resource: Resource) -> None:
    assert len(set(all_of(resource))) == len(all_of(resource))


@given(resources)
def test_a_resources_details_are_in_their_range_and_nothing_else_is(resource: Resource) -> None:
    assert [key for key in all_of(resource) if is_in(key, KEYS.details(resource))] == details_of(resource)
    assert [key for key in all_of(resource) if is_in(key, KEYS.details_beside(KEYS.records("", "")))] == details_of(
        resource
    )


@given(resource=resources, one=operation_ids, other=operation_ids)
@example(resource=RESOURCE, one="ab", other="abc")
@example(resource=RESOURCE, one="abc", other="ab")
def test_an_operations_details_are_in_its_range_and_no_other_operations_are(
    resource: Resource, one: str, other: str
) -> None:
    assume(one != other)
    keys = KEYS.operation_details(resource, one)
    assert all(is_in(key, keys) for key in details_of(resource, one))
    assert not [key for key in details_of(resource, other) if is_in(key, keys)]


@given(resource=resources, one=st.integers(1, 9_999_999_999), other=st.integers(1, 9_999_999_999))
def test_logs_lie_in_the_order_of_their_numbers(resource: Resource, one: int, other: int) -> None:
    keys = KEYS.log(resource, OPERATION_ID, one), KEYS.log(resource, OPERATION_ID, other)
    assert (keys[0] < keys[1]) == (one < other)


@given(resource=resources, project=projects, prefix=st.text("a0._:@-/", max_size=4))
@example(resource=Resource("p", "a/1"), project="p", prefix="a")
@example(resource=Resource("p", "a"), project="p", prefix="a/")
@example(resource=Resource("p-a", "a"), project="p", prefix="")
@example(resource=Resource("p", "a"), project="p", prefix="")
def test_a_listing_is_the_resources_of_its_project_whose_names_begin_with_its_prefix(
    resource: Resource, project: str, prefix: str
) -> None:
    is_listed = resource.project == project and resource.name.startswith(prefix)
    assert is_in(KEYS.record(resource), KEYS.records(project, prefix)) == is_listed
    assert is_in(KEYS.lock(resource), KEYS.locks_beside(KEYS.records(project, prefix))) == is_listed


@given(resources)
def test_a_listing_of_all_projects_is_all_records_and_nothing_else(resource: Resource) -> None:
    assert [key for key in all_of(resource) if is_in(key, KEYS.records("", ""))] == [KEYS.record(resource)]
    assert [key for key in all_of(resource) if is_in(key, KEYS.locks_beside(KEYS.records("", "")))] == [
        KEYS.lock(resource)
    ]


@given(resource=resources, one=resources, other=resources)
@example(resource=Resource("p", "a"), one=Resource("p", "a-b"), other=Resource("p", "a/b"))
@example(resource=Resource("p", "a-b"), one=Resource("p", "a"), other=Resource("p", "a/b"))
def test_locks_and_details_lie_in_the_order_of_their_records(
    resource: Resource, one: Resource, other: Resource
) -> None:
    part = KeyRange(*sorted([KEYS.record(one), KEYS.record(other)]))
    is_within = is_in(KEYS.record(resource), part)
    assert is_in(KEYS.lock(resource), KEYS.locks_beside(part)) == is_within
    for detail in details_of(resource):
        assert is_in(detail, KEYS.details_beside(part)) == is_within
        assert is_in(KEYS.record_beside(detail), part) == is_within


@given(resources)
def test_records_locks_and_the_layout_are_watched_and_nothing_else(resource: Resource) -> None:
    assert is_in(KEYS.layout, KEYS.watched)
    watched = [key for key in all_of(resource) if is_in(key, KEYS.watched)]
    assert watched == [KEYS.record(resource), KEYS.lock(resource)]


@given(resources)
def test_a_record_and_a_lock_lead_back_to_their_resource(resource: Resource) -> None:
    assert KEYS.resource_of(KEYS.record(resource)) == KEYS.resource_of(KEYS.lock(resource)) == resource
    name, is_record = KEYS.named(KEYS.record(resource))
    assert (resource_named(name), is_record) == (resource, True)
    assert KEYS.named(KEYS.lock(resource)) == (name, False)


@given(resources)
def test_both_keys_of_a_resource_are_its_record_and_its_lock(resource: Resource) -> None:
    assert KEYS.of(resource) == ResourceKeys(KEYS.record(resource), KEYS.lock(resource))


@given(resource=resources, operation_id=operation_ids)
def test_details_lead_back_to_their_resource_and_operation(resource: Resource, operation_id: str) -> None:
    assert {KEYS.operation_of(key) for key in details_of(resource, operation_id)} == {(resource, operation_id)}


@pytest.mark.parametrize(
    "key",
    [
        KEYS.cancelled(RESOURCE, TOKEN),
        KEYS.request(RESOURCE, OPERATION_ID),
        b"",
        b"records/project/name",
        b"/elsewhere/records/project/name",
        PREFIX.encode(),
        f"{PREFIX}records/".encode(),
        f"{PREFIX}records/no-slash".encode(),
        f"{PREFIX}locks/no-slash".encode(),
        f"{PREFIX}locks0/project/name".encode(),
        f"{PREFIX}records/project/\xff".encode("latin-1"),
        f"{PREFIX}records/prøject/name".encode(),
    ],
    ids=repr,
)
def test_what_is_neither_record_nor_lock_leads_nowhere(key: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011, it has no text of its own
        KEYS.resource_of(key)


@pytest.mark.parametrize(
    "key",
    [
        KEYS.record(RESOURCE),
        KEYS.lock(RESOURCE),
        KEYS.cancelled(RESOURCE, TOKEN),
        b"/elsewhere/details/project/name#id/request",
        f"{PREFIX}details/".encode(),
        f"{PREFIX}details/project/name".encode(),
        f"{PREFIX}details/no-slash#id/request".encode(),
        f"{PREFIX}details/project/\xff#id/request".encode("latin-1"),
    ],
    ids=repr,
)
def test_what_is_no_detail_leads_to_no_operation(key: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011, it has no text of its own
        KEYS.operation_of(key)


@given(prefix=st.binary(min_size=1).filter(lambda prefix: prefix[-1] < 0xFF), key=st.binary())
@example(prefix=b"a/", key=b"a/")
@example(prefix=b"a/", key=b"a0")
@example(prefix=b"a/", key=b"a/\xff\xff")
def test_a_prefix_range_is_all_keys_that_begin_with_the_prefix(prefix: bytes, key: bytes) -> None:
    assert is_in(key, prefix_range(prefix)) == key.startswith(prefix)
    assert is_in(prefix + key, prefix_range(prefix))


@pytest.mark.parametrize("prefix", ["/", "/test/1/", "records/", "/locks/records/", "/a#b/"])
def test_the_prefix_may_look_like_the_rest(prefix: str) -> None:
    keys = Keys(prefix)
    assert keys.resource_of(keys.record(RESOURCE)) == keys.resource_of(keys.lock(RESOURCE)) == RESOURCE
    assert keys.operation_of(keys.request(RESOURCE, OPERATION_ID)) == (RESOURCE, OPERATION_ID)
    assert all(key.startswith(prefix.encode()) for key in (keys.record(RESOURCE), keys.watched.start))
