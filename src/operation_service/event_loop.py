"""The event loop of a serving process (docs/adr/0016-the-way-of-a-call.md)."""

import gc
from collections.abc import Coroutine

import uvloop

_THRESHOLDS = 20_000, 20, 20


def run(serving: Coroutine[None, None, None]) -> None:
    """Run it to its end.

    What a call leaves behind is freed by its count of references. To look for cycles after every 700 new objects, the
    default, took 6% of the time; and what has been imported never has to be looked at.
    """
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    uvloop.run(serving)
