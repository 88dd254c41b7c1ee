"""Tells which logs are new, from operations that each carry their newest 100."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import Operation
from operation_service.client import Client, RevisionCompactedError
from operation_service.model import LOGS_SHOWN
from operation_service.rows import OVER

_Log = tuple[int, int, str]


class Following:
    """Remembers the logs that were told of one operation.

    Args:
        told: Those that were told already, oldest first.
    """

    def __init__(self, told: Iterable[Operation.Log] = ()) -> None:
        self._told = [_key(log) for log in told]

    def new(self, logs: Sequence[Operation.Log]) -> list[Operation.Log]:
        """Return those of the newest logs that were not told yet, oldest first.

        What was told last is looked for at their beginning. Where nothing of it is there, all are new: a new operation
        has begun.
        """
        now = [_key(log) for log in logs]
        known = next(
            (size for size in range(min(len(self._told), len(now)), 0, -1) if self._told[-size:] == now[:size]), 0
        )
        self._told = now
        return list(logs[known:])


def _key(log: Operation.Log) -> _Log:
    return log.ts.seconds, log.ts.nanos, log.message


def log_lines(client: Client, project: str, name: str, *, is_following: bool) -> Iterator[Operation.Log]:
    """Yield the logs of an operation, oldest first.

    Args:
        client: A client of the service.
        project: The resource's project.
        name: The resource's name.
        is_following: Whether to go on with new ones until the operation is over.

    Raises:
        OperationServiceError: What the service says.
    """
    told: deque[Operation.Log] = deque(maxlen=LOGS_SHOWN)
    for log in client.logs(project, name):
        told.append(log)
        yield log
    if not is_following:
        return
    following = Following(told)
    for change in changes_to_now(client, project, name):
        if change.operation.name != name:
            continue
        yield from following.new(change.operation.operation.logs)
        if change.operation.state in OVER:
            return


def changes_to_now(client: Client, project: str, prefix: str) -> Iterator[pb.WatchOperationsResponse]:
    """Yield what is there and every change after it, for whoever wants to know how things are now.

    After an interruption that was too long for etcd's history it begins with what is there again.
    """
    while True:
        try:
            yield from client.watch(project, name_prefix=prefix)
        except RevisionCompactedError:
            continue
        return
