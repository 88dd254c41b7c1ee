"""Spans: one for each call of a caller, and below it one for each call of etcd that it waits for.

A caller's `traceparent` is continued, and etcd is sent one in turn. What leaves together with the requests of others
(`together.py`) is a span of each of them; the call of etcd is below the first one, and linked to the others.
"""

import contextlib
import os
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any, cast

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc import StatusCode
from grpc.aio import AbortError
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, get_current_span, set_span_in_context
from opentelemetry.trace import StatusCode as SpanStatus
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from operation_service.errors import OperationError
from operation_service.grpc_calls import RpcError
from operation_service.grpc_client import Answer, HeaderedCall
from operation_service.http2 import literal
from operation_service.observing import Call, note_refusal, refused_code
from operation_service.status import TABLE

_SERVICE = "n0stack-operation-service"
_LONGEST = 256
"""Of what a caller sends, before anybody has checked it."""
_PROPAGATED = ("traceparent", "tracestate")
_NOWHERE = Context()
_UNTRACED = contextlib.nullcontext()
_FAULTS = {
    code.value[0]
    for code in (
        *(StatusCode.UNKNOWN, StatusCode.DEADLINE_EXCEEDED, StatusCode.UNIMPLEMENTED),
        *(StatusCode.INTERNAL, StatusCode.UNAVAILABLE, StatusCode.DATA_LOSS),
    )
}
"""The codes that make a server's span an error, by OpenTelemetry's conventions; others are the caller's own affair."""

_propagator = TraceContextTextMapPropagator()
_current: ContextVar[Span | None] = ContextVar("_current", default=None)
"""What the current task does is below this span. To ask OpenTelemetry's own context costs several times as much."""
_sent_with: ContextVar[tuple[SpanContext, ...]] = ContextVar("_sent_with", default=())
"""Whose requests the current call of etcd carries besides."""


class Ids(RandomIdGenerator):
    """Makes the ids of traces and spans, and lets that of the next trace be known before it begins."""

    def __init__(self) -> None:
        self._next = 0

    def next_trace_id(self) -> int:
        """Return the id of the trace that begins next."""
        self._next = super().generate_trace_id()
        return self._next

    def generate_trace_id(self) -> int:
        """Return the id that is known already, if it is, once."""
        known, self._next = self._next, 0
        return known or super().generate_trace_id()


class Spans:
    """Makes spans of calls (`observing.Observer`).

    Args:
        tracer: OpenTelemetry's.
        ids: Makes its ids.
    """

    def __init__(self, tracer: Tracer, ids: Ids) -> None:
        self._tracer = tracer
        self._ids = ids

    def call(self, method: MethodDescriptor, call: Call) -> Call:
        """Return a call that has a span."""
        tracer, service = self._tracer, method.containing_service.full_name
        name = f"{service}/{method.name}"
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method.name}
        next_trace_id, should_sample = self._ids.next_trace_id, tracer.sampler.should_sample

        async def traced(requests: object, context: Any) -> Any:  # noqa: ANN401, gRPC's own, and the answer
            parent = _parent(context.invocation_metadata())
            # Most calls are not sampled. That a span finds this out only when it begins is the dearest part of it.
            trace_id = next_trace_id() if parent is _NOWHERE else _span_context(parent).trace_id
            if (
                should_sample(parent, trace_id, name, SpanKind.SERVER, attributes).decision
                is not Decision.RECORD_AND_SAMPLE
            ):
                return await call(requests, context)
            span = tracer.start_span(name, parent, SpanKind.SERVER, attributes)
            token = _current.set(span)
            code = StatusCode.UNKNOWN.value[0]
            try:
                answer = await call(requests, context)
                code = refused_code(StatusCode.OK)
            except CancelledError:
                code = StatusCode.CANCELLED.value[0]
                raise
            except AbortError:
                code = refused_code(StatusCode.RESOURCE_EXHAUSTED)
                raise
            finally:
                _end(span, code, is_fault=code in _FAULTS)
                _current.reset(token)
            return answer

        return traced

    def behavior(self, method: MethodDescriptor, behavior: Call) -> Call:
        """Return a behavior that tells its span whose operation it is about."""
        fields = [field for field in ("project", "name") if field in method.input_type.fields_by_name]

        def attributed(request: Message, *rest: object) -> Awaitable[Any]:
            span = _recording()
            if span is not None:
                for field in fields:
                    span.set_attribute(f"n0stack.{field}", getattr(request, field)[:_LONGEST])
            return behavior(request, *rest)

        return attributed

    def refused(self, error: OperationError) -> None:
        """Tell the current call's span why it is refused: the reason alone, a message has facts of others."""
        note_refusal(error)
        span = _recording()
        if span is not None:
            span.set_attribute("n0stack.reason", TABLE[type(error)][1])

    def watch_begun(self) -> None:
        """End the current call's span: a watch goes on for hours, and below a span that has ended nothing begins."""
        span = _recording()
        if span is not None:
            _end(span, 0)

    def etcd(self, path: str, address: str, call: HeaderedCall[Answer]) -> HeaderedCall[Answer]:
        """Return a call of etcd that has a span, if a call that is traced waits for it."""
        tracer, name = self._tracer, path.removeprefix("/")
        host, _, port = address.rpartition(":")
        service, _, method = name.partition("/")
        attributes: dict[str, str | int] = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        attributes |= {"server.address": host.strip("[]"), "server.port": int(port)} if port.isdigit() else {}

        async def traced(request: Message, *, timeout: float, headers: bytes = b"") -> Answer:  # noqa: ASYNC109, its own
            links = [Link(each) for each in _sent_with.get()]
            span = tracer.start_span(name, _below(_current.get()), SpanKind.CLIENT, attributes, links)
            code = StatusCode.CANCELLED.value[0]
            try:
                answer = await call(request, timeout=timeout, headers=headers + _headers(span))
                code = 0
            except RpcError as error:
                code = error.code.value[0]
                raise
            finally:
                _end(span, code, is_fault=bool(code))
            return answer

        def maybe_traced(request: Message, *, timeout: float, headers: bytes = b"") -> Awaitable[Answer]:
            how = call if _recording() is None else traced
            return how(request, timeout=timeout, headers=headers)

        return maybe_traced

    def sharing(self, name: str) -> "Sharing":
        """Return what sees requests that leave together.

        Args:
            name: What their spans are called.
        """
        return Sharing(self._tracer, name)


