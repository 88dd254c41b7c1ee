"""All else, on one good history by hand in which everything happens, and on forgeries of it that differ in little."""

from collections.abc import Callable

import pytest
from chaos.checker import Kind, check
from chaos.history import Call, Entry, FinalRecord, FinalValue, Outcome, Seen, Update, UpdateBegan, WatchBegan
from chaos_histories import Watch, simulate
from chaos_model import Request
from msgspec.structs import replace

GOOD = simulate(
    [
        Request("create", "a", at=1),  # m1, revision 11
        Request("propose", "a", at=2, lock_for=10),  # m2, revision 12, fencing token 12
        Request("update", "a", at=3),  # m3
        Request("propose", "b", at=4, lock_for=10),  # m4, refused
        Request("append", "a", at=5, sends_fence=True),  # m5, revision 13
        Request("append", "a", at=5.5, is_lost=True),  # m6, revision 14
        Request("append", "a", at=5.6, is_never_made=True),  # m7
        Request("get", "r", at=6),  # revision 14
        Request("propose", "b", at=13, lock_for=10, is_disabled_cancel=True),  # m9, revision 16 after an expiry
        Request("update", "a", at=14),  # m10
        Request("update", "b", at=14.5),  # m11
        Request("update", "a", at=15),  # m12, refused
        Request("get", "r", at=16),  # revision 16
        Request("propose", "c", at=25, lock_for=10),  # m14, revision 18 after OPERATOR_DEAD
        Request("complete", "c", at=26),  # m15, revision 19
        Request("complete", "c", at=27),  # m16, a repetition
        Request("get", "r", at=28),  # revision 19
        Request("propose", "d", at=29, lock_for=10),  # m18, revision 20, a new operation
        Request("append", "d", at=30),  # m19, revision 21
        Request("cancel", "d", at=31),  # m20, revision 22
        Request("update", "b", at=32, is_lost=True),  # m21
    ],
    [Watch("w1"), Watch("w2", at=7), Watch("w3", ends=8), Watch("w3", account=2, at=20)],
)

Forger = Callable[[list[Entry]], list[Entry]]


def edit(kind: type[Entry], where: dict[str, object], **fields: object) -> Forger:
    """Change the entries of a kind that have certain values."""

    def forge(entries: list[Entry]) -> list[Entry]:
        forged = [replace(entry, **fields) if _is(entry, kind, where) else entry for entry in entries]
        assert forged != entries
        return forged

    return forge


def drop(kind: type[Entry], **where: object) -> Forger:
    """Leave out the entries of a kind that have certain values."""

    def forge(entries: list[Entry]) -> list[Entry]:
        forged = [entry for entry in entries if not _is(entry, kind, where)]
        assert len(forged) < len(entries)
        return forged

    return forge


def add(kind: type[Entry], where: dict[str, object], **fields: object) -> Forger:
    """Repeat the entries that have certain values, with others."""

    def forge(entries: list[Entry]) -> list[Entry]:
        forged = []
        for entry in entries:
            forged += [entry, replace(entry, **fields)] if _is(entry, kind, where) else [entry]
        assert len(forged) > len(entries)
        return forged

    return forge


def _is(entry: Entry, kind: type[Entry], where: dict[str, object]) -> bool:
    return isinstance(entry, kind) and all(getattr(entry, name) == value for name, value in where.items())


def m(*numbers: int) -> tuple[str, ...]:
    return tuple(f"m{number}" for number in numbers)


def at(revision: int, **where: object) -> dict[str, object]:
    return {"record_revision": revision, **where}


def sent(number: int) -> dict[str, object]:
    return {"message": f"m{number}"}


FIRST = m(1, 2, 5, 6)
"""The logs up to the first expiry."""


def test_a_good_history_is_good() -> None:
    assert check(GOOD) == []


