"""What one task of a client does: turn by turn it takes a resource, works on it, and lets it go in one of many ways."""

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chaos.caller import Answer, Caller
from chaos.history import Call, Outcome, Recorder, Update, UpdateBegan
from chaos.store import StoreClient

_LOST = {"FENCING_TOKEN_MISMATCH", "LOCKED", "NOT_LOCKED", "TOKEN_MISMATCH", "OPERATION_CANCELLED", "NOT_FOUND"}
"""What tells a holder that it holds nothing any more."""
_POLL_SECONDS = 0.05
_POLL_BEFORE_SECONDS = 0.3
_LONGEST_WAIT_SECONDS = 7.0
_PATIENCE_SECONDS = 12.0
_PAUSE_AFTER_FAILURE = 0.2
_LATE = 0.2
_LATE_SECONDS = (0.0, 1.2)
"""So many of the holders come back that long after their deadline; etcd takes up to half a second to see it pass."""
_SLOW = 0.04
_SLOW_SECONDS = (2.0, 6.0)
"""So many of the updates take so long that their lock may be another's by the time they write."""


@dataclass
class _Held:
    """A lock, as its holder knows it."""

    resource: str
    fencing_token: int
    until: float
    is_disabled_cancel: bool

    @property
    def left(self) -> float:
        return self.until - time.monotonic()