class Sharing:
    """Makes spans of requests that leave together with others (`together.Sharing`).

    Args:
        tracer: OpenTelemetry's.
        name: What the spans are called.
    """

    def __init__(self, tracer: Tracer, name: str) -> None:
        self._tracer = tracer
        self._name = name

    def joined(self) -> Span | None:
        """Begin the span of a request. None: its caller is not traced."""
        span = _recording()
        return None if span is None else self._tracer.start_span(self._name, _below(span))

    def left(self, mark: Span) -> None:
        """End the span of a request: it is answered, or nobody waits for it."""
        mark.end()

    def sending(self, marks: Sequence[Span | None]) -> contextlib.AbstractContextManager[None]:
        """Let calls of etcd, for as long as the block runs, be below the first of some requests."""
        traced = [mark for mark in marks if mark is not None and mark.is_recording()]
        return self._all_below(traced) if traced or _current.get() is not None else _UNTRACED

    @contextlib.contextmanager
    def _all_below(self, traced: Sequence[Span]) -> Iterator[None]:
        # Whose task this is says nothing: it goes on for as long as anybody has a request.
        token = _current.set(traced[0] if traced else None)
        for other in traced[1:]:
            other.add_link(traced[0].get_span_context())
        others = _sent_with.set(tuple(mark.get_span_context() for mark in traced[1:]))
        try:
            yield
        finally:
            _sent_with.reset(others)
            _current.reset(token)


def _recording() -> Span | None:
    """Return the span that the current task's work is below, if it has not ended yet."""
    span = _current.get()
    return span if span is not None and span.is_recording() else None


def _below(span: Span | None) -> Context:
    return _NOWHERE if span is None else set_span_in_context(span, _NOWHERE)


def _span_context(context: Context) -> SpanContext:
    return get_current_span(context).get_span_context()


def _parent(metadata: Sequence[tuple[str, str | bytes]] | None) -> Context:
    """Return the trace that a caller wants to be continued; empty, if it does not, or not clearly."""
    carrier = {key: value for key, value in metadata or () if key in _PROPAGATED}
    return _propagator.extract(carrier, _NOWHERE) if carrier else _NOWHERE


def _headers(span: Span) -> bytes:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, _below(span))
    return b"".join(literal(key.encode(), value.encode()) for key, value in carrier.items())


def _end(span: Span, code: int, *, is_fault: bool = False) -> None:
    """End a span, unless it has ended."""
    if span.is_recording():
        span.set_attribute("rpc.grpc.status_code", code)
        if is_fault:
            span.set_status(Status(SpanStatus.ERROR))
        span.end()


def exporting(worker: str) -> tuple[Spans, Callable[[], None]]:
    """Return what makes spans that are sent as the environment says, and what sends the last of them."""
    attributes = {"service.version": version(_SERVICE)}
    if not os.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        attributes["service.name"] = _SERVICE
    if worker:
        attributes["n0stack.worker"] = worker
    ids = Ids()
    provider = TracerProvider(resource=Resource.create(attributes), id_generator=ids, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    # It is the SDK's, which its type does not say.
    tracer = cast("Tracer", provider.get_tracer(__package__ or "", version(_SERVICE)))
    return Spans(tracer, ids), provider.shutdown
