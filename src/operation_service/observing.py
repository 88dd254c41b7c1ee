"""Who sees calls: what is counted of them, and what is traced. Where nobody does, there is no observer and no cost."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Protocol

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc import StatusCode
from grpc.aio import AbortError

from operation_service.errors import OperationError
from operation_service.grpc_calls import RpcError
from operation_service.grpc_client import Answer, HeaderedCall
from operation_service.model import Command, Event, Record
from operation_service.status import TABLE
from operation_service.tallies import Tallies

_OK, _CANCELLED, _UNKNOWN, _EXHAUSTED = (
    code.value[0] for code in (StatusCode.OK, StatusCode.CANCELLED, StatusCode.UNKNOWN, StatusCode.RESOURCE_EXHAUSTED)
)
_refused_with: ContextVar[int] = ContextVar("_refused_with")
"""The code that the current call is refused with: gRPC's own context does not tell."""

Call = Callable[..., Awaitable[Any]]


def note_refusal(error: OperationError) -> None:
    """Note with what the current call is refused."""
    _refused_with.set(TABLE[type(error)][0].value[0])


def refused_code(otherwise: StatusCode) -> int:
    """Return the number of the code that the current call was refused with, or of another one, if nobody noted it."""
    return _refused_with.get(otherwise.value[0])


class Observer(Protocol):
    """Sees calls of callers (`wire.CallObserver`), and those of etcd (`etcd_members.EtcdObserver`)."""

    def call(self, method: MethodDescriptor, call: Call) -> Call:
        """Return what serves a call in place of what did so."""
        ...

    def behavior(self, method: MethodDescriptor, behavior: Call) -> Call:
        """Return what a servicer does in place of what it did."""
        ...

    def refused(self, error: OperationError) -> None:
        """See with what the current call is refused."""
        ...

    def etcd(self, path: str, address: str, call: HeaderedCall[Answer]) -> HeaderedCall[Answer]:
        """Return what calls etcd in place of what did so."""
        ...


class _Both:
    """Two observers, of which the second is nearer to who calls."""

    def __init__(self, inner: Observer, outer: Observer) -> None:
        self._inner = inner
        self._outer = outer

    def call(self, method: MethodDescriptor, call: Call) -> Call:
        return self._outer.call(method, self._inner.call(method, call))

    def behavior(self, method: MethodDescriptor, behavior: Call) -> Call:
        return self._outer.behavior(method, self._inner.behavior(method, behavior))

    def refused(self, error: OperationError) -> None:
        self._inner.refused(error)
        self._outer.refused(error)

    def etcd(self, path: str, address: str, call: HeaderedCall[Answer]) -> HeaderedCall[Answer]:
        return self._outer.etcd(path, address, self._inner.etcd(path, address, call))


def both(inner: Observer | None, outer: Observer | None) -> Observer | None:
    """Return what is both observers, as far as they are there."""
    if inner is None or outer is None:
        return inner or outer
    return _Both(inner, outer)


class Counting:
    """Counts calls, of callers and of etcd (`wire.CallObserver`, `etcd_members.EtcdObserver`).

    Args:
        tallies: Where.
    """

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies

    def call(self, method: MethodDescriptor, call: Call) -> Call:
        """Return a call that is counted, when it is over."""
        tally = self._tallies.calls[method.name]
        # What has not happened yet has happened 0 times: without it the first time would be no increase.
        tally.codes[_OK] = 0
        note, now = tally.note, time.perf_counter

        async def counted(requests: object, context: object) -> Any:  # noqa: ANN401, whatever the answer is
            began = now()
            try:
                answer = await call(requests, context)
            except asyncio.CancelledError:
                note(_CANCELLED, now() - began)
                raise
            except AbortError:
                # Without a word of `refused` it was a gate.
                note(refused_code(StatusCode.RESOURCE_EXHAUSTED), now() - began)
                raise
            except BaseException:
                note(_UNKNOWN, now() - began)
                raise
            note(_refused_with.get(_OK), now() - began)
            return answer

        return counted

    def behavior(self, _method: MethodDescriptor, behavior: Call) -> Call:
        """Leave it as it is."""
        return behavior

    def refused(self, error: OperationError) -> None:
        """Count a refusal."""
        self._tallies.refusals[TABLE[type(error)][1]] += 1
        note_refusal(error)

    def etcd(self, path: str, _address: str, call: HeaderedCall[Answer]) -> HeaderedCall[Answer]:
        """Return a call of etcd that is counted, when it is over."""
        tally = self._tallies.etcd[path.rpartition("/")[2]]
        for code in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED):
            tally.codes[code.value[0]] = 0
        note, now = tally.note, time.perf_counter

        async def counted(request: Message, *, timeout: float, headers: bytes = b"") -> Answer:  # noqa: ASYNC109, the call's own
            began = now()
            try:
                answer = await call(request, timeout=timeout, headers=headers)
            except RpcError as error:
                note(error.code.value[0], now() - began)
                raise
            except asyncio.CancelledError:
                note(_CANCELLED, now() - began)
                raise
            note(_OK, now() - began)
            return answer

        return counted

    def outcome(self, _command: Command, before: Record | None, record: Record, revision: int) -> None:
        """Count a change, and a takeover, if etcd has made it (`commits.OnOutcome`)."""
        if not revision:
            return
        self._tallies.changes[record.event] += 1
        if record.event is Event.LOCKED and before is not None and before.lock is not None and not before.phase.is_over:
            self._tallies.takeovers += 1
