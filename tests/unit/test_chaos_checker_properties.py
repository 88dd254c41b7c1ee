"""Whatever a correct service does is found to be good; and what is then changed at random is found."""

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeGuard

import pytest
from chaos.checker import check
from chaos.history import Call, Entry, FinalRecord, FinalValue, Outcome, Seen, Update
from chaos_histories import Watch, simulate
from chaos_model import Request
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

CHANGES = ("create", "propose", "append", "complete", "cancel")

requests = st.builds(
    Request,
    rpc=st.sampled_from([*CHANGES, "propose", "propose", "append", "append", "get", "update", "update"]),
    token=st.sampled_from(["a", "b", "c"]),
    at=st.integers(0, 400).map(lambda tenths: tenths / 10),
    lock_for=st.sampled_from([0, 1, 3, 8]),
    resource=st.sampled_from(["vm", "net"]),
    wait=st.sampled_from([0.01, 0.11, 1.03, 9.07]),
    back=st.sampled_from([0.02, 0.13, 2.05]),
    is_lost=st.sampled_from([False] * 6 + [True]),
    is_never_made=st.sampled_from([False] * 9 + [True]),
    is_killed=st.sampled_from([False] * 9 + [True]),
    sends_fence=st.booleans(),
    is_disabled_cancel=st.booleans(),
).filter(lambda request: request.lock_for > 0 or request.rpc != "propose")
watches = st.sampled_from(
    [
        (),
        (Watch(),),
        (Watch(), Watch("w2", at=6.0), Watch("w3", start_revision=14)),
        (Watch(ends=15.0), Watch(account=2, at=20.0), Watch("w2", at=10.0, ends=30.0)),
        (Watch("w2", at=15.0, heard=1), Watch(ends=8.0), Watch(account=2, at=22.0, heard=1)),
    ]
)


@given(st.lists(requests, max_size=60), watches, st.sampled_from([0.01, 0.5, 5.0]))
@settings(deadline=None)
def test_what_a_correct_service_does_is_good(asked: list[Request], seen_by: Sequence[Watch], lag: float) -> None:
    assert check(simulate(asked, seen_by, lag)) == []


def busy(seed: int) -> list[Entry]:
    """A run in which locks are held, run out and are completed, watched by two."""
    dice = random.Random(seed)
    asked = []
    for number in range(8):
        at, token = number * 10 + dice.random(), dice.choice("abc")
        asked += [
            Request("propose", token, at=at, lock_for=dice.choice([4, 6])),
            Request("update", token, at=at + 0.5),
            Request("append", token, at=at + 1, is_lost=dice.random() < 0.3),
            Request("get", "r", at=at + 1.5),
            Request("propose", "d", at=at + 2, lock_for=5),
            Request("propose", token, at=at + 2.5, lock_for=4, sends_fence=True),
        ]
        if dice.random() < 0.5:
            asked.append(Request("complete", token, at=at + 3))
    return simulate(asked, [Watch(), Watch("w2", at=5.0)])


Mutation = Callable[[random.Random, list[Entry]], list[Entry]]


def change(dice: random.Random, entries: list[Entry], which: Callable[[Entry], bool], **fields: object) -> list[Entry]:
    place = dice.choice([number for number, entry in enumerate(entries) if which(entry)])
    return [*entries[:place], replace(entries[place], **fields), *entries[place + 1 :]]


def is_ok(entry: Entry, *rpcs: str) -> TypeGuard[Call]:
    return isinstance(entry, Call) and entry.outcome is Outcome.OK and entry.rpc in rpcs


def drop_an_acknowledged_change(dice: random.Random, entries: list[Entry]) -> list[Entry]:
    message = dice.choice([entry.message for entry in entries if is_ok(entry, "propose", "append", "complete")])
    return [
        replace(entry, logs=tuple(log for log in entry.logs if log != message))
        if isinstance(entry, Call | Seen | FinalRecord)
        else entry
        for entry in entries
        if not (isinstance(entry, Seen) and entry.logs[-1:] == (message,) and entry.event != "EXPIRED")
    ]


