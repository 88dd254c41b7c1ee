"""The requests of the changing calls, and the flow that sends them."""

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import Operation, ProposeOperationRequest
from operation_service.client.changed import Changed
from operation_service.client.flows import Flow, exchange
from operation_service.client.rpcs import Request, Rpc
from operation_service.client.session import Session
from operation_service.client.terms import Terms


def create(
    token: str,
    terms: Terms,
    operation_request: Message | None,
    log_message: str,
) -> pb.CreateOperationRequest:
    """Return a request to record an operation."""
    return pb.CreateOperationRequest(
        project=terms.project,
        name=terms.name,
        operation_request=None if operation_request is None else _packed(operation_request),
        log_message=log_message,
        lock_for_seconds=terms.lock_for,
        is_disabled_cancel=terms.disable_cancel,
        proposing_peer_token=token,
    )


def propose(token: str, terms: Terms, log_message: str = "") -> ProposeOperationRequest:
    """Return a request to take the lock, or to renew it."""
    return ProposeOperationRequest(
        project=terms.project,
        name=terms.name,
        lock_for_seconds=terms.lock_for,
        log_message=log_message,
        is_disabled_cancel=terms.disable_cancel,
        proposing_peer_token=token,
    )


def append(token: str, project: str, name: str, log_message: str) -> pb.AppendOperationLogRequest:
    """Return a request to add a line to the log."""
    return pb.AppendOperationLogRequest(project=project, name=name, log_message=log_message, proposing_peer_token=token)


def complete(
    token: str, project: str, name: str, *, error: Status | None, log_message: str
) -> pb.CompleteOperationRequest:
    """Return a request to end an operation; no error: it succeeded."""
    return pb.CompleteOperationRequest(
        project=project, name=name, log_message=log_message, error=error, proposing_peer_token=token
    )


def cancel(token: str, project: str, name: str, log_message: str) -> pb.CancelOperationRequest:
    """Return a request to cancel an operation."""
    return pb.CancelOperationRequest(project=project, name=name, log_message=log_message, proposing_peer_token=token)


def change(
    session: Session, rpc: Rpc[Request, Operation], request: Request, fencing_token: int | None
) -> Flow[Changed]:
    """Make a call that changes something.

    Raises:
        OperationServiceError: As the call failed.
    """
    answer = yield from exchange(rpc, request, session.patience(), fencing_token)
    return Changed(answer.message, answer.fencing_token)


def _packed(message: Message) -> AnyMessage:
    if isinstance(message, AnyMessage):
        return message
    packed = AnyMessage()
    packed.Pack(message)
    return packed
