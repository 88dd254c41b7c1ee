"""Traces, if OpenTelemetry's standard environment variables ask for them; otherwise nothing of it is even imported.

Who sets these variables often sets them for a whole cluster: what is wrong with them is told in a line, and no reason
not to serve.
"""

import asyncio
import contextlib
import gc
import importlib.util
import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from operation_service.tracing import Spans

_log = logging.getLogger(__name__)

_CLOSE_SECONDS = 3.0
"""For the spans that are yet to be sent when the service stops. If nobody takes them by then, they are lost."""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"


class UnsupportedError(Exception):
    """The environment asks for traces in a way that this service does not have."""


class Tracing:
    """Traces that are made and sent.

    Args:
        spans: Makes them.
        shutdown: Sends those that are yet to be sent, and ends the sending. It may take any time.
    """

    def __init__(self, spans: "Spans", shutdown: Callable[[], None]) -> None:
        self.spans = spans
        self._shutdown = shutdown

    async def close(self) -> None:
        """Send what is yet to be sent, for as long as that takes, and three seconds at the most."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def shutdown() -> None:
            self._shutdown()
            # If it took too long the loop has gone by now.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(done.set)

        # No thread of the loop's own: these are waited for at its end.
        threading.Thread(target=shutdown, name="last-spans", daemon=True).start()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await done.wait()
        except TimeoutError:
            _log.warning("the last spans are lost: nobody took them within %.0f s", _CLOSE_SECONDS)


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """Whether an environment asks for traces.

    Raises:
        UnsupportedError: It does so in a way that there is not.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter == "none" or not (exporter or any(environment.get(name) for name in _ENDPOINTS)):
        return False
    if exporter not in {"", "otlp"}:
        raise UnsupportedError(f"OTEL_TRACES_EXPORTER={exporter} is none that this service has: set otlp, or none")
    for name in _PROTOCOLS:
        protocol = environment.get(name, "").strip()
        if protocol:
            if protocol != _PROTOCOL:
                raise UnsupportedError(f"{name}={protocol} is none that this service has: set {_PROTOCOL}")
            break
    if importlib.util.find_spec("opentelemetry") is None or importlib.util.find_spec("opentelemetry.sdk") is None:
        raise UnsupportedError("OpenTelemetry is not installed: install n0stack-operation-service[otel]")
    return True


def tracing_started(worker: str) -> Tracing | None:
    """Begin to trace, if this process's environment asks for it.

    Args:
        worker: Which worker this is. Empty: the only process.
    """
    try:
        if not is_asked_for(os.environ):
            return None
        from operation_service.tracing import exporting  # noqa: PLC0415

        spans, shutdown = exporting(worker)
        # What was imported just now need not be looked at by the garbage collector either (event_loop.py).
        gc.freeze()
    except (UnsupportedError, ImportError) as error:
        _log.warning("calls are not traced: %s", error)
        return None
    _log.info("calls are traced, sampled by %s", os.environ.get("OTEL_TRACES_SAMPLER") or "none: all of them")
    return Tracing(spans, shutdown)
