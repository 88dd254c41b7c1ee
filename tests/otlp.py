"""A receiver of traces, as a collector is one: OTLP over HTTP on loopback."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Receiver:
    """What has been received.

    Attributes:
        url: Where it listens.
        spans: All spans, in the order of their arrival.
        resource: The attributes of who sent them.
        answers: Whether it answers; otherwise it keeps who sends waiting.
    """

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    resource: dict[str, object] = field(default_factory=dict)
    answers: threading.Event = field(default_factory=threading.Event)

    def named(self, name: str) -> list[Span]:
        """The spans of a name."""
        return [span for span in self.spans if span.name == name]

    def below(self, parent: Span) -> list[Span]:
        """The spans right below another one."""
        return [
            span for span in self.spans if (span.trace_id, span.parent_span_id) == (parent.trace_id, parent.span_id)
        ]


def attributes(given: Any) -> dict[str, object]:
    """The attributes of a span or a resource."""

    def value(each: KeyValue) -> object:
        return getattr(each.value, each.value.WhichOneof("value") or "string_value")

    return {each.key: value(each) for each in given.attributes}


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    """Receive traces for as long as the block runs."""
    receiver = Receiver()
    receiver.answers.set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            receiver.answers.wait()
            if self.headers.get("Content-Encoding"):
                raise AssertionError("nobody asked for compression")
            for of_resource in ExportTraceServiceRequest.FromString(data).resource_spans:
                receiver.resource |= attributes(of_resource.resource)
                for scope in of_resource.scope_spans:
                    receiver.spans.extend(scope.spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield receiver
    finally:
        receiver.answers.set()
        server.shutdown()
        server.server_close()
