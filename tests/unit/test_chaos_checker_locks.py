"""Locks and fencing tokens, on histories made by hand: each bad one beside a good one that differs in little."""

from typing import Any

import pytest
from chaos.checker import Kind, check
from chaos.history import Began, Call, Entry, FinalRecord, Outcome, Seen, WatchBegan

UNKNOWN, REFUSED = Outcome.UNKNOWN, Outcome.REFUSED


def call(rpc: str, token: str, began: float, ended: float, **fields: Any) -> Call:
    message = fields.setdefault("message", f"{token} {rpc} {began}")
    if fields.setdefault("outcome", Outcome.OK) is Outcome.OK:
        fields.setdefault("logs", (message,))
    return Call(client=token, rpc=rpc, resource="vm", token=token, began=began, ended=ended, **fields)


def grant(token: str, began: float, ended: float, until: float, fence: int, **fields: Any) -> Call:
    return call("propose", token, began, ended, told_until=until, fencing_token=fence, **fields)


def told(event: str, token: str, at: float, revision: int, *logs: str, **fields: Any) -> Seen:
    state = {"RENEWED": "LOCKED"}.get(event, event)
    numbers: dict[str, Any] = {
        "revision": revision,
        "record_revision": revision,
        "fencing_token": fields.pop("fence", revision),
    }
    who: dict[str, Any] = {"watcher": "w", "account": 1, "resource": "vm", "token": token}
    return Seen(**who, **numbers, at=at, event=event, state=state, logs=logs, **fields)


A = grant("a", 1.0, 1.2, until=11.1, fence=5)
WATCH = WatchBegan(watcher="w", account=1, at=0.0, start_revision=0)
A_TOLD = told("LOCKED", "a", 1.3, 5, "a propose 1.0")


def b_at(began: float) -> Call:
    return grant("b", began, began + 0.2, until=20.0, fence=9)


def renewal(began: float, lock_for: int, outcome: Outcome, **fields: Any) -> Call:
    return call("propose", "a", began, began + 0.1, outcome=outcome, lock_for_seconds=lock_for, **fields)


def kinds(entries: list[Entry]) -> set[Kind]:
    return {violation.kind for violation in check(entries)}


B_LEFT = Began(client="b", rpc="propose", resource="vm", began=7.0, token="b", message="b propose 7.0")
B_LOGS = ("a propose 1.0", "b propose 7.0")
A_EXPIRED = told("EXPIRED", "a", 11.2, 6, "a propose 1.0", fence=5)
READ_EXPIRED = call("get", "", 11.5, 11.6, state="EXPIRED", revision=5, fencing_token=5, message="", logs=())
BOTH = {Kind.TWO_HOLDERS, Kind.EARLY_GRANT}
SHORTER = grant("a", 5.0, 5.2, until=6.1, fence=5)
COMPLETED = call("complete", "a", 5.0, 5.2, fencing_token=5)
LATE_ANSWER = grant("a", 1.0, 9.5, until=11.1, fence=5)


def watched(*more: Entry, revision: int = 9) -> list[Entry]:
    logs = ("a propose 1.0", "b propose 8.0")
    b = grant("b", 8.0, 8.2, until=20.0, fence=revision, logs=logs)
    final = FinalRecord(resource="vm", state="LOCKED", revision=revision, fencing_token=revision, logs=logs)
    return [WATCH, A, A_TOLD, *more, b, final]


@pytest.mark.parametrize(
    ("good", "bad", "expected"),
    [
        pytest.param([A, b_at(11.0)], [A, b_at(10.0)], BOTH, id="a grant before the deadline that the holder was told"),
        pytest.param([A, COMPLETED, b_at(5.1)], [A, COMPLETED, b_at(4.7)], BOTH, id="a grant before the completion"),
        pytest.param(
            [A, call("cancel", "a", 5.0, 5.1, outcome=UNKNOWN), b_at(6.0)],
            [A, call("cancel", "a", 5.0, 5.1, outcome=REFUSED), b_at(6.0)],
            BOTH,
            id="a refused cancellation frees nothing, one without an answer may",
        ),
        pytest.param([A, SHORTER, b_at(6.0)], [A, SHORTER, b_at(5.8)], BOTH, id="a renewal may shorten"),
        pytest.param(
            [A, renewal(5.0, 2, UNKNOWN), b_at(7.0)],
            [A, renewal(5.0, 2, UNKNOWN), b_at(6.7)],
            BOTH,
            id="a renewal without an answer may have shortened",
        ),
        pytest.param(
            [call("complete", "a", 0.5, 0.6, outcome=UNKNOWN), A, b_at(3.0)],
            [call("complete", "a", 0.5, 0.6, outcome=UNKNOWN, sent_fencing_token=4), A, b_at(3.0)],
            BOTH,
            id="a call without an answer may be made late, but not under another fencing token",
        ),
        pytest.param(
            [A, Began(client="a", rpc="complete", resource="vm", began=4.0, token="a", message="x"), b_at(6.0)],
            [A, Began(client="a", rpc="append", resource="vm", began=4.0, token="a", message="x"), b_at(6.0)],
            BOTH,
            id="a client may be killed while it completes",
        ),
        pytest.param(
            [A, grant("a", 11.0, 11.2, until=20.0, fence=9)],
            [A, grant("a", 6.0, 6.2, until=20.0, fence=9)],
            BOTH,
            id="the same token under another fencing token is another holder",
        ),
        pytest.param(
            [LATE_ANSWER, grant("b", 11.0, 11.3, until=11.2, fence=9)],
            [LATE_ANSWER, grant("b", 9.0, 9.2, until=9.3, fence=9)],
            {Kind.EARLY_GRANT},
            id="the deadline protects a holder also before it knows",
        ),
        pytest.param(
            [WATCH, A, A_TOLD, B_LEFT, A_EXPIRED, told("LOCKED", "b", 11.3, 9, *B_LOGS)],
            [WATCH, A, A_TOLD, B_LEFT, told("LOCKED", "b", 8.0, 9, *B_LOGS)],
            {Kind.EARLY_GRANT},
            id="an acquisition that only a watcher knows of",
        ),
        pytest.param(
            [WATCH, A, A_TOLD, A_EXPIRED],
            [WATCH, A, A_TOLD, told("EXPIRED", "a", 11.0, 6, "a propose 1.0", fence=5)],
            {Kind.EARLY_EXPIRY},
            id="an expiry before the deadline",
        ),
        pytest.param(
            [A, READ_EXPIRED],
            [A, call("get", "", 10.0, 10.2, state="EXPIRED", revision=5, fencing_token=5, message="", logs=())],
            {Kind.EARLY_EXPIRY},
            id="an expiry read before the deadline",
        ),
    ],
)
def test_the_lock_excludes_until_the_deadline(good: list[Entry], bad: list[Entry], expected: set[Kind]) -> None:
    assert not check(good)
    assert expected <= kinds(bad)


