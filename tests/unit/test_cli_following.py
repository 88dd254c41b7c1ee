"""Which logs are new: each change tells the newest 100."""

from n0stack.protobuf.operation_pb2 import Operation
from operation_service.following import Following


def logs(*messages: str) -> list[Operation.Log]:
    found = []
    for message in messages:
        log = Operation.Log(message=message)
        log.ts.seconds = ord(message[0])
        found.append(log)
    return found


def new(following: Following, *messages: str) -> list[str]:
    return [log.message for log in following.new(logs(*messages))]


def test_only_what_was_not_told_is_new() -> None:
    following = Following(logs("a", "b"))
    assert new(following, "a", "b") == []
    assert new(following, "a", "b", "c") == ["c"]
    assert new(following, "a", "b", "c") == []


def test_what_has_moved_out_of_the_newest_hundred_is_not_missed() -> None:
    following = Following(logs("a", "b", "c"))
    assert new(following, "b", "c", "d") == ["d"]
    assert new(following, "d", "e", "f") == ["e", "f"]


def test_of_a_new_operation_all_is_new() -> None:
    following = Following(logs("a", "b"))
    assert new(following) == []
    assert new(following, "x", "y") == ["x", "y"]


def test_the_first_look_tells_all() -> None:
    assert new(Following(), "a", "b") == ["a", "b"]
