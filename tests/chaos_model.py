"""A little lock service that keeps its contract, and what clients and watchers would record of it.

Requests are made in the order of the instants at which they take effect; answers may be late, or lost.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count

from chaos.history import (
    Began,
    Call,
    Entry,
    FinalRecord,
    FinalValue,
    Outcome,
    Seen,
    Update,
    WatchBegan,
)
from msgspec.structs import replace

OVER = {"SUCCEEDED", "FAILED", "CANCELLED"}
RUN_OUT = {"EXPIRED", "OPERATOR_DEAD"}


@dataclass(frozen=True)
class Request:
    """What a client asks for: sent at `at`, made `wait` later, answered `back` later still.

    `rpc` may also be "update": it adds an element to the guarded value, with the fencing token last told.
    """

    rpc: str
    token: str = ""
    at: float = 0.0
    lock_for: int = 0
    resource: str = "vm"
    wait: float = 0.1
    back: float = 0.1
    is_lost: bool = False
    is_never_made: bool = False
    is_killed: bool = False
    sends_fence: bool = False
    is_disabled_cancel: bool = False


@dataclass(frozen=True)
class Watch:
    """An account: from `at` on with what is there, or from a revision; until `ends`."""

    watcher: str = "w1"
    account: int = 1
    at: float = 0.0
    ends: float = math.inf
    start_revision: int = 0
    delay: float = 0.05


@dataclass
class _Record:
    state: str = ""
    token: str = ""
    fence: int = 0
    revision: int = 0
    until: float = 0.0
    creator: str = ""
    is_disabled_cancel: bool = False
    logs: tuple[str, ...] = ()
    value: list[str] = field(default_factory=list)
    value_fence: int = 0


@dataclass
class _Run:
    expiry_lag: float
    records: dict[str, _Record] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    happened: list[tuple[float, Seen]] = field(default_factory=list)
    told: list[tuple[float, str, str, int]] = field(default_factory=list)
    revision: int = 10

    def expire(self, now: float) -> None:
        ends = [
            (record.until + self.expiry_lag, name) for name, record in self.records.items() if record.state == "LOCKED"
        ]
        for at, name in sorted(end for end in ends if end[0] <= now):
            record = self.records[name]
            record.state = "OPERATOR_DEAD" if record.is_disabled_cancel else "EXPIRED"
            self.revision += 1
            self.tell(name, at, record.state, self.revision)

    def tell(self, name: str, now: float, event: str, revision: int) -> None:
        record = self.records[name]
        seen = Seen(
            watcher="",
            account=0,
            at=now,
            event=event,
            revision=revision,
            resource=name,
            record_revision=revision,
            state=record.state,
            token=record.token,
            fencing_token=record.fence,
            logs=record.logs[-100:],
        )
        self.happened.append((now, seen))

    def make(self, request: Request, now: float, message: str, sent: int) -> str:  # noqa: PLR0911 - one for each rule
        """Return why not; empty: it was made, or had been before."""
        self.expire(now)
        record = self.records.setdefault(request.resource, _Record())
        is_locked, is_own = record.state == "LOCKED", record.token == request.token
        if request.rpc == "complete" and record.state in OVER - {"CANCELLED"} and is_own:
            return ""
        if sent and (not is_locked or record.fence != sent):
            return "FENCING_TOKEN_MISMATCH"
        if is_locked and not is_own:
            return "LOCKED" if request.rpc in {"create", "propose"} else "TOKEN_MISMATCH"
        match request.rpc:
            case "create" if record.creator == request.token and record.state in {"PENDING", "LOCKED"}:
                return ""
            case "create" if record.state not in {"", *OVER}:
                return "ALREADY_EXISTS"
            case "append" | "complete" if not is_locked:
                return "NOT_LOCKED" if record.state else "NOT_FOUND"
            case "cancel" if not record.state or record.state in OVER:
                return "OPERATION_OVER" if record.state else "NOT_FOUND"
            case "cancel" if is_locked and record.is_disabled_cancel:
                return "CANCEL_DISABLED"
        self.revision += 1
        event = self.change(record, request, now)
        record.logs += (message,)
        record.revision = self.revision
        self.tell(request.resource, now, event, self.revision)
        return ""

    def change(self, record: _Record, request: Request, now: float) -> str:
        event = {"append": "LOGGED", "complete": "SUCCEEDED", "cancel": "CANCELLED"}.get(request.rpc, "")
        if event:
            record.state = record.state if event == "LOGGED" else event
            return event
        event = "RENEWED" if record.state == "LOCKED" else "LOCKED"
        if record.state in {"", *OVER}:
            record.logs, record.creator = (), ""
        if request.rpc == "create":
            record.creator = request.token
        if request.rpc == "create" and not request.lock_for:
            record.state, record.token, record.fence, record.until = "PENDING", request.token, 0, 0.0
            return "CREATED"
        record.state, record.token, record.until = "LOCKED", request.token, now + request.lock_for
        record.fence = record.fence if event == "RENEWED" else self.revision
        record.is_disabled_cancel = request.is_disabled_cancel
        return event


def simulate(requests: Iterable[Request], watches: Iterable[Watch] = (Watch(),), lag: float = 0.2) -> list[Entry]:
    """Return the history of a run."""
    run = _Run(lag)
    numbers = count(1)
    named = [(request, f"m{next(numbers)}") for request in requests]
    for request, message in sorted(named, key=lambda each: each[0].at + each[0].wait):
        _ask(run, request, message)
    run.expire(math.inf)
    for watch in watches:
        run.entries += _account(run, watch)
    for name, record in run.records.items():
        run.entries.append(
            FinalRecord(
                resource=name,
                state=record.state,
                revision=record.revision,
                fencing_token=record.fence,
                logs=record.logs,
            )
        )
        run.entries.append(FinalValue(resource=name, elements=tuple(record.value)))
    return run.entries


def _ask(run: _Run, request: Request, message: str) -> None:
    now = request.at + request.wait
    ended = now + request.back
    fences = [
        fence
        for at, resource, token, fence in run.told
        if at <= request.at and (resource, token) == (request.resource, request.token)
    ]
    known = fences[-1] if fences else 0
    if request.rpc == "update":
        if known:
            _update(run, request, message, known)
        return
    sent = known if request.sends_fence else 0
    if request.rpc != "get":
        run.entries.append(
            Began(
                client=request.token,
                rpc=request.rpc,
                resource=request.resource,
                began=request.at,
                token=request.token,
                message=message,
                lock_for_seconds=request.lock_for,
                sent_fencing_token=sent,
            )
        )
    reason = ""
    if request.rpc == "get":
        run.expire(now)
    elif not request.is_never_made:
        reason = run.make(request, now, message, sent)
    if request.is_killed:
        return
    record = run.records.get(request.resource, _Record())
    is_unknown = request.is_lost or request.is_never_made
    is_ok = not reason and not is_unknown
    is_told = is_ok and record.state not in {"", "PENDING", *OVER}
    if is_told and request.rpc != "cancel":
        run.told.append((ended, request.resource, request.token, record.fence))
    run.entries.append(
        Call(
            client=request.token,
            rpc=request.rpc,
            resource=request.resource,
            token=request.token,
            began=request.at,
            # Whoever does not get an answer gives up, perhaps before it is made.
            ended=request.at + request.back if is_unknown else ended,
            outcome=Outcome.UNKNOWN if is_unknown else Outcome.REFUSED if reason else Outcome.OK,
            reason=reason,
            message="" if request.rpc == "get" else message,
            sent_fencing_token=sent,
            lock_for_seconds=request.lock_for,
            is_disabled_cancel=request.is_disabled_cancel,
            fencing_token=record.fence if is_ok else 0,
            told_until=record.until if is_told and request.rpc != "get" else 0.0,
            revision=record.revision if request.rpc == "get" and is_ok else 0,
            state=record.state if request.rpc == "get" and is_ok else "",
            logs=record.logs[-100:] if is_ok else (),
        )
    )


def _update(run: _Run, request: Request, element: str, fence: int) -> None:
    record = run.records[request.resource]
    is_refused = fence < record.value_fence
    if not is_refused and not request.is_never_made:
        record.value.append(element)
        record.value_fence = fence
    is_unknown = request.is_lost or request.is_never_made
    run.entries.append(
        Update(
            client=request.token,
            resource=request.resource,
            fencing_token=fence,
            element=element,
            began=request.at,
            ended=request.at + request.wait + request.back,
            outcome=Outcome.UNKNOWN if is_unknown else Outcome.REFUSED if is_refused else Outcome.OK,
        )
    )


def _account(run: _Run, watch: Watch) -> Iterator[Entry]:
    """What one account tells: what was there, and what came after."""
    yield WatchBegan(watcher=watch.watcher, account=watch.account, at=watch.at, start_revision=watch.start_revision)
    after = watch.start_revision - 1
    if not watch.start_revision:
        before = [seen for at, seen in run.happened if at <= watch.at]
        after = max((seen.revision for seen in before), default=0)
        there: dict[str, Seen] = {}
        for seen in before:
            is_expiry = seen.event in RUN_OUT
            record_revision = there[seen.resource].record_revision if is_expiry else seen.record_revision
            event = "CREATED" if seen.state == "PENDING" else seen.state
            there[seen.resource] = replace(seen, event=event, revision=record_revision, record_revision=record_revision)
        present = sorted(there.values(), key=lambda seen: seen.revision)
        for number, seen in enumerate(present, 1):
            revision = after if number == len(present) else seen.revision
            yield replace(
                seen, watcher=watch.watcher, account=watch.account, at=watch.at, revision=revision, is_present=True
            )
    for at, seen in run.happened:
        if seen.revision > after and at <= watch.ends:
            at_least = max(at, watch.at) + watch.delay
            yield replace(seen, watcher=watch.watcher, account=watch.account, at=at_least)
