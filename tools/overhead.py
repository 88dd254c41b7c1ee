"""Measures what it costs a renewal that the service tells of itself.

    GRPC_VERBOSITY=NONE PYTHONPATH=.:tests .venv/bin/python tools/overhead.py

All ways of telling are services of one process, over one etcd of the run's own. Each has callers of its own, which are
stopped but for short turns, in random order: so whatever else the machine, or this process, is about happens to all of
the ways. This process has a core to itself, if there are two. Printed are the medians over the rounds of the time on it
that one renewal took, all threads of the process together, and of what that is more than telling nothing took in the
same round, with the range that such a median has in 95 of 100 runs.
"""

import argparse
import asyncio
import contextlib
import gc
import http.server
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from chaos.process import ROOT, environment

from benchmarks import requests
from benchmarks.children import ENDS_WITH_US
from benchmarks.load import Plan
from benchmarks.servers import running_etcd
from operation_service import event_loop
from operation_service.delivery import Delivery
from operation_service.lines import Lines
from operation_service.server import running
from operation_service.settings import Settings
from operation_service.telling import Telling

_SETTLE_SECONDS = 0.08
"""After the callers have stopped, for the log lines and spans that are yet to be written: a turn's own cost."""
_HOURS = 4 * 3600.0


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


_CORES = sorted(os.sched_getaffinity(0))


@contextlib.contextmanager
def _on_other_core() -> Iterator[None]:
    """Let what is started meanwhile run on the last core, and then this thread on the first one again."""
    os.sched_setaffinity(0, _CORES[-1:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, _CORES[:1])


@contextlib.asynccontextmanager
async def _callers(address: str, in_flight: int, answers: "_Answers") -> AsyncIterator[int]:
    """Run callers that renew without end, stopped; give the number of their process."""
    plan = Plan(
        address=address,
        path=f"{requests.SERVICE}ProposeOperation",
        requests=[requests.propose("demo", requests.place(place), log_message="") for place in range(in_flight)],
        in_flight=in_flight,
        seconds=_HOURS,
    )
    with _on_other_core():
        child = subprocess.Popen(  # noqa: ASYNC220, nobody else waits
            [*ENDS_WITH_US, sys.executable, "-m", "benchmarks.load"],
            stdin=subprocess.PIPE,
            text=True,
            env=environment(PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}"),
        )
    answers.some.clear()
    with child:
        try:
            with cast("IO[str]", child.stdin) as told:
                json.dump(asdict(plan), told)
            await answers.some.wait()
            # Until each has proposed, and what a first call brings with it is over.
            await asyncio.sleep(1)
            child.send_signal(signal.SIGSTOP)
            yield child.pid
        finally:
            child.kill()


async def _turn(callers: int, seconds: float, answers: "_Answers") -> float:
    """Let callers call for a while; return what one call took, in microseconds of a core."""
    before, answered = _core_seconds(), answers.count
    os.kill(callers, signal.SIGCONT)
    await asyncio.sleep(seconds)
    os.kill(callers, signal.SIGSTOP)
    await asyncio.sleep(_SETTLE_SECONDS)
    return (_core_seconds() - before) / (answers.count - answered) * 1e6


class _Answers:
    """Counts what is answered, the same for all ways."""

    def __init__(self) -> None:
        self.count = 0
        self.some = asyncio.Event()
        hand_over = Delivery.hand_over

        def counted(*given: Any) -> bytes:  # noqa: ANN401, whatever it is given
            self.count += 1
            self.some.set()
            return hand_over(*given)

        Delivery.hand_over = counted  # type: ignore[assignment,method-assign]


async def _measure(ways: list[Way], rounds: int, seconds: float, at_once: list[int]) -> None:
    answers = _Answers()
    sink = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = stack.enter_context((folder / "log").open("wb"))
        with _on_other_core():
            etcd = await stack.enter_async_context(running_etcd(folder))
            # The receiver of spans is a thread of this process, too; its time on the other core counts all the same.
            threading.Thread(target=sink.serve_forever, daemon=True).start()
        os.environ |= {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{sink.server_port}/v1/traces",
        }
        addresses: dict[str, str] = {}
        for number, way in enumerate(ways):
            os.environ["OTEL_TRACES_EXPORTER"] = "otlp" if way.sampler else "none"
            os.environ["OTEL_TRACES_SAMPLER"] = way.sampler
            os.environ["OTEL_TRACES_SAMPLER_ARG"] = way.share
            # Where there are many spans they are sent before the turn is over. A few are sent every 5 s, by default.
            os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "50" if way.sampler.endswith("always_on") else "5000"
            settings = Settings(
                listen="127.0.0.1:0",
                key_prefix=f"/{number}/",
                metrics_listen="127.0.0.1:0" if way.has_metrics else None,
                log_format="json" if way.audit == "json" else "text",
            )
            telling = Telling(Lines(log.fileno(), lambda _: b"") if way.audit else None)
            service = await stack.enter_async_context(running(settings, [f"http://{etcd.address}"], telling=telling))
            addresses[way.name] = service.address
        gc.freeze()
        for in_flight in at_once:
            async with contextlib.AsyncExitStack() as calling:
                callers = {
                    name: await calling.enter_async_context(_callers(address, in_flight, answers))
                    for name, address in addresses.items()
                }
                took: dict[str, list[float]] = {way.name: [] for way in ways}
                for _ in range(rounds):
                    # In any order: what went before is felt.
                    for name in random.sample(list(callers), len(callers)):
                        took[name].append(await _turn(callers[name], seconds, answers))
            _print(in_flight, seconds, took)


def _print(in_flight: int, seconds: float, took: dict[str, list[float]]) -> None:
    nothing = next(iter(took.values()))
    base = statistics.median(nothing)
    print(f"{in_flight} at once, {len(nothing)} rounds of {seconds} s")
    for name, values in took.items():
        more = sorted(each - none for each, none in zip(values, nothing, strict=True))
        # The ranks between which the median of what they are a sample of lies, in 95 of 100 cases.
        off = 0.98 * math.sqrt(len(more))
        low, high = (more[round(max(0, min(len(more) - 1, len(more) / 2 + sign * off)))] / base for sign in (-1, 1))
        middle = statistics.median(more)
        share = f"{middle / base:+6.1%} ({low:+.1%} to {high:+.1%})"
        print(f"  {statistics.median(values):6.1f} us  {middle:+6.1f} us {share:28}  {name}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--at-once", type=int, nargs="*", default=[16, 1])
    parser.add_argument("--ways", type=int, nargs="*", default=range(len(WAYS)), help="which, by their numbers from 0")
    given = parser.parse_args()
    event_loop.run(_measure([WAYS[each] for each in given.ways], given.rounds, given.seconds, given.at_once))
