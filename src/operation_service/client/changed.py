"""What a call that changes something brings."""

from dataclasses import dataclass

from n0stack.protobuf.operation_pb2 import Operation


@dataclass(frozen=True, slots=True)
class Changed:
    """An operation after a change.

    Attributes:
        operation: The operation, with its newest 100 logs.
        fencing_token: The fencing token of the operation's latest lock. 0: it was never locked.
    """

    operation: Operation
    fencing_token: int
