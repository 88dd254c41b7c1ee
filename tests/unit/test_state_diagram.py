"""The picture of the states against the policy: every command in every state, and the deadline."""

from itertools import groupby
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace
from unit_support import NOW, OTHER, SELF, SITUATIONS, append, cancel, complete, create, propose

from operation_service.errors import OperationError
from operation_service.model import Command, Failure, Snapshot, State, state_of
from operation_service.policy import Change, LockAction, Moment, decide
from tools import state_diagram
from tools.committed import ROOT
from tools.state_diagram import ARROWS, DEADLINE, EDGES, NONE, PLACES, STATES, picture

KNOWN = {name: snapshot for name, snapshot in SITUATIONS.items() if snapshot.record or not snapshot.lock}
"""A lock whose record was deleted by hand is no state that calls lead to."""


def commands(token: str) -> dict[str, Command]:
    return {
        "CreateOperation": create(token, request_digest="another"),
        "CreateOperation with a lock": create(token, request_digest="another", lock_for_seconds=30),
        "ProposeOperation": propose(token),
        "AppendOperationLog": append(token),
        "CompleteOperation": complete(token),
        "CompleteOperation with an error": complete(token, failure=Failure(13, "the disk is gone")),
        "CancelOperation": cancel(token),
    }


Transition = tuple[str, str, str, str]
"""From, by, to, and the event."""


def state_before(snapshot: Snapshot) -> str:
    if snapshot.record is None:
        return NONE
    return state_of(snapshot.record, is_locked=snapshot.lock is not None)


def state_after(change: Change, snapshot: Snapshot) -> State:
    is_locked = change.action is LockAction.HOLD or (change.action is LockAction.KEEP and snapshot.lock is not None)
    return state_of(change.record, is_locked=is_locked)


def transitions_of_calls() -> set[Transition]:
    found = set()
    for snapshot in KNOWN.values():
        for token in (SELF, OTHER):
            for cause, command in commands(token).items():
                try:
                    decision = decide(snapshot, command, Moment(NOW, "change-2"))
                except OperationError:
                    continue
                if isinstance(decision, Change):
                    after = state_after(decision, snapshot)
                    found.add((state_before(snapshot), cause, after.value, decision.record.event.value))
    return found


def transitions_of_the_deadline() -> set[Transition]:
    locked = [snapshot for snapshot in KNOWN.values() if snapshot.lock]
    ended = [replace(snapshot, lock=None) for snapshot in locked]
    return {(State.LOCKED.value, DEADLINE, state_before(after), state_before(after)) for after in ended}


def test_the_edges_are_the_transitions_of_the_policy() -> None:
    edges = [(source, edge.cause, edge.target, edge.event) for edge in EDGES for source in edge.sources]
    assert len(edges) == len(set(edges))
    assert set(edges) == transitions_of_calls() | transitions_of_the_deadline()


def test_the_states_are_those_of_the_model() -> None:
    assert set(STATES) == set(PLACES) == {state.value for state in State}


def test_every_edge_is_drawn_and_nothing_else() -> None:
    between = [key for key, _ in groupby(EDGES, key=lambda edge: (edge.sources, edge.target))]
    assert sorted(between) == sorted(ARROWS)


@pytest.mark.parametrize("word", [*STATES, *(line for edge in EDGES for line in edge.short.split("|"))])
def test_the_picture_shows_each_state_and_each_cause(word: str) -> None:
    texts = [element.text for element in ET.fromstring(picture()).iter("{http://www.w3.org/2000/svg}text")]  # noqa: S314
    assert word in texts


def test_who_cannot_see_the_picture_has_its_edges_as_a_table() -> None:
    assert state_diagram.table() in (ROOT / state_diagram.PAGE).read_text()
