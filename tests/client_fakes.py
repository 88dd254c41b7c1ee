"""A service of one resource without a network: what the clients' channels are replaced with in unit tests."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import Operation
from operation_service.client import rpcs
from operation_service.client.aio import AsyncChannel
from operation_service.client.blocking import Channel
from operation_service.client.connection import FENCING_TOKEN, Target
from operation_service.client.translation import DOMAIN

DETAILS = "grpc-status-details-bin"


class CallError(grpc.RpcError, grpc.Call):
    """What a call of `grpc` raises: an error that is the call too."""

    def __init__(self, code: grpc.StatusCode, message: str | None, trailers: Any) -> None:
        self._code, self._message, self._trailers = code, message, trailers

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:  # type: ignore[override] # gRPC really returns None at times
        return self._message

    def trailing_metadata(self) -> Any:
        return self._trailers

    def initial_metadata(self) -> Any: ...
    def is_active(self) -> bool: ...  # type: ignore[empty-body]
    def time_remaining(self) -> float: ...  # type: ignore[empty-body]
    def cancel(self) -> bool: ...  # type: ignore[empty-body]
    def add_callback(self, callback: Any) -> bool: ...  # type: ignore[empty-body]


def refusal(reason: str) -> CallError:
    info = AnyMessage()
    info.Pack(ErrorInfo(reason=reason, domain=DOMAIN))
    trailers = ((DETAILS, Status(details=[info]).SerializeToString()),)
    return CallError(grpc.StatusCode.FAILED_PRECONDITION, reason, trailers)


class FakeService:
    """One resource, its lock, and all the calls that came.

    Attributes:
        calls: The name and the request of each.
        before: Called with each RPC's name before it is carried out; what it raises is the answer.
        after: The same, when it was.
    """

    def __init__(self) -> None:
        self.state = pb.OPERATION_STATE_UNSPECIFIED
        self.token = ""
        self.fencing_token = 0
        self.lock_for = 0
        self.error: Status | None = None
        self.calls: list[tuple[str, Any]] = []
        self.before: Callable[[str], None] = lambda _: None
        self.after: Callable[[str], None] = lambda _: None

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def carry_out(self, name: str, request: Any, metadata: Any) -> tuple[Any, Any]:
        self.before(name)
        self.calls.append((name, request))
        fence = dict(metadata or ()).get(FENCING_TOKEN)
        is_locked = self.state == pb.OPERATION_STATE_LOCKED
        if fence is not None and (not is_locked or int(fence) != self.fencing_token):
            raise refusal("FENCING_TOKEN_MISMATCH")
        answer = self._answer(name, request, is_locked=is_locked)
        self.after(name)
        return answer, ((FENCING_TOKEN, str(self.fencing_token)),)

    def _answer(self, name: str, request: Any, *, is_locked: bool) -> Any:
        if name == rpcs.PROPOSE.name:
            if is_locked and self.token != request.proposing_peer_token:
                raise refusal("LOCKED")
            self.fencing_token += not is_locked
            self.state, self.token = pb.OPERATION_STATE_LOCKED, request.proposing_peer_token
            self.lock_for = request.lock_for_seconds
        elif name == rpcs.COMPLETE.name:
            self.error = request.error if request.HasField("error") else None
            self.state = pb.OPERATION_STATE_FAILED if self.error else pb.OPERATION_STATE_SUCCEEDED
        elif name == rpcs.GET.name:
            return pb.OperationRecord(
                name=request.name,
                state=self.state,
                fencing_token=self.fencing_token,
                operation=Operation(proposing_peer_token=self.token),
            )
        return Operation(proposing_peer_token=self.token)


class _Call:
    """A call that is answered, or refused, when its result is asked for."""

    def __init__(self, carry_out: Callable[[], tuple[Any, Any]]) -> None:
        self._carry_out = carry_out
        self._trailers: Any = ()

    def result(self) -> Any:
        message, self._trailers = self._carry_out()
        return message

    def trailing_metadata(self) -> Any:
        return self._trailers

    def cancel(self) -> None: ...


class _Unary:
    def __init__(self, service: FakeService, name: str) -> None:
        self._service, self._name = service, name

    def future(self, request: Any, *, timeout: float, metadata: Any) -> _Call:
        assert timeout > 0
        return _Call(lambda: self._service.carry_out(self._name, request, metadata))


class _Silent(Iterator[Any]):
    """A stream that tells nothing until it is cancelled."""

    def __init__(self) -> None:
        self._is_over = threading.Event()

    def initial_metadata(self) -> tuple[()]:
        return ()

    def is_active(self) -> bool:
        return not self._is_over.is_set()

    def cancel(self) -> None:
        self._is_over.set()

    def __next__(self) -> Any:
        self._is_over.wait()
        raise CallError(grpc.StatusCode.CANCELLED, "", ())


class FakeChannel(Channel):
    """Leads to a fake service."""

    def __init__(self, service: FakeService) -> None:
        super().__init__(Target("nowhere", None, ()))
        self._service = service

    def unary(self, rpc: Any) -> _Unary:
        return _Unary(self._service, rpc.name)

    def stream(self, rpc: Any) -> Callable[..., _Silent]:
        assert rpc is rpcs.WATCH
        return lambda *_, **__: _Silent()


class _AsyncUnary:
    def __init__(self, service: FakeService, name: str, request: Any, metadata: Any) -> None:
        self._what = service, name, request, metadata
        self._trailers: Any = ()

    async def _carry_out(self) -> Any:
        service, name, request, metadata = self._what
        await asyncio.sleep(0)
        message, self._trailers = service.carry_out(name, request, metadata)
        await asyncio.sleep(0)
        return message

    def __await__(self) -> Any:
        return self._carry_out().__await__()

    async def trailing_metadata(self) -> Any:
        return self._trailers


class _AsyncSilent:
    def __init__(self) -> None:
        self._is_over = asyncio.Event()

    async def initial_metadata(self) -> tuple[()]:
        return ()

    async def read(self) -> Any:
        with suppress(asyncio.CancelledError):
            await self._is_over.wait()
        raise asyncio.CancelledError

    def done(self) -> bool:
        return self._is_over.is_set()

    def cancel(self) -> None:
        self._is_over.set()


class FakeAsyncChannel(AsyncChannel):
    """Leads to a fake service."""

    def __init__(self, service: FakeService) -> None:
        super().__init__(Target("nowhere", None, ()))
        self._service = service

    def unary(self, rpc: Any) -> Callable[..., _AsyncUnary]:
        return lambda request, *, timeout, metadata: _AsyncUnary(self._service, rpc.name, request, metadata)  # noqa: ARG005

    def stream(self, rpc: Any) -> Callable[..., _AsyncSilent]:
        assert rpc is rpcs.WATCH
        return lambda *_, **__: _AsyncSilent()
