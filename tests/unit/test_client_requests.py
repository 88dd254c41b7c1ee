"""What the client sends, and by which clock it measures."""

import sys
import time
from unittest.mock import Mock

import pytest
from client_support import FENCE, SELF, TERMS, PushedClock, a_session, a_tenure, an_answer, play
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.status_pb2 import Status

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import Operation, ProposeOperationRequest
from operation_service.client import clock as clocks
from operation_service.client import connection, requests, rpcs
from operation_service.client.changed import Changed
from operation_service.client.errors import LockLostError, Loss
from operation_service.client.held import Held
from operation_service.client.terms import Terms

PROJECT, NAME = TERMS.project, TERMS.name
DISABLED = Terms(PROJECT, NAME, 12, disable_cancel=True)
FAILURE = Status(code=13, message="no such disk")
PACKED = AnyMessage()
PACKED.Pack(Duration(seconds=3))

SENT = {
    "create": (
        requests.create(SELF, DISABLED, Duration(seconds=3), "a line"),
        pb.CreateOperationRequest(
            project=PROJECT,
            name=NAME,
            operation_request=PACKED,
            log_message="a line",
            lock_for_seconds=12,
            is_disabled_cancel=True,
            proposing_peer_token=SELF,
        ),
    ),
    "create, packed already": (
        requests.create(SELF, Terms(PROJECT, NAME, 0, disable_cancel=False), PACKED, ""),
        pb.CreateOperationRequest(project=PROJECT, name=NAME, operation_request=PACKED, proposing_peer_token=SELF),
    ),
    "create, nothing to carry out": (
        requests.create(SELF, Terms(PROJECT, NAME, 0, disable_cancel=False), None, ""),
        pb.CreateOperationRequest(project=PROJECT, name=NAME, proposing_peer_token=SELF),
    ),
    "propose": (
        requests.propose(SELF, DISABLED, "a line"),
        ProposeOperationRequest(
            project=PROJECT,
            name=NAME,
            lock_for_seconds=12,
            log_message="a line",
            is_disabled_cancel=True,
            proposing_peer_token=SELF,
        ),
    ),
    "append": (
        requests.append(SELF, PROJECT, NAME, "a line"),
        pb.AppendOperationLogRequest(project=PROJECT, name=NAME, log_message="a line", proposing_peer_token=SELF),
    ),
    "complete, succeeded": (
        requests.complete(SELF, PROJECT, NAME, error=None, log_message="done"),
        pb.CompleteOperationRequest(project=PROJECT, name=NAME, log_message="done", proposing_peer_token=SELF),
    ),
    "complete, failed": (
        requests.complete(SELF, PROJECT, NAME, error=FAILURE, log_message=""),
        pb.CompleteOperationRequest(project=PROJECT, name=NAME, error=FAILURE, proposing_peer_token=SELF),
    ),
    "cancel": (
        requests.cancel(SELF, PROJECT, NAME, "why"),
        pb.CancelOperationRequest(project=PROJECT, name=NAME, log_message="why", proposing_peer_token=SELF),
    ),
}


@pytest.mark.parametrize("call", SENT)
def test_what_is_asked_for_is_sent(call: str) -> None:
    made, expected = SENT[call]
    assert made == expected


def test_an_operation_without_a_request_has_none_and_not_an_empty_one() -> None:
    made = requests.create(SELF, TERMS, None, "")
    assert not made.HasField("operation_request")


def test_the_nine_rpcs_are_those_of_the_proto() -> None:
    ours = {
        rpc.name: (rpc.request.DESCRIPTOR.full_name, rpc.reply.DESCRIPTOR.full_name, rpc.path)
        for rpc in vars(rpcs).values()
        if isinstance(rpc, rpcs.Rpc)
    }
    service = pb.DESCRIPTOR.services_by_name["OperationService"]
    assert ours == {
        method.name: (method.input_type.full_name, method.output_type.full_name, f"/{service.full_name}/{method.name}")
        for method in service.methods
    }


def test_a_change_brings_the_operation_and_its_fencing_token() -> None:
    clock = PushedClock()
    request = requests.append(SELF, PROJECT, NAME, "a line")
    operation = Operation(proposing_peer_token=SELF)
    played = play(
        requests.change(a_session(clock), rpcs.APPEND, request, FENCE), clock, an_answer(operation, fencing_token=7)
    )
    assert played.result == Changed(operation, 7)
    assert [step.fencing_token for step in played.sent] == [FENCE]


@pytest.mark.parametrize(
    ("lock_for", "disable_cancel", "changed"),
    [
        (None, None, DISABLED),
        (7, None, Terms(PROJECT, NAME, 7, disable_cancel=True)),
        (None, False, Terms(PROJECT, NAME, 12, disable_cancel=False)),
        (0, True, Terms(PROJECT, NAME, 0, disable_cancel=True)),
    ],
)
def test_only_what_is_named_is_changed(lock_for: int | None, disable_cancel: bool | None, changed: Terms) -> None:
    assert DISABLED.changed(lock_for, disable_cancel) == changed


def test_a_fencing_token_goes_into_the_metadata_and_comes_out_of_it() -> None:
    target = connection.Target("127.0.0.1:1")
    assert target.metadata() == ()
    assert target.metadata(FENCE) == (("n0stack-fencing-token", "41"),)
    assert target.metadata(0) == (("n0stack-fencing-token", "0"),)
    assert connection.fencing_token_in((("other", "1"), *target.metadata(FENCE))) == FENCE
    assert connection.fencing_token_in(None) == connection.fencing_token_in(()) == 0


def test_the_callers_options_come_last() -> None:
    library = Mock()
    connection.Target("127.0.0.1:1", None, [("grpc.keepalive_time_ms", 60_000)]).open(library)
    (_, more) = library.insecure_channel.call_args
    assert more["options"][-1] == ("grpc.keepalive_time_ms", 60_000)
    assert ("grpc.keepalive_time_ms", 10_000) in more["options"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the time of a suspended machine")
def test_the_clock_goes_on_while_the_machine_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 7.0, time.CLOCK_MONOTONIC: 5.0}.get)
    assert clocks.boottime() == 7.0


def test_where_there_is_no_such_clock_it_is_the_monotonic_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "_BOOTTIME", None)
    before = time.monotonic()
    assert before <= clocks.boottime() <= time.monotonic()


def test_who_holds_has_all_that_is_known_in_hand() -> None:
    clock = PushedClock()
    proposed = Operation(logs=[Operation.Log(message="was here")], operation_request=PACKED)
    held = Held(a_tenure(clock, lock_for=30), proposed)
    assert (held.project, held.name, held.fencing_token) == (PROJECT, NAME, FENCE)
    assert [log.message for log in held.logs] == ["was here"]
    assert held.operation_request == PACKED
    assert held.remaining == pytest.approx(29.97)
    assert Held(a_tenure(clock), Operation()).operation_request is None


def test_the_fencing_token_of_a_lost_lock_is_not_given_out() -> None:
    clock = PushedClock()
    held = Held(a_tenure(clock, lock_for=30), Operation())
    clock.push(30)
    for use in (lambda: held.fencing_token, held.check):
        with pytest.raises(LockLostError) as caught:
            use()
        assert (caught.value.loss, caught.value.fencing_token) == (Loss.RAN_OUT, FENCE)
    assert held.remaining == 0
