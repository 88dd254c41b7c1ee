"""Which logs are new: each change tells the newest 100. And what follows after too long an interruption."""

from collections.abc import Iterator
from typing import cast

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import Operation
from operation_service.client import Client, RevisionCompactedError
from operation_service.following import Following, changes_to_now


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


def test_a_watch_that_was_away_for_too_long_begins_with_what_is_there_again() -> None:
    class Away:
        """Its first watch ends, as etcd does not keep what it missed."""

        watches = 0

        def watch(self, _project: str, **_more: str) -> Iterator[pb.WatchOperationsResponse]:
            self.watches += 1
            yield pb.WatchOperationsResponse(revision=self.watches)
            if self.watches == 1:
                raise RevisionCompactedError("compacted")

    told = changes_to_now(cast("Client", Away()), "demo", "")
    assert [change.revision for change in told] == [1, 2]
