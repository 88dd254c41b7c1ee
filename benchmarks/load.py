"""The load generator: so many calls in flight, each followed by the next one as soon as it has been answered.

`python -m benchmarks.load` reads a `Plan` as JSON from standard input, and prints an `Outcome` as JSON. It is a process
of its own, so that its time is not mistaken for anybody else's.
"""

import contextlib
import json
import selectors
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace

from benchmarks.http2 import Connection

NUMBER = b"0000000000"
"""Stands in a request for the number of the call."""

_SILENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to call, and for how long.

    Attributes:
        address: HOST:PORT.
        path: The method's.
        requests: Serialized requests, in hexadecimal. Of the calls in flight, the one at place p sends the one at p
            modulo their number; so with one for each of them, no two calls in flight are about the same thing.
        in_flight: How many calls are under way at once.
        seconds: How long to count. 0: until `limit` calls are done.
        warm_up: How long to call before that, in seconds.
        limit: How many calls to make at most. 0: as many as there is time for.
        first: The first call's number.
        connections: How many connections share the calls.
    """

    address: str
    path: str
    requests: list[str]
    in_flight: int
    seconds: float = 0.0
    warm_up: float = 0.0
    limit: int = 0
    first: int = 0
    connections: int = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was counted.

    Attributes:
        statuses: How many calls ended with which gRPC status, in the time that counts.
        seconds: That time.
        p50_ms: The median of what they took.
        p99_ms: 99 of 100 took no longer.
        last: The number after that of the last call made, the warm-up's included.
        cpu_seconds: What the load generator itself took of a core in that time.
    """

    statuses: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    last: int = 0
    cpu_seconds: float = 0.0

    @property
    def operations(self) -> int:
        """How many calls there were."""
        return sum(self.statuses.values())


def percentile(ordered: list[float], share: float) -> float:
    """Return the value that a share of them do not exceed; 0 if there is none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Calls:
    """The calls of a plan: which is next, which are under way, and what became of those that have ended.

    Args:
        plan: Which calls.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._requests = [bytes.fromhex(request).split(NUMBER) for request in plan.requests]
        self._number = plan.first
        self._end = plan.first + plan.limit if plan.limit else sys.maxsize
        self._begun: dict[tuple[Connection, int], tuple[int, float]] = {}
        self.took: list[float] = []
        self.statuses: Counter[int] = Counter()

    @property
    def number(self) -> int:
        """The next call's number."""
        return self._number

    @property
    def is_done(self) -> bool:
        """Whether none is under way."""
        return not self._begun

    def begin(self, connection: Connection, place: int, now: float) -> None:
        """Begin the next call at a place, if there is one."""
        if self._number >= self._end:
            return
        parts = self._requests[place % len(self._requests)]
        message = parts[0] if len(parts) == 1 else (b"%010d" % self._number).join(parts)
        self._number += 1
        self._begun[connection, connection.begin(message)] = place, now

    def ended(self, connection: Connection, stream: int, status: int, now: float) -> int:
        """Count a call that has ended, and return its place."""
        place, begun = self._begun.pop((connection, stream))
        self.took.append(now - begun)
        self.statuses[status] += 1
        return place

    def stop(self) -> None:
        """Begin no more."""
        self._end = 0

    def count_from_here(self) -> None:
        """Forget what has been counted."""
        self.took.clear()
        self.statuses.clear()


class _Window:
    """The time that counts: after the warm-up, for so many seconds, or else to the end."""

    def __init__(self, plan: Plan, load: Calls) -> None:
        self._plan = plan
        self._load = load
        self._begin = self._now = time.perf_counter()
        self._cpu_from = time.process_time()
        self._is_open = plan.warm_up <= 0
        self._outcome: Outcome | None = None

    def look(self) -> None:
        """Open or close it, if it is time. What is still under way at the end is waited for, and not counted."""
        if self._outcome is not None:
            return
        self._now = time.perf_counter()
        if not self._is_open:
            if self._now - self._begin >= self._plan.warm_up:
                self._is_open, self._begin, self._cpu_from = True, self._now, time.process_time()
                self._load.count_from_here()
        elif self._plan.seconds and self._now - self._begin >= self._plan.seconds:
            self._outcome = self._counted()
            self._load.stop()

    def outcome(self) -> Outcome:
        return replace(self._outcome or self._counted(), last=self._load.number)

    def _counted(self) -> Outcome:
        took = sorted(self._load.took)
        return Outcome(
            statuses={str(status): count for status, count in self._load.statuses.items()},
            seconds=self._now - self._begin,
            p50_ms=percentile(took, 0.5) * 1000,
            p99_ms=percentile(took, 0.99) * 1000,
            cpu_seconds=time.process_time() - self._cpu_from,
        )


def run(plan: Plan) -> Outcome:
    """Make the calls.

    Raises:
        TimeoutError: The server has stopped answering.
        ServerGoneError: It has closed a connection.
    """
    load = Calls(plan)
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        connections = [Connection(plan.address, plan.path) for _ in range(min(plan.connections, plan.in_flight))]
        for connection in connections:
            stack.callback(connection.close)
        window = _Window(plan, load)
        now = time.perf_counter()
        for place in range(plan.in_flight):
            load.begin(connections[place % len(connections)], place, now)
        for connection in connections:
            connection.flush()
            selector.register(connection, selectors.EVENT_READ, connection)
        while not load.is_done:
            for key, _ in selector.select(_SILENCE_SECONDS) or _nothing():
                _go_on(load, key.data)
            window.look()
        return window.outcome()


def _go_on(load: Calls, connection: Connection) -> None:
    ended = connection.ended()
    now = time.perf_counter()
    for stream, status in ended:
        load.begin(connection, load.ended(connection, stream, status, now), now)
    connection.flush()


def _nothing() -> list[tuple[selectors.SelectorKey, int]]:
    raise TimeoutError(f"the server has not answered for {_SILENCE_SECONDS:.0f} s")


if __name__ == "__main__":
    json.dump(asdict(run(Plan(**json.load(sys.stdin)))), sys.stdout)
