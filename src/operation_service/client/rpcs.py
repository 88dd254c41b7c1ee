"""The nine RPCs as data: their types, and when sending one again is safe."""

from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from google.protobuf.message import Message

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import Operation, ProposeOperationRequest

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)

_SERVICE = "n0stack.operation.v1alpha.OperationService"


class Repeat(Enum):
    """When a call that failed may be sent again."""

    ALWAYS = "always"
    """Doing it twice is as doing it once."""
    IF_UNCHANGED = "if unchanged"
    """Only when the error says that nothing was changed."""


@dataclass(frozen=True, slots=True)
class Rpc(Generic[Request, Reply]):
    """One RPC.

    Attributes:
        name: Its name in the proto.
        request: The type of its request.
        reply: The type of its answer, or of each message of its stream.
        repeat: When sending it again is safe.
    """

    name: str
    request: type[Request]
    reply: type[Reply]
    repeat: Repeat

    @property
    def path(self) -> str:
        """The RPC's path on the wire."""
        return f"/{_SERVICE}/{self.name}"


GET = Rpc("GetOperation", pb.GetOperationRequest, pb.OperationRecord, Repeat.ALWAYS)
LIST = Rpc("ListOperations", pb.ListOperationsRequest, pb.ListOperationsResponse, Repeat.ALWAYS)
LOGS = Rpc("ListOperationLogs", pb.ListOperationLogsRequest, pb.ListOperationLogsResponse, Repeat.ALWAYS)
WATCH = Rpc("WatchOperations", pb.WatchOperationsRequest, pb.WatchOperationsResponse, Repeat.ALWAYS)

# CONTRACT rule 6: the same token and the same request answer OK and change nothing.
CREATE = Rpc("CreateOperation", pb.CreateOperationRequest, Operation, Repeat.ALWAYS)
# CONTRACT rules 2 and 13: the second is a renewal of the lock that the first took.
PROPOSE = Rpc("ProposeOperation", ProposeOperationRequest, Operation, Repeat.ALWAYS)
# CONTRACT rule 8: what the token has completed answers OK, also with the fencing token of the lock that it ended.
COMPLETE = Rpc("CompleteOperation", pb.CompleteOperationRequest, Operation, Repeat.ALWAYS)
# A second one would write the line twice.
APPEND = Rpc("AppendOperationLog", pb.AppendOperationLogRequest, Operation, Repeat.IF_UNCHANGED)
# A second one could meet another operation, which nobody wanted cancelled.
CANCEL = Rpc("CancelOperation", pb.CancelOperationRequest, Operation, Repeat.IF_UNCHANGED)
