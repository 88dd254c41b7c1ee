"""Binds the servicer's methods to the wire, so that every failure leaves as section 5 of the contract says.

The generated registration parses requests where nobody can catch a failure: gRPC answers wrong UTF-8 with INTERNAL and
writes a traceback. Here a request that cannot be parsed reaches the method's wrapper as what is wrong with it.

All methods are bound as if requests were streams: so a call passes its gate, and its caller is known, before its
request is read; and one that ends without a request is answered, of which gRPC would tell a method that takes one
request nothing at all. On the wire that is the same. A call counts until its answer is on its way.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from n0stack.operation.v1alpha.operation_service_pb2 import CompleteOperationRequest
from operation_service import weights
from operation_service.access import Access, Door
from operation_service.admission import Admission, FullError
from operation_service.bounds import Bounds
from operation_service.delivery import Answer, CallerGoneError, Delivery, NotReadError
from operation_service.errors import (
    InvalidRequestError,
    OperationError,
    RoleRequiredError,
    UnauthenticatedError,
    UnforeseenError,
    Violation,
)
from operation_service.identities import NOBODY, Identity
from operation_service.request_parsing import Shorten, parser
from operation_service.status import to_status

_log = logging.getLogger(__name__)

_REQUEST_SECONDS = 10.0
"""For a request to arrive, 270 KiB at most, once its call has."""
_ANSWER_SECONDS = 5.0
"""For an answer to be read, before the call gives up its place."""

Context = grpc.aio.ServicerContext[Any, Any]
Request = Message | OperationError


class _NotLetInError(Exception):
    """A call that is refused for who its caller is: it gives up its place first, or strangers could keep all of them.

    Attributes:
        error: Why.
        status: What it is told.
    """

    def __init__(self, error: OperationError, **facts: str) -> None:
        super().__init__(error.message)
        self.error = error
        self.status = to_status(error, **facts)


class CallObserver(Protocol):
    """Sees calls (`observing.py`)."""

    def call(self, method: MethodDescriptor, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Return what serves a call in place of what did so, from its arrival on."""
        ...

    def behavior(
        self, method: MethodDescriptor, behavior: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        """Return what a servicer does in place of what it did, given a request and what else comes with it."""
        ...

    def refused(self, error: OperationError) -> None:
        """See with what the current call is refused."""
        ...


class Around(NamedTuple):
    """What is around the methods of a service.

    Attributes:
        delivery: Writes.
        admission: Says how many calls may be served at once.
        shorten: Makes of a request that was parsed what is kept of it. None: all of it is.
        observer: Sees every call, if anybody does.
        access: Says who may call, and what; the servicer's methods are given the permit too. None: everybody may call.
    """

    delivery: Delivery
    admission: Admission
    shorten: Shorten | None = None
    observer: CallObserver | None = None
    access: Access | None = None


def handlers(
    service: ServiceDescriptor, servicer: object, around: Around
) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
    """Return the handlers of a service, by the names of its rpcs.

    Args:
        service: The service's descriptor.
        servicer: Has an async method by the name of each rpc, which writes by itself if it answers with a stream.
        around: What is around them.
    """
    return {
        method.name: _handler(method, _Method(method, getattr(servicer, method.name), around), around)
        for method in service.methods
    }


def _handler(method: MethodDescriptor, served: "_Method", around: Around) -> "grpc.RpcMethodHandler[Any, Any]":
    parse = parser(GetMessageClass(method.input_type), around.shorten)
    call: Callable[..., Any] = served.stream if method.server_streaming else served.answer
    if around.observer is not None:
        call = around.observer.call(method, call)
    # What is written, or returned to be written, is serialized already (delivery.py).
    if method.server_streaming:
        return grpc.stream_stream_rpc_method_handler(call, request_deserializer=parse)
    return grpc.stream_unary_rpc_method_handler(call, request_deserializer=parse)


class _Method:
    """Serves the calls of one rpc."""

    def __init__(self, method: MethodDescriptor, behavior: Callable[..., Awaitable[Any]], around: Around) -> None:
        self._delivery = around.delivery
        self._gate = around.admission.watches if method.server_streaming else around.admission.calls
        self._observer = observer = around.observer
        self._behavior = behavior if observer is None else observer.behavior(method, behavior)
        self._door = Door(around.access, method.name) if around.access is not None else None
        # An error is waited for like an answer; that of a stream for as long as the caller likes.
        self._patience = None if method.server_streaming else _ANSWER_SECONDS
        self._bounds = Bounds()

    async def stream(self, _requests: object, context: Context) -> None:
        """Serve a call that answers with a stream."""
        try:
            with self._gate.place():
                caller, request = await self._arrival(context)
                with self._gate.room(_weight(request)):
                    await self._serve(request, context, caller)
        except (NotReadError, CallerGoneError):
            pass
        except (FullError, _NotLetInError) as refused:
            await self._turn_away(refused, context)

    async def answer(self, _requests: object, context: Context) -> bytes:
        """Serve a call that answers with one message."""
        leave: Callable[[], None] | None = None
        request: Request | None = None
        try:
            self._gate.enter()
            leave = self._gate.leave
            caller, request = await self._arrival(context)
            with self._gate.room(_weight(request)):
                answer = await self._serve(request, context, caller)
            request = None
            if answer is not None:
                data = self._delivery.hand_over(answer, _ANSWER_SECONDS, leave)
                leave = None
                return data
        except CallerGoneError:
            pass
        except (FullError, _NotLetInError) as refused:
            # Until that is read it holds nothing, nor its request, which the frames of its traceback have too.
            request = refused.__traceback__ = None
            if leave is not None:
                leave()
                leave = None
            await self._turn_away(refused, context)
        finally:
            if leave is not None:
                leave()
        # Its error is on its way, or there is nobody to read this.
        return b""

    async def _arrival(self, context: Context) -> tuple[Identity, Request]:
        """Find out who calls, and only then wait for the request."""
        caller = NOBODY if self._door is None else self._door.caller(context)
        if isinstance(caller, OperationError):
            raise _NotLetInError(caller)
        try:
            with self._bounds.within(_REQUEST_SECONDS):
                request: Any = await context.read()
        except TimeoutError:
            request = InvalidRequestError(
                [Violation("", f"the request did not arrive within {_REQUEST_SECONDS:.0f} s")]
            )
        if request is grpc.aio.EOF:
            # It is the same when the caller has gone. Then the call is cancelled now, and nobody need be told.
            await asyncio.sleep(0)
            request = InvalidRequestError([Violation("", "the call ended before there was a whole request in it")])
        return caller, request

    async def _serve(self, request: Any, context: Context, caller: Identity) -> Answer | None:  # noqa: ANN401, any request
        """Tell errors as section 5 of the contract says."""
        if isinstance(request, OperationError):
            # Not raised: it would be held by the frames that its own traceback holds, and the call with them.
            await self._refuse(request, request, context)
            return None
        try:
            if self._door is None:
                return await self._behavior(request, context)  # type: ignore[no-any-return]
            return await self._behavior(request, context, self._door.permit(caller, request))  # type: ignore[no-any-return]
        except (RoleRequiredError, UnauthenticatedError) as error:
            raise _NotLetInError(error, **_facts(request)) from None
        except OperationError as error:
            # As above.
            error.__traceback__ = None
            await self._refuse(error, request, context)
        except grpc.aio.InternalError as error:
            raise CallerGoneError from error
        except (grpc.aio.AbortError, CallerGoneError):
            raise
        except Exception:  # noqa: BLE001, the last resort, which logs and tells
            _log.exception("a call failed in a way that nobody has foreseen")
            await self._refuse(UnforeseenError(), request, context)
        return None

    async def _refuse(self, error: OperationError, request: Request, context: Context) -> None:
        if self._observer is not None:
            self._observer.refused(error)
        await self._delivery.abort(context, to_status(error, **_facts(request)), self._patience)

    async def _turn_away(self, refused: FullError | _NotLetInError, context: Context) -> None:
        if self._observer is not None and isinstance(refused, _NotLetInError):
            self._observer.refused(refused.error)
        await self._delivery.refuse(context, refused.status)


def _facts(request: object) -> dict[str, str]:
    return {"project": getattr(request, "project", ""), "name": getattr(request, "name", "")}


def _weight(request: Request) -> int:
    """Return about how many bytes a request takes in memory."""
    if isinstance(request, OperationError):
        return 0
    details = len(request.error.details) if isinstance(request, CompleteOperationRequest) else 0
    return request.ByteSize() + weights.DETAIL * details