def test_what_all_revisions_show_not_to_have_been_made_excuses_nothing() -> None:
    cancel = call("cancel", "a", 5.0, 5.1, outcome=UNKNOWN, message="cancelled")
    cancelled = told("CANCELLED", "a", 5.1, 6, "a propose 1.0", "cancelled", fence=5)
    b_told = told("LOCKED", "b", 8.3, 9, "a propose 1.0", "b propose 8.0")
    assert Kind.EARLY_GRANT not in kinds(watched(cancel))
    assert Kind.EARLY_GRANT not in kinds(watched(cancel, cancelled, b_told))
    assert Kind.EARLY_GRANT in kinds(watched(cancel, b_told))


def test_what_a_watcher_saw_before_a_grant_does_not_shorten_it() -> None:
    first = grant("a", 0.1, 0.3, until=3.0, fence=4, message="first")
    shorter = renewal(0.4, 2, UNKNOWN, message="shorter")
    longer = grant("a", 1.0, 1.2, until=11.1, fence=4, logs=("first", "shorter", "longer"), message="longer")
    seen_first = told("LOCKED", "a", 0.5, 4, "first")
    seen_shorter = told("RENEWED", "a", 0.9, 5, "first", "shorter", fence=4)
    seen_longer = told("RENEWED", "a", 1.2, 6, "first", "shorter", "longer", fence=4)
    assert not check([first, shorter, longer, b_at(5.0)])
    history: list[Entry] = [WATCH, first, seen_first, shorter, seen_shorter, longer, seen_longer]
    assert not check([*history, b_at(11.0)])
    assert kinds([*history, b_at(5.0)]) >= BOTH


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        pytest.param(
            [A, grant("b", 11.0, 11.2, until=20.0, fence=6)],
            [A, grant("b", 11.0, 11.2, until=20.0, fence=4)],
            id="a later acquisition has a greater one",
        ),
        pytest.param(
            [A, grant("b", 11.0, 11.2, until=20.0, fence=6)],
            [A, grant("b", 11.0, 11.2, until=20.0, fence=5)],
            id="two peers do not share one",
        ),
        pytest.param(
            [A, grant("a", 5.0, 5.2, until=20.0, fence=5, sent_fencing_token=5)],
            [A, grant("a", 5.0, 5.2, until=20.0, fence=6, sent_fencing_token=5)],
            id="a renewal keeps it",
        ),
        pytest.param(
            [A, COMPLETED, grant("a", 6.0, 6.2, until=20.0, fence=6)],
            [A, COMPLETED, grant("a", 6.0, 6.2, until=20.0, fence=5)],
            id="an acquisition after the end does not use the old one again",
        ),
        pytest.param(
            [A, call("append", "a", 11.4, 11.5, fencing_token=5), READ_EXPIRED],
            [A, call("append", "a", 11.8, 11.9, fencing_token=5), READ_EXPIRED],
            id="nothing is logged under one whose lock was read to have run out",
        ),
        pytest.param(
            [WATCH, A, A_TOLD, told("LOCKED", "b", 11.2, 6, "b")],
            [WATCH, A, A_TOLD, told("LOCKED", "b", 11.2, 6, "b", fence=5)],
            id="watchers are not told one of two peers",
        ),
    ],
)
def test_fencing_tokens_grow(good: list[Entry], bad: list[Entry]) -> None:
    assert Kind.FENCING not in kinds(good)
    assert Kind.FENCING in kinds(bad)


def test_concurrent_grants_may_be_answered_in_any_order() -> None:
    short = grant("a", 1.0, 9.0, until=3.1, fence=5)
    assert not check([short, grant("b", 1.1, 4.0, until=8.0, fence=9)])
    assert not check([short, grant("b", 0.9, 4.0, until=1.5, fence=4)])
