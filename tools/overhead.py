"""Measures what it costs a renewal that the service tells of itself: `PYTHONPATH=.:tests python tools/overhead.py`.

A service for each way of telling, all over one etcd of the run's own, takes its turn in short rounds, so that whatever
else the machine is about happens to all of them. Printed are the medians over the rounds of the time on a core that
one renewal took, all threads of the service's process together, and what that is more than that of telling nothing.
"""

import argparse
import asyncio
import contextlib
import http.server
import re
import statistics
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from benchmarks import requests
from benchmarks.children import run_load
from benchmarks.load import Plan
from benchmarks.servers import running_etcd, server_process

_TRACES = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_BSP_SCHEDULE_DELAY": "1000"}
_METRICS = ("--metrics-listen", "127.0.0.1:0")
_AUDIT = ("--audit", "on", "--log-format", "json")
WAYS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "nothing": (("--audit", "off"), {}),
    "metrics": (("--audit", "off", *_METRICS), {}),
    "metrics, audit (text)": (("--audit", "on", *_METRICS), {}),
    "metrics, audit (json)": ((*_AUDIT, *_METRICS), {}),
    "metrics, audit (json), traces of none": (
        (*_AUDIT, *_METRICS),
        _TRACES | {"OTEL_TRACES_SAMPLER": "parentbased_always_off"},
    ),
    "metrics, audit (json), traces of 1%": (
        (*_AUDIT, *_METRICS),
        _TRACES | {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"},
    ),
    "metrics, audit (json), traces of all": ((*_AUDIT, *_METRICS), _TRACES),
}


class _Sink(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:  # noqa: ANN401, it says nothing
        """Say nothing."""


def _core_seconds(pid: int) -> float:
    """Return the time that all threads of a process have had on a core, in which the kernel counts nanoseconds."""
    return sum(int(each.read_text().split()[0]) for each in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


async def _measure(rounds: int, seconds: float, at_once: list[int]) -> None:
    sink = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    traces = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{sink.server_port}/v1/traces"}
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        etcd = await stack.enter_async_context(running_etcd(folder))
        services: dict[str, tuple[str, int]] = {}
        for number, (way, (flags, environment)) in enumerate(WAYS.items()):
            variables = environment | traces if environment else {}
            process, pid = await stack.enter_async_context(
                server_process(
                    f"service-{number}",
                    (
                        *(Path(sys.executable).with_name("operation-service"), "serve", "--listen", "127.0.0.1:0"),
                        *("--etcd-endpoints", f"http://{etcd.address}", "--key-prefix", f"/{number}/", *flags),
                    ),
                    folder,
                    says=r"serving on \S+",
                    prefix=("env", *(f"{name}={value}" for name, value in variables.items())) if variables else (),
                )
            )
            found = re.search(r"serving on ([^\s,]+)", process.log)
            if found is None:
                raise SystemExit(f"{way}: it does not say where it serves")
            services[way] = found.group(1), pid
        for in_flight in at_once:
            took: dict[str, list[float]] = {way: [] for way in WAYS}
            for number in range(rounds + 1):
                # Each round begins with another one; the first round warms up.
                order = list(services)[number % len(services) :] + list(services)[: number % len(services)]
                for way in order:
                    address, pid = services[way]
                    plan = Plan(
                        address=address,
                        path=f"{requests.SERVICE}ProposeOperation",
                        requests=[
                            requests.propose("demo", requests.place(place), log_message="")
                            for place in range(in_flight)
                        ],
                        in_flight=in_flight,
                        seconds=seconds,
                        warm_up=0.0,
                    )
                    before = _core_seconds(pid)
                    outcome = await run_load(plan)
                    if number:
                        took[way].append((_core_seconds(pid) - before) / outcome.last * 1e6)
            base = statistics.median(took["nothing"])
            print(f"{rounds} rounds of {seconds} s")
            for way, values in took.items():
                # Against the same round's: what disturbs a round disturbs both.
                more = statistics.median(each - none for each, none in zip(values, took["nothing"], strict=True))
                median = statistics.median(values)
                print(
                    f"{in_flight:3} at once  {median:6.1f} us  {more:+6.1f} us {more / base:+7.1%}  {way}", flush=True
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--at-once", type=int, nargs="*", default=[1, 16])
    given = parser.parse_args()
    asyncio.run(_measure(given.rounds, given.seconds, given.at_once))