@pytest.mark.parametrize(
    ("forge", "expected"),
    [
        # Answers.
        (edit(Call, sent(5), logs=m(1, 2)), Kind.ANSWER),
        (edit(Call, sent(5), logs=m(2, 5)), Kind.ANSWER),
        (edit(Call, sent(5), fencing_token=11, sent_fencing_token=0), Kind.ANSWER),
        (edit(Call, sent(5), sent_fencing_token=11, fencing_token=11), Kind.ANSWER),
        (edit(Call, sent(16), token="d"), Kind.ANSWER),
        (edit(Call, sent(18), sent_fencing_token=20), Kind.ANSWER),
        (edit(Seen, at(13), event="RENEWED"), Kind.ANSWER),
        # Changes.
        (drop(Seen, record_revision=13), Kind.LOST_CHANGE),
        (edit(Call, sent(7), outcome=Outcome.OK, logs=m(1, 2, 5, 6, 7), fencing_token=12), Kind.LOST_CHANGE),
        (edit(Seen, at(14), logs=m(1, 2, 5, 4)), Kind.REFUSED_CHANGE),
        (edit(Call, {"rpc": "get", "revision": 14}, logs=m(1, 2, 5, 4)), Kind.REFUSED_CHANGE),
        (edit(FinalRecord, {}, logs=m(18, 19, 20, 4)), Kind.REFUSED_CHANGE),
        (edit(Call, sent(6), outcome=Outcome.REFUSED), Kind.REFUSED_CHANGE),
        (edit(Seen, at(14), logs=m(1, 2, 5, 99)), Kind.FOREIGN_MESSAGE),
        (edit(Seen, at(14), logs=m(1, 2, 5, 5)), Kind.REPEATED_CHANGE),
        (edit(FinalRecord, {}, logs=m(18, 19, 19, 20)), Kind.REPEATED_CHANGE),
        (edit(Seen, at(21), logs=m(18, 15)), Kind.REPEATED_CHANGE),
        (edit(Seen, at(20), logs=m(1)), Kind.REPEATED_CHANGE),
        (edit(Call, sent(5), began=5.8, ended=5.9), Kind.ORDER),
        (edit(Call, sent(2), began=5.65, ended=5.7), Kind.ORDER),
        # Operations.
        (edit(Seen, at(16), event="RENEWED"), Kind.EVENT),
        (edit(Seen, at(13), token="b"), Kind.EVENT),
        (edit(Seen, at(13), state="EXPIRED"), Kind.EVENT),
        (drop(Seen, record_revision=15), Kind.EVENT),
        (edit(Seen, at(17), event="EXPIRED", state="EXPIRED"), Kind.EVENT),
        (edit(Seen, at(22), event="SUCCEEDED", state="SUCCEEDED", token="a"), Kind.EVENT),
        (edit(Seen, at(13), fencing_token=13), Kind.FENCING),
        (edit(Seen, at(16), fencing_token=12), Kind.FENCING),
        (edit(Seen, at(13), logs=m(2, 1, 5)), Kind.LOGS),
        (edit(Seen, at(14), logs=m(1, 2, 6)), Kind.LOGS),
        (edit(Seen, at(16), logs=m(9)), Kind.LOGS),
        (edit(Seen, at(20), logs=m(15, 18)), Kind.LOGS),
        # Reads.
        (edit(Call, {"rpc": "get", "revision": 14}, state="PENDING"), Kind.READ),
        (edit(Call, {"rpc": "get", "revision": 14}, fencing_token=11), Kind.READ),
        (edit(Call, {"rpc": "get", "revision": 14}, logs=m(1, 2, 6)), Kind.READ),
        (edit(Call, {"rpc": "get", "revision": 14}, revision=15), Kind.READ),
        (edit(Call, {"rpc": "get", "revision": 16}, revision=14, fencing_token=12, logs=FIRST), Kind.STALE_READ),
        (edit(Call, {"rpc": "get", "revision": 19}, state="", revision=0, logs=()), Kind.STALE_READ),
        (edit(Call, {"rpc": "get", "revision": 14}, began=12.6, ended=12.8), Kind.STALE_READ),
        (edit(Call, {"rpc": "get", "revision": 16}, ended=12.9, began=12.8), Kind.FUTURE_READ),
        (edit(Seen, at(16), at=12.9), Kind.FUTURE_READ),
        # Watches.
        (drop(Seen, watcher="w2", record_revision=16), Kind.WATCH_GAP),
        (add(Seen, at(16, watcher="w2")), Kind.WATCH_ORDER),
        (add(Seen, at(19, watcher="w2"), revision=18, record_revision=18), Kind.WATCH_ORDER),
        (edit(WatchBegan, {"watcher": "w1"}, start_revision=12), Kind.WATCH_ORDER),
        (edit(Seen, at(16, watcher="w2"), fencing_token=15), Kind.WATCH_DISAGREEMENT),
        (edit(Seen, at(14, watcher="w2"), logs=m(1, 2, 6)), Kind.WATCH_DISAGREEMENT),
        # The end.
        (edit(FinalRecord, {}, state="LOCKED"), Kind.READ),
        (edit(FinalRecord, {}, state="", revision=0, logs=()), Kind.STALE_READ),
        (edit(FinalRecord, {}, revision=21), Kind.STALE_READ),
        (edit(FinalRecord, {}, logs=m(18, 20)), Kind.LOST_CHANGE),
        (edit(FinalRecord, {}, logs=m(19, 18, 20)), Kind.ORDER),
        (edit(FinalRecord, {}, logs=m(15, 18, 19, 20)), Kind.READ),
        (edit(FinalRecord, {}, logs=m(18, 7, 19, 20)), Kind.LOGS),
        # Values.
        (edit(FinalValue, {}, elements=m(3, 10, 21)), Kind.LOST_UPDATE),
        (edit(FinalValue, {}, elements=m(3, 10, 11, 12)), Kind.REFUSED_UPDATE),
        (edit(FinalValue, {}, elements=m(3, 10, 11, 21, 21)), Kind.REPEATED_UPDATE),
        (edit(FinalValue, {}, elements=m(3, 10, 11, 99)), Kind.FOREIGN_ELEMENT),
        (edit(FinalValue, {}, elements=m(3, 11, 10)), Kind.UPDATE_ORDER),
        (edit(FinalValue, {}, elements=m(10, 3, 11)), Kind.UPDATE_ORDER),
        (edit(Update, {"element": "m10"}, fencing_token=17), Kind.UPDATE_ORDER),
    ],
)
def test_a_forgery_is_found(forge: Forger, expected: Kind) -> None:
    assert expected in {violation.kind for violation in check(forge(GOOD))}


