"""Measures what it costs a renewal that the service tells of itself.

    GRPC_VERBOSITY=NONE PYTHONPATH=.:tests .venv/bin/python tools/overhead.py

All ways of telling are services of one process, over one etcd of the run's own, and take turns in short rounds: so
whatever else the machine, or this process, is about happens to all of them. Printed are the medians over the rounds of
the time on a core that one renewal took, all threads of the process together, and of what that is more than telling
nothing took in the same round.
"""

import argparse
import contextlib
import gc
import http.server
import os
import random
import statistics
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import requests
from benchmarks.children import run_load
from benchmarks.load import Plan
from benchmarks.servers import running_etcd
from operation_service import event_loop
from operation_service.lines import Lines
from operation_service.server import running
from operation_service.settings import Settings
from operation_service.telling import Telling


class Way(NamedTuple):
    """A way of telling."""

    name: str
    has_metrics: bool = False
    audit: str = ""
    sampler: str = ""
    share: str = ""


WAYS = (
    Way("nothing"),
    Way("nothing, once more"),
    Way("metrics", has_metrics=True),
    Way("metrics, audit (text)", has_metrics=True, audit="text"),
    Way("metrics, audit (json)", has_metrics=True, audit="json"),
    Way("metrics, audit (json), traces of none", True, "json", "parentbased_always_off"),
    Way("metrics, audit (json), traces of 1%", True, "json", "parentbased_traceidratio", "0.01"),
    Way("metrics, audit (json), traces of all", True, "json", "parentbased_always_on"),
)


class _Sink(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:  # noqa: ANN401, it says nothing
        """Say nothing."""


def _core_seconds() -> float:
    """Return the time that all threads of this process have had on a core, in which the kernel counts nanoseconds."""
    return sum(int(each.read_text().split()[0]) for each in Path("/proc/self/task").glob("*/schedstat")) / 1e9


async def _measure(rounds: int, seconds: float, at_once: list[int]) -> None:
    sink = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = stack.enter_context((folder / "log").open("wb"))
        etcd = await stack.enter_async_context(running_etcd(folder))
        os.environ |= {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{sink.server_port}/v1/traces",
            "OTEL_BSP_SCHEDULE_DELAY": "1000",
        }
        addresses: dict[str, str] = {}
        for number, way in enumerate(WAYS):
            os.environ["OTEL_TRACES_EXPORTER"] = "otlp" if way.sampler else "none"
            os.environ["OTEL_TRACES_SAMPLER"] = way.sampler
            os.environ["OTEL_TRACES_SAMPLER_ARG"] = way.share
            settings = Settings(
                listen="127.0.0.1:0",
                key_prefix=f"/{number}/",
                metrics_listen="127.0.0.1:0" if way.has_metrics else None,
                log_format="json" if way.audit == "json" else "text",
            )
            telling = Telling(Lines(log.fileno(), lambda _: b"") if way.audit else None)
            service = await stack.enter_async_context(running(settings, [f"http://{etcd.address}"], telling=telling))
            addresses[way.name] = service.address
        # The receiver of spans is of this process, too; what it takes is only asked for where all are sent.
        threading.Thread(target=sink.serve_forever, daemon=True).start()
        gc.freeze()
        for in_flight in at_once:
            took: dict[str, list[float]] = {way.name: [] for way in WAYS}
            plan = Plan(
                address="",
                path=f"{requests.SERVICE}ProposeOperation",
                requests=[
                    requests.propose("demo", requests.place(place), log_message="") for place in range(in_flight)
                ],
                in_flight=in_flight,
                seconds=seconds,
            )
            for number in range(rounds + 1):
                # In any order: what went before is felt. The first round warms up.
                names = random.sample(list(addresses), len(addresses))
                for name in names:
                    before = _core_seconds()
                    outcome = await run_load(replace(plan, address=addresses[name]))
                    if number:
                        took[name].append((_core_seconds() - before) / outcome.last * 1e6)
            base = statistics.median(took["nothing"])
            print(f"{in_flight} at once, {rounds} rounds of {seconds} s")
            for name, values in took.items():
                more = statistics.median(each - none for each, none in zip(values, took["nothing"], strict=True))
                print(f"  {statistics.median(values):6.1f} us  {more:+6.1f} us {more / base:+7.1%}  {name}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--at-once", type=int, nargs="*", default=[16, 1])
    given = parser.parse_args()
    event_loop.run(_measure(given.rounds, given.seconds, given.at_once))
