# ruff: noqa: ARG002, PLR0917, what OpenTelemetry gives a sampler
"""What a sampler is asked before a span begins: the same as when it does."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from n0stack.operation.v1alpha import operation_service_pb2
from operation_service.tracing import Ids, Spans

METHOD = operation_service_pb2.DESCRIPTOR.services_by_name["OperationService"].methods_by_name["ProposeOperation"]


class OfProposals(Sampler):
    """Samples by an attribute, as samplers with rules do."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        is_wanted = (attributes or {}).get("rpc.method") == "ProposeOperation"
        return SamplingResult(Decision.RECORD_AND_SAMPLE if is_wanted else Decision.DROP, attributes)

    def get_description(self) -> str:
        return "of proposals"


async def test_a_sampler_is_asked_with_the_attributes_of_the_span() -> None:
    sent, ids = InMemorySpanExporter(), Ids()
    provider = TracerProvider(sampler=OfProposals(), id_generator=ids, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(sent))

    async def call(_requests: object, _context: object) -> bytes:
        return b""

    traced = Spans(cast("Tracer", provider.get_tracer("test")), ids).call(METHOD, call)
    await traced(None, SimpleNamespace(invocation_metadata=lambda: ()))
    assert [span.name for span in sent.get_finished_spans()] == [f"{METHOD.containing_service.full_name}/{METHOD.name}"]