class Worker:
    """One task.

    Args:
        caller: Makes its calls.
        store: Has the values that the locks guard.
        recorder: Where its updates are recorded.
        resources: On which it works.
        rng: Its choices.
        stopping: Set when it has to end.
    """

    def __init__(
        self,
        caller: Caller,
        store: StoreClient,
        recorder: Recorder,
        *,
        resources: Sequence[str],
        rng: random.Random,
        stopping: asyncio.Event,
    ) -> None:
        self._caller = caller
        self._store = store
        self._recorder = recorder
        self._resources = resources
        self._rng = rng
        self._stopping = stopping
        self._elements = itertools.count(1)

    async def run(self) -> None:
        """Take turns until told to stop."""
        while not self._stopping.is_set():
            (resource,) = self._rng.choices(self._resources, _crowds(len(self._resources)))
            held = await self._acquire(resource)
            if held is None:
                await self._sometimes_look(resource)
                await self._pause(0.05, 0.25)
                continue
            await self._work(held)
            if self._rng.random() < _LATE:
                await self._come_back_late(held)
            await self._let_go(held)

    async def _acquire(self, resource: str) -> _Held | None:
        if self._rng.random() < 0.1:
            await self._caller.create(resource, lock_for_seconds=0)
        answer = await self._try(resource)
        if answer.call.reason == "LOCKED" and self._rng.random() < 0.5:
            answer = await self._wait_and_try(answer)
        if answer.call.reason == "OPERATION_CANCELLED":
            self._caller.forget()
        if answer.call.outcome is Outcome.UNKNOWN:
            await self._after_unclear(resource)
        return _held(answer.call)

    async def _try(self, resource: str) -> Answer:
        seconds = self._rng.choice((1, 2, 2, 3, 3, 4, 6))
        is_disabled_cancel = self._rng.random() < 0.2
        if self._rng.random() < 0.15:
            answer = await self._caller.create(
                resource, lock_for_seconds=seconds, is_disabled_cancel=is_disabled_cancel
            )
            if answer.call.reason != "ALREADY_EXISTS":
                return answer
        return await self._caller.propose(resource, lock_for_seconds=seconds, is_disabled_cancel=is_disabled_cancel)

    async def _wait_and_try(self, answer: Answer) -> Answer:
        """Contend for a lock that runs out soon: ask so often that what is measured is the service, and not us."""
        patience = time.monotonic() + _PATIENCE_SECONDS
        while answer.call.reason == "LOCKED" and time.monotonic() < patience and not self._stopping.is_set():
            wait = answer.wait_seconds or 0.0
            if wait > _LONGEST_WAIT_SECONDS:
                break
            # The service never tells to come back sooner than in half a second, even if less than that is left.
            await asyncio.sleep(max(_POLL_SECONDS, wait - 0.5 - _POLL_BEFORE_SECONDS))
            answer = await self._try(answer.call.resource)
        return answer

    async def _after_unclear(self, resource: str) -> None:
        """Look before trying again, sometimes; the same call is never sent again."""
        await self._pause(0.05, _PAUSE_AFTER_FAILURE)
        if self._rng.random() < 0.7:
            await self._caller.get(resource)

    async def _sometimes_look(self, resource: str) -> None:
        if self._rng.random() < 0.3:
            await self._caller.get(resource)

    async def _work(self, held: _Held) -> None:
        for _ in range(self._rng.randint(1, 7)):
            await self._pause(0.0, 0.25)
            if held.left <= 0 or self._stopping.is_set():
                return
            step = self._rng.choices((self._renew, self._append, self._update, self._look), (3, 3, 4, 1))[0]
            await step(held)

    async def _come_back_late(self, held: _Held) -> None:
        """Sleep past the deadline and go on as if nothing had happened, as a process does that was stopped meanwhile.

        The service has to notice, also where it believes that the lock is still there and nobody else has taken it.
        """
        await asyncio.sleep(max(0.0, held.left) + self._rng.uniform(*_LATE_SECONDS))
        if not self._stopping.is_set():
            await self._rng.choice((self._renew, self._append))(held)

    async def _renew(self, held: _Held) -> None:
        seconds = self._rng.choice((2, 3, 4, 6))
        is_disabled_cancel = self._rng.random() < 0.2
        answer = await self._caller.propose(
            held.resource,
            lock_for_seconds=seconds,
            is_disabled_cancel=is_disabled_cancel,
            fence=held.fencing_token if self._rng.random() < 0.85 else 0,
        )
        if (renewed := _held(answer.call)) is not None:
            # Without a precondition this may be a new lock: then its fencing token is a new one as well.
            held.fencing_token = renewed.fencing_token
            held.until = renewed.until
            held.is_disabled_cancel = is_disabled_cancel
        elif answer.call.outcome is Outcome.UNKNOWN:
            # It may have been renewed, and for a shorter time than it had before.
            held.until = min(held.until, answer.call.began + seconds)
        self._note_loss(held, answer.call)

    async def _append(self, held: _Held) -> None:
        answer = await self._caller.append(held.resource, fence=self._maybe_fence(held))
        self._note_loss(held, answer.call)

    async def _look(self, held: _Held) -> None:
        await self._caller.get(held.resource)

    async def _update(self, held: _Held) -> None:
        """Read, think, write: whoever does that without holding the lock loses somebody's element."""
        element = f"{self._caller.client}+{next(self._elements)}"
        facts: dict[str, Any] = {
            "client": self._caller.client,
            "resource": held.resource,
            "fencing_token": held.fencing_token,
            "element": element,
            "began": time.monotonic(),
        }
        reply = await self._store.read(held.resource, held.fencing_token)
        if not reply.is_refused:
            is_slow = self._rng.random() < _SLOW
            await self._pause(*(_SLOW_SECONDS if is_slow else (0.0, 0.3)))
            # A good client looks at its clock; some rely on the fencing token alone, which has to be enough.
            if held.left <= 0 and self._rng.random() < 0.5:
                return
            self._recorder.add(UpdateBegan(**facts))
            reply = await self._store.write(held.resource, held.fencing_token, (*reply.value, element))
        outcome = Outcome.REFUSED if reply.is_refused else Outcome.OK
        self._recorder.add(Update(**facts, ended=time.monotonic(), outcome=outcome))
        if reply.is_refused:
            held.until = 0.0

    async def _let_go(self, held: _Held) -> None:
        choice = self._rng.random()
        if choice < 0.55:
            failed = self._rng.random() < 0.2
            answer = await self._caller.complete(held.resource, fence=self._maybe_fence(held), failed=failed)
        elif choice < 0.7:
            answer = await self._caller.cancel(held.resource, fence=self._maybe_fence(held))
            if answer.is_ok or answer.call.reason == "CANCEL_DISABLED":
                # A cancelled token is refused for a while; and what cannot be cancelled is left to run out.
                self._caller.forget()
        else:
            self._caller.forget()
            return
        if answer.call.outcome is Outcome.UNKNOWN:
            await self._after_unclear(held.resource)

    def _maybe_fence(self, held: _Held) -> int:
        return held.fencing_token if self._rng.random() < 0.5 else 0

    @staticmethod
    def _note_loss(held: _Held, call: Call) -> None:
        if call.outcome is Outcome.REFUSED and call.reason in _LOST:
            held.until = 0.0

    async def _pause(self, least: float, most: float) -> None:
        await asyncio.sleep(self._rng.uniform(least, most))


def _held(call: Call) -> _Held | None:
    if call.outcome is not Outcome.OK or not call.told_until:
        return None
    return _Held(call.resource, call.fencing_token, call.told_until, call.is_disabled_cancel)


def _crowds(count: int) -> list[int]:
    """How much each resource is fought for: for the last ones little, so that some locks run out unnoticed."""
    return [1 if number >= count - 2 else 4 for number in range(count)]
