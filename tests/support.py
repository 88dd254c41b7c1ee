"""What tests call the service with: a peer with short words for the nine RPCs, and errors with their facts."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.operation.v1alpha.operation_service_pb2_grpc import OperationServiceStub
from n0stack.protobuf.operation_pb2 import Operation, ProposeOperationRequest

PROJECT = "project"
NAME = "virtual_machines/web-1"
FENCING_TOKEN = "n0stack-fencing-token"


class TestClock:
    """The machine's clocks, which a test can push."""

    __test__ = False

    def __init__(self) -> None:
        self.offset = timedelta()
        self.passed = 0.0

    def push(self, **delta: float) -> None:
        """Push the wall clock, as timedelta takes it: push(hours=1)."""
        self.offset += timedelta(**delta)

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass on both clocks, for the service alone: to it etcd's leases then last too long."""
        self.passed += seconds

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return time.monotonic() + self.passed


def shutdown_request(*, hard: bool = True) -> AnyMessage:
    """A ShutdownVirtualMachineRequest, as bytes: the tests know the type no more than the service does."""
    value = b"\n\x05web-1\x12\x07project" + (b"\x18\x01" if hard else b"")
    return AnyMessage(type_url="type.googleapis.com/n0stack.infra.v1alpha.ShutdownVirtualMachineRequest", value=value)


@dataclass(frozen=True)
class Refusal:
    """What a call was refused with."""

    code: grpc.StatusCode
    message: str
    info: ErrorInfo
    violations: dict[str, str] = field(default_factory=dict)
    retry_seconds: float | None = None

    @property
    def reason(self) -> str:
        return self.info.reason

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self.info.metadata)


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """Take an error apart; every one has to carry an ErrorInfo of the right domain."""
    trailers = dict(error.trailing_metadata() or ())
    status = Status.FromString(trailers["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    refusal = Refusal(error.code(), error.details() or "", ErrorInfo())
    for detail in status.details:
        if detail.Unpack(refusal.info):
            continue
        bad, retry = BadRequest(), RetryInfo()
        if detail.Unpack(bad):
            refusal = replace(refusal, violations={v.field: v.description for v in bad.field_violations})
        elif detail.Unpack(retry):
            refusal = replace(refusal, retry_seconds=retry.retry_delay.ToTimedelta().total_seconds())
    assert refusal.info.domain == "operation.n0stack"
    return refusal


async def refused(call: Awaitable[object]) -> Refusal:
    """Await a call that has to fail, and return with what."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError(f"was not refused, but answered {answer}")


class Peer:
    """A caller with a token of its own."""

    def __init__(self, channel: grpc.aio.Channel, token: str = "peer-a") -> None:
        self.channel = channel
        self.stub: Any = OperationServiceStub(channel)
        self.token = token
        self.fencing_token: int | None = None
        self.timeout = 20.0

    def named(self, token: str) -> "Peer":
        """Another peer on the same connection."""
        return Peer(self.channel, token)

    async def call(self, rpc: str, request: Message, *, fence: object = None) -> Any:
        """Make a call; the fencing token that comes back stays in `fencing_token`."""
        metadata = () if fence is None else ((FENCING_TOKEN, str(fence)),)
        call = getattr(self.stub, rpc)(request, timeout=self.timeout, metadata=metadata)
        answer = await call
        trailers = dict(await call.trailing_metadata())
        self.fencing_token = int(trailers[FENCING_TOKEN]) if FENCING_TOKEN in trailers else None
        return answer

    async def create(self, name: str = NAME, *, fence: object = None, **fields: Any) -> Operation:
        values: dict[str, Any] = {
            "project": PROJECT,
            "operation_request": shutdown_request(),
            "proposing_peer_token": self.token,
        }
        request = pb.CreateOperationRequest(name=name, **(values | fields))
        answer: Operation = await self.call("CreateOperation", request, fence=fence)
        return answer

    async def propose(self, name: str = NAME, *, fence: object = None, **fields: Any) -> Operation:
        values: dict[str, Any] = {"project": PROJECT, "lock_for_seconds": 30, "proposing_peer_token": self.token}
        request = ProposeOperationRequest(name=name, **(values | fields))
        answer: Operation = await self.call("ProposeOperation", request, fence=fence)
        return answer

    async def append(
        self,
        message: str = "a step",
        name: str = NAME,
        *,
        fence: object = None,
        **fields: Any,
    ) -> Operation:
        values: dict[str, Any] = {"project": PROJECT, "log_message": message, "proposing_peer_token": self.token}
        request = pb.AppendOperationLogRequest(name=name, **(values | fields))
        answer: Operation = await self.call("AppendOperationLog", request, fence=fence)
        return answer

    async def complete(self, name: str = NAME, *, fence: object = None, **fields: Any) -> Operation:
        values: dict[str, Any] = {"project": PROJECT, "proposing_peer_token": self.token}
        request = pb.CompleteOperationRequest(name=name, **(values | fields))
        answer: Operation = await self.call("CompleteOperation", request, fence=fence)
        return answer

    async def cancel(self, name: str = NAME, *, fence: object = None, **fields: Any) -> Operation:
        values: dict[str, Any] = {"project": PROJECT, "proposing_peer_token": self.token}
        request = pb.CancelOperationRequest(name=name, **(values | fields))
        answer: Operation = await self.call("CancelOperation", request, fence=fence)
        return answer

    async def get(self, name: str = NAME, project: str = PROJECT) -> pb.OperationRecord:
        answer: pb.OperationRecord = await self.call("GetOperation", pb.GetOperationRequest(project=project, name=name))
        return answer

    async def list(self, **fields: Any) -> pb.ListOperationsResponse:
        answer: pb.ListOperationsResponse = await self.call("ListOperations", pb.ListOperationsRequest(**fields))
        return answer

    async def logs(self, name: str = NAME, **fields: Any) -> pb.ListOperationLogsResponse:
        request = pb.ListOperationLogsRequest(**({"project": PROJECT, "name": name} | fields))
        answer: pb.ListOperationLogsResponse = await self.call("ListOperationLogs", request)
        return answer

    def watch(self, **fields: Any) -> Any:
        """Begin a watch; `await call.read()` brings the next message."""
        return self.stub.WatchOperations(pb.WatchOperationsRequest(**fields), timeout=self.timeout)

    async def watching(self, **fields: Any) -> Any:
        """Begin a watch, and wait until it stands: what happens from now on is told."""
        watch = self.watch(**fields)
        await watch.initial_metadata()
        return watch

    async def state(self, name: str = NAME) -> str:
        """The state by its short name."""
        return state_name((await self.get(name)).state)


def state_name(state: int) -> str:
    """OPERATION_STATE_LOCKED is LOCKED."""
    return pb.OperationState.Name(pb.OperationState.ValueType(state)).removeprefix("OPERATION_STATE_")


def event_name(event: int) -> str:
    """OPERATION_EVENT_LOCKED is LOCKED."""
    return pb.OperationEvent.Name(pb.OperationEvent.ValueType(event)).removeprefix("OPERATION_EVENT_")


def messages(operation: Operation | pb.ListOperationLogsResponse) -> Sequence[str]:
    """The log messages of an operation, or of a page."""
    return [log.message for log in operation.logs]


@contextlib.asynccontextmanager
async def connected(address: str, token: str = "peer-a") -> AsyncIterator[Peer]:
    """Connect a peer to a service."""
    async with grpc.aio.insecure_channel(address) as channel:
        yield Peer(channel, token)