@pytest.mark.parametrize(
    "forge",
    [
        edit(FinalValue, {}, elements=m(3, 10, 11)),
        edit(Call, sent(5), ended=9.0),
        edit(Call, sent(2), ended=5.05, told_until=12.1),
        edit(Call, {"rpc": "get", "revision": 16}, began=13.0),
        edit(Call, sent(5), outcome=Outcome.UNKNOWN, logs=()),
        drop(Call, message="m5"),
        drop(Seen, watcher="w1"),
        drop(Seen),
        drop(FinalRecord),
        drop(Call, rpc="get"),
    ],
)
def test_what_may_be_is_not_accused(forge: Forger) -> None:
    assert check(forge(GOOD)) == []


def only_begun(entries: list[Entry]) -> list[Entry]:
    """Kill the client of m11 while it writes."""
    return [
        UpdateBegan(
            client=entry.client,
            resource=entry.resource,
            fencing_token=entry.fencing_token,
            element=entry.element,
            began=entry.began,
        )
        if isinstance(entry, Update) and entry.element == "m11"
        else entry
        for entry in entries
    ]


def test_an_update_whose_client_was_killed_may_be_there_once_or_not() -> None:
    killed = only_begun(GOOD)
    assert check(killed) == []
    assert check(edit(FinalValue, {}, elements=m(3, 10, 21))(killed)) == []
    twice = check(edit(FinalValue, {}, elements=m(3, 10, 11, 11))(killed))
    assert {violation.kind for violation in twice} == {Kind.REPEATED_UPDATE}


def test_a_watch_that_broke_off_within_a_revision_may_tell_it_again_but_not_what_was_told_in_full() -> None:
    (place,) = [
        number
        for number, entry in enumerate(GOOD)
        if isinstance(entry, Seen) and (entry.watcher, entry.record_revision) == ("w2", 16)
    ]
    told = GOOD[place]
    assert isinstance(told, Seen)
    broken_off, again = replace(told, revision=15), replace(told)
    assert check([*GOOD[:place], broken_off, *GOOD[place:]]) == []
    twice = check([*GOOD[:place], again, *GOOD[place:]])
    assert {violation.kind for violation in twice} == {Kind.WATCH_ORDER}
    thrice = check([*GOOD[:place], broken_off, again, *GOOD[place:]])
    assert {violation.kind for violation in thrice} == {Kind.WATCH_ORDER}


def test_a_hole_in_the_accounts_hides_what_may_lie_in_it() -> None:
    holed = drop(Seen, record_revision=13)(GOOD)
    covering = [entry for entry in holed if not isinstance(entry, Seen | WatchBegan) or entry.watcher == "w2"]
    assert check(covering) == []


def test_what_a_watcher_finds_at_first_is_a_read() -> None:
    asked = [Request("create", "a", at=1), Request("append", "b", at=2), Request("create", "b", at=3, resource="net")]
    good = simulate([*asked, Request("propose", "a", at=4, lock_for=5)], [Watch(), Watch("w2", at=5)])
    assert check(good) == []
    missing = drop(Seen, watcher="w2", resource="net")(good)
    assert {violation.kind for violation in check(missing)} == {Kind.WATCH_GAP}
    old = edit(Seen, {"watcher": "w2", "resource": "vm", "is_present": True}, record_revision=11, fencing_token=0)(good)
    assert Kind.STALE_READ in {violation.kind for violation in check(old)}


def test_an_operation_shows_the_newest_hundred_of_its_logs() -> None:
    appended = [Request("append", "a", at=2 + number) for number in range(150)]
    good = simulate([Request("propose", "a", at=1, lock_for=200), *appended, Request("get", "r", at=170)])
    assert check(good) == []
    shortened = edit(Seen, at(155), logs=tuple(f"m{number}" for number in range(47, 146)))(good)
    assert {Kind.LOGS, Kind.ANSWER} <= {violation.kind for violation in check(shortened)}
    missing = edit(FinalRecord, {}, logs=tuple(f"m{number}" for number in range(1, 152) if number != 20))(good)
    assert {violation.kind for violation in check(missing)} == {Kind.LOST_CHANGE, Kind.LOGS}


def test_two_calls_with_one_message_are_no_history() -> None:
    with pytest.raises(ValueError, match="two calls sent the message 'm5'"):
        check(edit(Call, sent(2), message="m5")(GOOD))


def test_a_violation_says_what_happened() -> None:
    (found,) = check(edit(FinalValue, {}, elements=m(3, 10))(GOOD))
    assert "b's 'm11', under fencing token 16, was acknowledged at 14.700, and is not in the value" in str(found)
