"""What a service tells of itself, put together as its settings say: metrics, audit lines and traces."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from operation_service.admission import Admission
from operation_service.audit import Audit
from operation_service.census import Census
from operation_service.commits import OnOutcome
from operation_service.health import HealthMonitor
from operation_service.lock_times import LockTimes
from operation_service.metrics_http import metrics_served
from operation_service.model import Command, Record
from operation_service.observing import Counting, Observer, both
from operation_service.scan import Scan
from operation_service.settings import Settings
from operation_service.tallies import Tallies
from operation_service.telling import Telling
from operation_service.together import Sharing
from operation_service.tracing_setup import Tracing, tracing_started
from operation_service.watch_hub import WatchHub

_LAG_EVERY_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Sources:
    """The rooms that metrics are told of.

    Attributes:
        certificate_ends_at: Returns when the certificate that is served ends, as Unix time; None: there is none.
    """

    times: LockTimes
    census: Census
    admission: Admission
    monitor: HealthMonitor
    hub: WatchHub
    certificate_ends_at: Callable[[], float | None] = lambda: None


class SelfTelling:
    """What the rooms are given so that they can be told of; None where nobody asked for it.

    Attributes:
        observer: Sees calls.
        on_batch: Is told how many changes are sent together.
        on_outcome: Is told of changes.
        on_lock_ended: Is called for each lock that etcd kept for too long.
        works: Background work.
        tracing: The traces.
    """

    def __init__(self, settings: Settings, telling: Telling, audit: Audit | None, tracing: Tracing | None) -> None:
        self._settings = settings
        self._telling = telling
        self._stack = contextlib.AsyncExitStack()
        is_counted = settings.metrics_listen is not None
        self._tallies = tallies = Tallies() if is_counted else None
        counting = Counting(tallies) if tallies is not None else None
        self.tracing = tracing
        self.observer: Observer | None = both(counting, tracing.spans if tracing else None)
        self.on_batch: Callable[[int], None] | None = tallies.batches.note if tallies is not None else None
        self.on_lock_ended = self._lock_ended if tallies is not None else None
        audited = audit.outcome if audit is not None and settings.audit else None
        self.on_outcome = _together(counting.outcome if counting is not None else None, audited)
        self.works: Sequence[Callable[[], Awaitable[None]]] = ()
        self.audit = audit
        self._census: Census | None = None
        self._text: Callable[[], bytes] = bytes
        if tallies is not None:
            self.works = (self._feel_lag, self._take_census)

    def census(self, scan: Callable[[], Scan], times: LockTimes) -> Census | None:
        """Return what counts the dead operators, if anybody wants to know."""
        if self._tallies is not None:
            self._census = Census(scan, times, self._tallies)
        return self._census

    def tell_of(self, sources: Sources) -> None:
        """Tell metrics from now on."""
        # What nobody asks for need not be imported.
        from operation_service.metrics import Facts, Metrics  # noqa: PLC0415

        if self._tallies is None:
            return
        facts = Facts(
            version=version("n0stack-operation-service"),
            tallies=self._tallies,
            times=sources.times,
            census=sources.census,
            admission=sources.admission,
            is_healthy=lambda: sources.monitor.is_healthy,
            deaf_seconds=lambda: sources.hub.interrupted_seconds,
            lines=self._telling.lines,
            certificate_ends_at=sources.certificate_ends_at,
        )
        self._text = Metrics(facts, self._telling.worker).text
        # What was imported just now need not be looked at by the garbage collector either (event_loop.py).
        gc.freeze()

    async def begin(self) -> None:
        """Listen for whoever wants to know, before there is anything to tell.

        Raises:
            SettingsError: The port is in use.
        """
        where = self._telling.metrics_socket or self._settings.metrics_listen
        if where is not None:
            await self._stack.enter_async_context(metrics_served(where, self._told))

    async def _told(self) -> bytes:
        return self._text()

    def sharing(self, name: str) -> Sharing | None:
        """Return what sees requests that leave together, by the name of their spans."""
        return self.tracing.spans.sharing(name) if self.tracing is not None else None

    @property
    def on_watch_begun(self) -> Callable[[], None] | None:
        """Is called by each watch that stands."""
        return self.tracing.spans.watch_begun if self.tracing is not None else None

    async def close(self) -> None:
        """Tell no more, and what is yet to be told now."""
        await self._stack.aclose()
        if self.audit is not None:
            self.audit.flush()
        if self.tracing is not None:
            await self.tracing.close()

    def _lock_ended(self) -> None:
        if self._tallies is not None:
            self._tallies.stretched += 1

    async def _take_census(self) -> None:
        if self._census is not None:
            await self._census.run()

    async def _feel_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while self._tallies is not None:
            due_at = loop.time() + _LAG_EVERY_SECONDS
            await asyncio.sleep(_LAG_EVERY_SECONDS)
            self._tallies.loop_lag.note(max(0.0, loop.time() - due_at))


def _together(*all_of: OnOutcome | None) -> OnOutcome | None:
    """Return what tells some, as far as they are there."""
    some = [each for each in all_of if each is not None]
    if len(some) <= 1:
        return some[0] if some else None
    first, second = some

    def on_outcome(command: Command, before: Record | None, record: Record, revision: int) -> None:
        first(command, before, record, revision)
        second(command, before, record, revision)

    return on_outcome


@contextlib.asynccontextmanager
async def self_telling(settings: Settings, telling: Telling) -> AsyncIterator[SelfTelling]:
    """Put it together, and let it say its last words at the end."""
    lines = telling.lines
    audit = Audit(lines, settings.log_format, telling.who, tells_changes=settings.audit) if lines is not None else None
    told = SelfTelling(settings, telling, audit, tracing_started(telling.worker))
    try:
        await told.begin()
        yield told
    finally:
        await told.close()