def repeat_a_log(dice: random.Random, entries: list[Entry]) -> list[Entry]:
    final = next(entry for entry in entries if isinstance(entry, FinalRecord))
    return change(dice, entries, lambda entry: entry is final, logs=(*final.logs, dice.choice(final.logs)))


def grant_while_it_is_held(dice: random.Random, entries: list[Entry]) -> list[Entry]:
    held = dice.choice([entry for entry in entries if is_ok(entry, "propose") and not entry.sent_fencing_token])
    granted = replace(
        held,
        client="x",
        token="x",
        message="mx",
        logs=("mx",),
        began=held.ended + 0.1,
        ended=held.ended + 0.2,
        fencing_token=held.fencing_token + dice.choice([-1, 0, 1]),
    )
    return [*entries, granted]


def swap_a_token(dice: random.Random, entries: list[Entry]) -> list[Entry]:
    return change(dice, entries, lambda entry: isinstance(entry, Seen), token="x")


def move_a_grant_before_the_deadline(dice: random.Random, entries: list[Entry]) -> list[Entry]:
    """Of an acquisition after an expiry, and of what the watchers saw of it, to just after the renewal before it."""
    calls = [entry for entry in entries if is_ok(entry, "propose")]
    pairs = [
        (before, after)
        for before, after in pairwise(calls)
        if after.logs[-2:] == (before.message, after.message) and after.fencing_token != before.fencing_token
    ]
    if not pairs:
        return drop_an_acknowledged_change(dice, entries)
    before, after = dice.choice(pairs)
    at = before.ended + 0.2
    return change(dice, entries, lambda entry: entry is after, began=at, ended=at + 0.1)


def lose_a_message_of_a_watch(dice: random.Random, entries: list[Entry]) -> list[Entry]:
    ones = [entry for entry in entries if isinstance(entry, Seen) and entry.watcher == "w2" and not entry.is_present]
    lost = dice.choice(ones[:-1])
    return [entry for entry in entries if entry is not lost]


def refuse_what_was_made(dice: random.Random, entries: list[Entry]) -> list[Entry]:
    refused = {"outcome": Outcome.REFUSED, "reason": "LOCKED", "logs": ()}
    return change(dice, entries, lambda entry: is_ok(entry, "propose", "append"), **refused)


def acknowledge_what_was_refused(dice: random.Random, entries: list[Entry]) -> list[Entry]:
    return change(
        dice,
        entries,
        lambda entry: isinstance(entry, Call) and entry.outcome is Outcome.REFUSED,
        outcome=Outcome.OK,
        told_until=1e9,
        fencing_token=1000,
    )


def lose_an_update(dice: random.Random, entries: list[Entry]) -> list[Entry]:
    value = next(entry for entry in entries if isinstance(entry, FinalValue))
    lost = dice.choice(value.elements)
    elements = tuple(element for element in value.elements if element != lost)
    return change(dice, entries, lambda entry: entry is value, elements=elements)


def write_under_an_old_fence(dice: random.Random, entries: list[Entry]) -> list[Entry]:
    newest = [entry for entry in entries if isinstance(entry, Update)][-1]
    return change(dice, entries, lambda entry: entry is newest, fencing_token=0)


def read_what_was_long_ago(dice: random.Random, entries: list[Entry]) -> list[Entry]:
    old = dice.choice([entry for entry in entries if is_ok(entry, "get")][:5])
    return [*entries, replace(old, began=old.began + 30, ended=old.ended + 30)]


@pytest.mark.parametrize(
    "mutation",
    [
        drop_an_acknowledged_change,
        repeat_a_log,
        grant_while_it_is_held,
        swap_a_token,
        move_a_grant_before_the_deadline,
        lose_a_message_of_a_watch,
        refuse_what_was_made,
        acknowledge_what_was_refused,
        lose_an_update,
        write_under_an_old_fence,
        read_what_was_long_ago,
    ],
)
@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_what_is_changed_at_random_is_found(mutation: Mutation, seed: int) -> None:
    good = busy(seed)
    assert check(good) == []
    assert check(mutation(random.Random(seed), good)) != []
