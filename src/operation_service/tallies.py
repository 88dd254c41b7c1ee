"""What has happened so far, as plain numbers: counted on the event loop, and read when somebody asks (`metrics.py`).

A number that is counted up costs a tenth of what a metric of a library does, which takes a lock each time
(docs/adr/0027-metrics.md).
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence

from operation_service.model import Event

SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.035, 0.06, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""A call takes some milliseconds, and 10 s at the most unless its caller waits for longer."""
LAG_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
CHANGES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0)
"""As many as are committed together at the most (`group_commit.AT_ONCE`)."""


class Spread:
    """How values spread over some ranges: a histogram.

    Args:
        bounds: The upper ends of the ranges, each its range's own, in their order; what is beyond has a range, too.

    Attributes:
        bounds: Them.
        counts: How many values were in each range, and last how many beyond.
        sum: Of all values.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def note(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class CallTally:
    """What became of the calls of one method.

    Attributes:
        codes: How many ended with which code, by its number.
        seconds: How long they took.
    """

    __slots__ = ("codes", "seconds")

    def __init__(self) -> None:
        self.codes: Counter[int] = Counter()
        self.seconds = Spread(SECONDS)

    def note(self, code: int, seconds: float) -> None:
        """Count a call."""
        self.codes[code] += 1
        self.seconds.note(seconds)


class Tallies:
    """All that is counted.

    Attributes:
        calls: By the short names of the service's methods.
        refusals: Errors that calls were answered with, by their reasons (`status.TABLE`).
        changes: What this replica has changed, by what it was.
        takeovers: Operations that it gave to another operator after their lock had run out.
        expiries: Of which ends of locks it has heard, whoever had granted them.
        stretched: Locks that it ended because etcd had kept them for longer than they were granted.
        batches: How many changes went to etcd together.
        etcd: Calls of etcd, by the short names of its methods.
        loop_lag: How late the event loop was.
    """

    def __init__(self) -> None:
        self.calls: defaultdict[str, CallTally] = defaultdict(CallTally)
        self.refusals: Counter[str] = Counter()
        self.changes: Counter[Event] = Counter()
        self.takeovers = 0
        self.expiries: Counter[Event] = Counter()
        self.stretched = 0
        self.batches = Spread(CHANGES)
        self.etcd: defaultdict[str, CallTally] = defaultdict(CallTally)
        self.loop_lag = Spread(LAG_SECONDS)
