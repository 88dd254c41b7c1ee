"""Exceptions go wherever exceptions go."""

import pickle

import pytest

from operation_service.client import errors
from operation_service.client.errors import Facts, LockLostError, Loss, OperationServiceError, Violation
from operation_service.client.translation import REASONS

FACTS = Facts("FAILED_PRECONDITION", "LOCKED", {"holder": "192.0.2.1:51234"}, (Violation("name", "no"),), 1.5)


@pytest.mark.parametrize("kind", dict.fromkeys([OperationServiceError, *REASONS.values()]))
def test_an_exception_comes_through_a_pool_of_processes_with_its_facts(kind: type[OperationServiceError]) -> None:
    error = kind("no", FACTS)
    error.may_have_been_carried_out = True
    again = pickle.loads(pickle.dumps(error))  # noqa: S301, its own
    assert type(again) is kind
    assert (str(again), again.message, again.facts, again.may_have_been_carried_out) == ("no", "no", FACTS, True)


def test_a_lost_lock_comes_through_a_pool_of_processes() -> None:
    error = LockLostError("demo/web-1", Loss.CANCELLED, 41)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301, its own
    assert type(again) is LockLostError
    assert (str(again), again.resource, again.loss, again.fencing_token) == (
        str(error),
        "demo/web-1",
        Loss.CANCELLED,
        41,
    )


def test_a_refusal_by_this_very_process_is_caught_as_any_other() -> None:
    assert issubclass(errors.HeldHereError, errors.LockedError)
