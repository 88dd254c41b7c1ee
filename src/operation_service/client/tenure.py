"""What a holder knows of its lock: until when it may rely on it, and how it was lost. No I/O; safe between threads."""

import logging
import threading
import weakref
from collections.abc import Callable

from operation_service.client import forks
from operation_service.client.clock import Clock
from operation_service.client.errors import LockLostError, Loss
from operation_service.client.terms import Terms

_log = logging.getLogger(__name__)

_DRIFT = 0.001
"""The share of a lock's time that is left unused. Two clocks that are slewed against each other, by 500 parts in a
million at the most as NTP does it, differ by as much."""
_RENEWALS = 3
"""How many renewals fall into a lock's time: two may fail before it is lost."""

LostCallback = Callable[[LockLostError], None]

_tenures: "weakref.WeakSet[Tenure]" = weakref.WeakSet()


class Tenure:
    """One lock, from its acquisition to its end or loss.

    It ends by the holder's own clock when `lock_for` has passed since the last renewal that was answered was *sent*:
    the service counts from later on (CONTRACT rule 1), so the holder never relies on the lock for longer than the
    service keeps it.

    Args:
        terms: What was asked for.
        fencing_token: The lock's.
        sent_at: When the proposal that got it was sent, by the clock.
        clock: The holder's clock.
        on_lost: Called once, with the error, by whoever finds out that the lock is lost.
    """

    def __init__(
        self, terms: Terms, fencing_token: int, sent_at: float, *, clock: Clock, on_lost: LostCallback | None = None
    ) -> None:
        self.terms = terms
        self.fencing_token = fencing_token
        self._clock = clock
        self._on_lost = on_lost
        self._mutex = threading.Lock()
        self._error: LockLostError | None = None
        self._failure: BaseException | None = None
        self._is_over = False
        self._wakers: list[Callable[[], None]] = []
        self._sent_at = sent_at
        self._lock_for = terms.lock_for
        _tenures.add(self)

    @property
    def deadline(self) -> float:
        """Until when the holder may rely on the lock, by its clock."""
        return self._sent_at + self._lock_for * (1 - _DRIFT)

    @property
    def renew_at(self) -> float:
        """When to renew next, by the holder's clock."""
        return self._sent_at + self._lock_for / _RENEWALS

    @property
    def remaining(self) -> float:
        """How many seconds the lock lasts yet, by the holder's clock; 0 if it is lost or was given back."""
        return 0.0 if self.is_over else max(self.deadline - self._clock(), 0.0)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to keep any more: the lock is lost, or was given back."""
        return self._is_over or self.lost() is not None

    def renewing(self, terms: Terms) -> None:
        """Note that a renewal is about to be sent: it may shorten the lock, even if its answer never comes."""
        now = self._clock()
        with self._mutex:
            # 0 is refused in any case: a mistake of the caller must not cost the lock.
            if terms.lock_for and now + terms.lock_for < self._sent_at + self._lock_for:
                self._sent_at, self._lock_for = now, terms.lock_for

    def renewed(self, sent_at: float, terms: Terms) -> None:
        """Note a renewal that was answered.

        Args:
            sent_at: When it was sent, by the clock.
            terms: With what.
        """
        with self._mutex:
            self.terms, self._failure = terms, None
            self._sent_at, self._lock_for = sent_at, terms.lock_for

    def renewal_failed(self, error: BaseException) -> None:
        """Note why a renewal failed: should the lock run out, that is the cause."""
        self._failure = error

    def lost(self) -> LockLostError | None:
        """Return how the lock was lost, or None while it is not.

        It looks at the clock: a process that was asleep past its deadline knows at its first look.
        """
        if self._error is None and not self._is_over and self._clock() >= self.deadline:
            return self.lose(Loss.RAN_OUT, self._failure)
        return self._error

    def check(self) -> None:
        """Raise if the lock is lost, or was given back.

        Raises:
            LockLostError: It is; a new one each time, as to raise one adds to its traceback.
        """
        if error := self.lost():
            raise LockLostError(self.terms.resource, error.loss, self.fencing_token) from error.__cause__
        if self._is_over:
            # Somebody still has in hand what belongs to a block that has ended: a thread that it started, say.
            raise LockLostError(self.terms.resource, Loss.GIVEN_BACK, self.fencing_token)

    def lose(self, loss: Loss, cause: BaseException | None = None) -> LockLostError:
        """Note that the lock is lost, and tell those who want to know.

        Only the first loss counts. A lock that was given back cannot be lost any more.

        Args:
            loss: How.
            cause: What showed it.

        Returns:
            The error that says so.
        """
        error = LockLostError(self.terms.resource, loss, self.fencing_token)
        error.__cause__ = cause
        with self._mutex:
            if self._error is not None:
                return self._error
            if self._is_over:
                return error
            self._error = error
            wakers = list(self._wakers)
        for wake in wakers:
            wake()
        if self._on_lost is not None:
            try:
                self._on_lost(error)
            except Exception:  # noqa: BLE001, a caller's function may raise anything
                # Whoever finds out about the loss, a background thread maybe, can do nothing about it.
                _log.exception("on_lost failed for %s", self.terms.resource)
        return error

    def end(self) -> None:
        """Note that the lock is given back, or about to be."""
        with self._mutex:
            self._is_over = True
            wakers = list(self._wakers)
        for wake in wakers:
            wake()

    def when_over(self, wake: Callable[[], None]) -> None:
        """Have something called, from any thread, when the lock is lost or given back; at once if it is."""
        with self._mutex:
            self._wakers.append(wake)
            is_over = self._is_over or self._error is not None
        if is_over:
            wake()

    def forked(self) -> None:
        """Note that this process is a child of the holder's."""
        # Whoever held the mutex does not live here, and nobody else is there yet.
        self._mutex = threading.Lock()
        self._wakers = []
        if self._error is None and not self._is_over:
            self._error = LockLostError(self.terms.resource, Loss.FORKED, self.fencing_token)


def _all_forked() -> None:
    for tenure in list(_tenures):
        tenure.forked()


forks.in_child(_all_forked)
