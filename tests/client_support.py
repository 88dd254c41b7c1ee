"""Words for the unit tests of the client: flows that are played by hand, and a clock that moves when it is pushed."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import Operation
from operation_service.client.errors import Facts, OperationServiceError, UnavailableError
from operation_service.client.flows import Answer, Flow, Open, Rest, Send, Step
from operation_service.client.session import Session
from operation_service.client.tenure import LostCallback, Tenure
from operation_service.client.terms import Terms

START = 1_000.0
"""What the clock shows at first, in seconds."""
SELF, OTHER = "peer-self", "peer-other"
FENCE = 41
TERMS = Terms("demo", "virtual_machines/web-1", 30, disable_cancel=False)
LOCKED = pb.OPERATION_STATE_LOCKED
EXPIRED = pb.OPERATION_STATE_EXPIRED


class PushedClock:
    """Stands still until it is pushed."""

    def __init__(self) -> None:
        self.seconds = START

    def __call__(self) -> float:
        return self.seconds

    def push(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass(frozen=True)
class After:
    """What a step brings, and how long that takes."""

    seconds: float
    brought: Any = None


@dataclass
class Played:
    """What a flow did.

    Attributes:
        steps: What it asked for, one after the other.
        result: What it returned.
        error: What it raised, if it did.
        is_ended: Whether it came to an end; otherwise it asked for more than the script has, as its last step.
    """

    steps: list[Step] = field(default_factory=list)
    result: Any = None
    error: BaseException | None = None
    is_ended: bool = True

    @property
    def sent(self) -> list[Any]:
        """The attempts at calls."""
        return [step for step in self.steps if isinstance(step, Send)]

    @property
    def opened(self) -> list[Any]:
        """The streams that it began."""
        return [step for step in self.steps if isinstance(step, Open)]

    @property
    def rests(self) -> list[float]:
        """How long it rested each time, in seconds."""
        return [step.seconds for step in self.steps if isinstance(step, Rest)]

    @property
    def shape(self) -> list[str]:
        """The kinds of its steps, attempts by the name of their call."""
        return [step.rpc.name if isinstance(step, Send) else type(step).__name__ for step in self.steps]


def play(flow: Flow[Any], clock: PushedClock, *script: Any) -> Played:
    """Run a flow: what each step brings stands in the script, an exception is thrown; rests push the clock."""
    played, left = Played(), list(script)
    try:
        step = next(flow)
        while True:
            played.steps.append(step)
            if isinstance(step, Rest):
                clock.push(step.seconds)
                step = flow.send(False)
                continue
            if not left:
                played.is_ended = False
                flow.close()
                return played
            brought = left.pop(0)
            if isinstance(brought, After):
                clock.push(brought.seconds)
                brought = brought.brought
            step = flow.throw(brought) if isinstance(brought, BaseException) else flow.send(brought)
    except StopIteration as end:
        played.result = end.value
    except OperationServiceError as error:
        played.error = error
    assert not left, f"the flow ended before it asked for {left}"
    return played


def play_without_answers(flow: Flow[Any], clock: PushedClock) -> Played:
    """Run a flow to its end: each attempt takes all its time and is not answered, each renewal takes 2 s and fails."""
    played = Played()
    try:
        step = next(flow)
        while len(played.steps) < 10_000:
            played.steps.append(step)
            if isinstance(step, Rest):
                clock.push(step.seconds)
                step = flow.send(False)
            else:
                clock.push(step.timeout if isinstance(step, Send) else 2.0)
                step = flow.throw(unanswered())
    except StopIteration as end:
        played.result = end.value
    except OperationServiceError as error:
        played.error = error
    else:
        raise AssertionError("the flow goes on for ever")
    return played


def a_session(clock: PushedClock, *, timeout: float = 10.0) -> Session:
    return Session(SELF, timeout, clock)


def a_tenure(
    clock: PushedClock, *, lock_for: int = 30, on_lost: LostCallback | None = None, sent_at: float | None = None
) -> Tenure:
    """A lock that was asked for just now, or when `sent_at` says."""
    terms = TERMS.changed(lock_for=lock_for, disable_cancel=None)
    return Tenure(terms, FENCE, clock() if sent_at is None else sent_at, clock=clock, on_lost=on_lost)


def failing(
    kind: type[OperationServiceError],
    *,
    is_unclear: bool = False,
    retry_after: float | None = None,
    **metadata: str,
) -> OperationServiceError:
    """Return an error as one attempt at a call raises it."""
    error = kind("no", Facts("UNKNOWN", "REASON", metadata, retry_after=retry_after))
    error.may_have_been_carried_out = is_unclear
    return error


def unanswered() -> OperationServiceError:
    """Return what an attempt raises whose outcome nobody knows."""
    return failing(UnavailableError, is_unclear=True)


def an_answer(message: Any = None, fencing_token: int = FENCE) -> Answer[Any]:
    return Answer(Operation() if message is None else message, fencing_token, 0.0)


def a_record(
    state: pb.OperationState.ValueType = LOCKED,
    *,
    name: str = TERMS.name,
    fencing_token: int = FENCE,
    remaining: float | None = None,
    token: str = SELF,
) -> pb.OperationRecord:
    left = None
    if remaining is not None:
        left = Duration()
        left.FromTimedelta(timedelta(seconds=remaining))
    return pb.OperationRecord(
        project=TERMS.project,
        name=name,
        state=state,
        operation=Operation(proposing_peer_token=token),
        fencing_token=fencing_token,
        remaining=left,
    )


def told(
    state: pb.OperationState.ValueType = LOCKED,
    *,
    revision: int = 0,
    remaining: float | None = None,
    name: str = TERMS.name,
    fencing_token: int = FENCE,
) -> pb.WatchOperationsResponse:
    """Return a message of a watch."""
    record = a_record(state, name=name, fencing_token=fencing_token, remaining=remaining)
    return pb.WatchOperationsResponse(operation=record, revision=revision)
