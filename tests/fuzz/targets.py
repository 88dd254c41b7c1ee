"""What the bad requests are aimed at: every method that the service has, and requests that would be right."""

from dataclasses import dataclass
from random import Random

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from support import shutdown_request

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import ProposeOperationRequest

PREFIX = b"/n0stack.operation.v1alpha.OperationService/"
SCRATCH_PROJECT = "scratch"
KEPT_PROJECT = "kept"
PENDING, LOCKED, EXPIRED, SUCCEEDED = "vms/pending", "vms/locked", "vms/expired", "vms/succeeded"
INTRUDER = "intruder"

_HARMLESS = {
    "CreateOperation": (PENDING, LOCKED, EXPIRED),
    "ProposeOperation": (LOCKED,),
    "AppendOperationLog": (PENDING, LOCKED, EXPIRED, SUCCEEDED),
    "CompleteOperation": (PENDING, LOCKED, EXPIRED, SUCCEEDED),
    "CancelOperation": (LOCKED, SUCCEEDED),
}
"""The kept operations that a right request of an intruder must not change: every one of these is refused."""

_REQUESTS: dict[str, type[Message]] = {
    "CreateOperation": pb.CreateOperationRequest,
    "ProposeOperation": ProposeOperationRequest,
    "AppendOperationLog": pb.AppendOperationLogRequest,
    "CompleteOperation": pb.CompleteOperationRequest,
    "CancelOperation": pb.CancelOperationRequest,
    "GetOperation": pb.GetOperationRequest,
    "ListOperations": pb.ListOperationsRequest,
    "ListOperationLogs": pb.ListOperationLogsRequest,
    "WatchOperations": pb.WatchOperationsRequest,
}


@dataclass(frozen=True)
class Method:
    """One rpc."""

    path: bytes
    request_class: type[Message]

    @property
    def rpc(self) -> str:
        return self.path.rpartition(b"/")[2].decode()


METHODS = [Method(PREFIX + rpc.encode(), request) for rpc, request in _REQUESTS.items()] + [
    Method(b"/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest),
    Method(b"/grpc.health.v1.Health/Watch", health_pb2.HealthCheckRequest),
    Method(b"/grpc.health.v1.Health/List", health_pb2.HealthCheckRequest),
    Method(b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", ServerReflectionRequest),
    Method(b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", ServerReflectionRequest),
]


def right_request(method: Method, rng: Random, *, is_kept: bool | None = None) -> Message:
    """A request that the service would answer. `is_kept`: about a kept operation, which it must not change."""
    if method.request_class is ServerReflectionRequest:
        return _reflection(rng)
    request = method.request_class()
    if "project" not in request.DESCRIPTOR.fields_by_name:
        return health_pb2.HealthCheckRequest(service=rng.choice(["", "nonsense"]))
    names = request.DESCRIPTOR.fields_by_name
    kept = rng.random() < 0.5 if is_kept is None else is_kept
    values: dict[str, object] = {"project": KEPT_PROJECT if kept else SCRATCH_PROJECT}
    if "name" in names:
        harmless = _HARMLESS.get(method.rpc, (PENDING, LOCKED, EXPIRED, SUCCEEDED))
        values["name"] = rng.choice(harmless) if kept else f"vms/{rng.randrange(200)}"
    if "name_prefix" in names:
        values["name_prefix"] = rng.choice(["", "vms/"])
    if "proposing_peer_token" in names:
        values |= {"proposing_peer_token": INTRUDER, "log_message": "a log of the fuzz run"}
    if "lock_for_seconds" in names:
        values |= {"lock_for_seconds": rng.randrange(1, 10), "is_disabled_cancel": rng.random() < 0.3}
    if "operation_request" in names:
        values["operation_request"] = shutdown_request(hard=rng.random() < 0.5)
    if "error" in names and rng.random() < 0.5:
        values["error"] = Status(code=rng.randrange(1, 17), message="failed", details=[AnyMessage(type_url="a/b.C")])
    if "page_size" in names:
        values["page_size"] = rng.randrange(1, 20)
    return method.request_class(**values)


def _reflection(rng: Random) -> Message:
    request = ServerReflectionRequest(host="localhost")
    match rng.randrange(5):
        case 0:
            request.list_services = ""
        case 1:
            request.file_by_filename = "n0stack/protobuf/operation.proto"
        case 2:
            request.file_containing_symbol = "n0stack.protobuf.Operation"
        case 3:
            request.file_containing_extension.containing_type = "google.protobuf.FieldOptions"
            request.file_containing_extension.extension_number = rng.randrange(1, 2000)
        case _:
            request.all_extension_numbers_of_type = "n0stack.protobuf.Operation"
    return request
