"""The requests of the benchmark, serialized, in hexadecimal, as a `Plan` has them."""

from etcd3 import etcdrpc
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest

from benchmarks.load import NUMBER
from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import ProposeOperationRequest

SERVICE = "/n0stack.operation.v1alpha.OperationService/"
HEALTH = "/grpc.health.v1.Health/Check"
TXN = "/etcdserverpb.KV/Txn"

HOLDER, OTHER = "holder", "somebody-else"
NUMBERED = f"locks/{NUMBER.decode()}"
"""A name of its own for each call."""
DAY = 86_400
_VALUE_BYTES = 200
"""About what the service writes for a lock and its record."""


def _hex(message: Message) -> str:
    return message.SerializeToString().hex()


def place(number: int) -> str:
    """Name the resource of one of the calls in flight."""
    return f"places/{number}"


def propose(project: str, name: str, token: str = HOLDER, log_message: str = "begun") -> str:
    """Ask for a lock of a day."""
    request = ProposeOperationRequest(
        project=project, name=name, lock_for_seconds=DAY, proposing_peer_token=token, log_message=log_message
    )
    return _hex(request)


def append(project: str, name: str) -> str:
    """Write a line of log."""
    request = pb.AppendOperationLogRequest(
        project=project, name=name, proposing_peer_token=HOLDER, log_message="a step of what is being done"
    )
    return _hex(request)


def complete(project: str, name: str) -> str:
    """Say that it is done."""
    return _hex(pb.CompleteOperationRequest(project=project, name=name, proposing_peer_token=HOLDER))


def get(project: str, name: str) -> str:
    """Ask how an operation is."""
    return _hex(pb.GetOperationRequest(project=project, name=name))


def page(project: str, page_token: str, page_size: int = 100) -> str:
    """Ask for a page of a list."""
    return _hex(pb.ListOperationsRequest(project=project, page_size=page_size, page_token=page_token))


def watch(project: str) -> str:
    """Ask to be told of all changes in a project."""
    return _hex(pb.WatchOperationsRequest(project=project))


def health() -> str:
    """Ask whether the server serves."""
    return _hex(HealthCheckRequest())


def two_puts() -> str:
    """Write two keys of etcd in one transaction, as an acquisition does."""
    puts = [
        etcdrpc.PutRequest(key=b"/bench/%b/%b" % (NUMBER, part), value=b"x" * _VALUE_BYTES)
        for part in (b"lock", b"record")
    ]
    return _hex(etcdrpc.TxnRequest(success=[etcdrpc.RequestOp(request_put=put) for put in puts]))
