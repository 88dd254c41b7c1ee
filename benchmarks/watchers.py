"""Many watchers of one project, and changes for them to see: `python -m benchmarks.watchers`, as the load generator.

Watchers and changes are in one process, so that one clock times both. A place is one resource, changed again and again:
its next change begins when its last one has been answered and every watcher was told of it.
"""

import contextlib
import json
import re
import selectors
import sys
import time
from dataclasses import asdict, dataclass, field

from benchmarks import requests
from benchmarks.http2 import Connection, ServerGoneError
from benchmarks.load import percentile
from benchmarks.requests import SERVICE, place

_PLACE = re.compile(rb"places/(\d+)")
_PREFIX_BYTES = 5
"""Before each message of a stream: whether it is compressed, and its length."""
_SILENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class WatchPlan:
    """What to watch.

    Attributes:
        address: HOST:PORT.
        watchers: How many there are, each on a connection of its own.
        in_flight: How many changes are under way at once.
        seconds: How long to count.
        warm_up: How long to go on before that, in seconds.
    """

    address: str
    watchers: int
    in_flight: int
    seconds: float
    warm_up: float


@dataclass(frozen=True, slots=True)
class Watched:
    """What the watchers were told.

    Attributes:
        delivered: How many changes, counted for each watcher.
        seconds: In what time.
        p50_ms: The median of the time from the beginning of a change's call to its arrival at a watcher.
        p99_ms: 99 of 100 arrived no later.
        answered: How many changes were answered.
        answered_p50_ms: The median of the time from there to the answer of the call.
        answered_p99_ms: 99 of 100 were answered no later.
        changes: How many changes there were in all, the warm-up's included.
        cpu_seconds: What this process took of a core.
    """

    delivered: int
    seconds: float
    p50_ms: float
    p99_ms: float
    answered: int
    answered_p50_ms: float
    answered_p99_ms: float
    changes: int
    cpu_seconds: float


class Messages:
    """Puts the messages of a stream together, which may come in pieces."""

    def __init__(self) -> None:
        self._data = b""

    def of(self, data: bytes) -> list[bytes]:
        """Return the messages that are complete with this."""
        self._data += data
        found = []
        while len(self._data) >= _PREFIX_BYTES:
            end = _PREFIX_BYTES + int.from_bytes(self._data[1:_PREFIX_BYTES], "big")
            if len(self._data) < end:
                break
            found.append(self._data[_PREFIX_BYTES:end])
            self._data = self._data[end:]
        return found


@dataclass(slots=True)
class _Change:
    begun: float = 0.0
    missing: int = 0
    """How many watchers have not been told, and 1 for the answer."""


@dataclass(slots=True)
class _Counts:
    delays: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    changes: int = 0


class _FanOut:
    """The changes, and who was told of them."""

    def __init__(self, plan: WatchPlan) -> None:
        self._plan = plan
        # Of its own for each number of places: a watch begins with all that is there.
        self._project = f"watched-{plan.in_flight}"
        self._changes = [_Change() for _ in range(plan.in_flight)]
        self._streams: dict[int, int] = {}
        self._renewals = [
            bytes.fromhex(requests.propose(self._project, place(number), log_message=""))
            for number in range(plan.in_flight)
        ]
        self._old_news = 0
        self._changer = Connection(plan.address, SERVICE + "ProposeOperation")
        self.counts = _Counts()
        self.selector = selectors.DefaultSelector()
        self.selector.register(self._changer, selectors.EVENT_READ, self._changer)
        self._watchers: list[Connection] = []
        self.is_over = True

    def _watcher(self) -> Connection:
        messages = Messages()

        def told(_stream: int, data: bytes) -> None:
            now = time.perf_counter()
            for message in messages.of(data):
                self._told(message, now)

        watch = bytes.fromhex(requests.watch(self._project))
        connection = Connection(self._plan.address, SERVICE + "WatchOperations", told)
        connection.begin(watch)
        connection.flush()
        self.selector.register(connection, selectors.EVENT_READ, connection)
        return connection

    def _told(self, message: bytes, now: float) -> None:
        found = _PLACE.search(message)
        if found is None:
            raise ServerGoneError(f"a watcher was told something else: {message!r}")
        if self._old_news:
            self._old_news -= 1
            return
        number = int(found.group(1))
        self.counts.delays.append(now - self._changes[number].begun)
        self._one_less(number)

    def _one_less(self, number: int) -> None:
        self._changes[number].missing -= 1
        if not self._changes[number].missing and not self.is_over:
            self.change(number)

    def open(self) -> None:
        """Lock the places, and begin to watch them; then begin the changes."""
        for number in range(self._plan.in_flight):
            self.change(number)
        while not self.is_idle:
            self.go_on()
        self._old_news = self._plan.watchers * self._plan.in_flight
        self._watchers += [self._watcher() for _ in range(self._plan.watchers)]
        while self._old_news:
            self.go_on()
        self.is_over = False
        for number in range(self._plan.in_flight):
            self.change(number)

    def change(self, number: int) -> None:
        """Begin a change of a place."""
        self.counts.changes += 1
        self._changes[number].begun = time.perf_counter()
        self._changes[number].missing = len(self._watchers) + 1
        self._streams[self._changer.begin(self._renewals[number])] = number

    def go_on(self) -> None:
        """Receive what there is, or wait for it.

        Raises:
            ServerGoneError: A watch has ended, or a change has failed.
            TimeoutError: There is nothing for long.
        """
        self._changer.flush()
        ready = self.selector.select(_SILENCE_SECONDS)
        if not ready:
            raise TimeoutError(f"nothing has come for {_SILENCE_SECONDS:.0f} s")
        for key, _ in ready:
            connection: Connection = key.data
            for stream, status in connection.ended():
                if connection is not self._changer or status != 0:
                    raise ServerGoneError(f"a call has ended with status {status}")
                number = self._streams.pop(stream)
                self.counts.answers.append(time.perf_counter() - self._changes[number].begun)
                self._one_less(number)
            connection.flush()

    @property
    def is_idle(self) -> bool:
        return not any(change.missing for change in self._changes)

    def close(self) -> None:
        for connection in (self._changer, *self._watchers):
            connection.close()
        self.selector.close()


def run(plan: WatchPlan) -> Watched:
    """Watch, and change."""
    with contextlib.closing(_FanOut(plan)) as fan_out:
        fan_out.open()
        _until(fan_out, time.perf_counter() + plan.warm_up)
        changes, fan_out.counts = fan_out.counts.changes, _Counts()
        begin, used = time.perf_counter(), time.process_time()
        _until(fan_out, begin + plan.seconds)
        counts, seconds, used = fan_out.counts, time.perf_counter() - begin, time.process_time() - used
        delays, answers = sorted(counts.delays), sorted(counts.answers)
        # What is under way is waited for, so that nothing is left half done.
        fan_out.is_over = True
        while not fan_out.is_idle:
            fan_out.go_on()
        return Watched(
            delivered=len(delays),
            seconds=seconds,
            p50_ms=percentile(delays, 0.5) * 1000,
            p99_ms=percentile(delays, 0.99) * 1000,
            answered=len(answers),
            answered_p50_ms=percentile(answers, 0.5) * 1000,
            answered_p99_ms=percentile(answers, 0.99) * 1000,
            changes=changes + counts.changes,
            cpu_seconds=used,
        )


def _until(fan_out: _FanOut, end: float) -> None:
    while time.perf_counter() < end:
        fan_out.go_on()


if __name__ == "__main__":
    json.dump(asdict(run(WatchPlan(**json.load(sys.stdin)))), sys.stdout)
