"""What clients and watchers record of the model of a correct service.

Requests are made in the order of the instants at which they take effect; answers may be late, or lost.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

from chaos.history import Began, Call, Entry, FinalRecord, FinalValue, Outcome, Seen, Update, WatchBegan
from chaos_model import OVER, RUN_OUT, Record, Request, Service
from msgspec.structs import replace


@dataclass(frozen=True)
class Watch:
    """An account: from `at` on with what is there, or from a revision; until `ends`.

    Of what is there, the stream may break after `heard`, and be resumed behind that.
    """

    watcher: str = "w1"
    account: int = 1
    at: float = 0.0
    ends: float = math.inf
    start_revision: int = 0
    delay: float = 0.05
    heard: int = 1000


def simulate(requests: Iterable[Request], watches: Iterable[Watch] = (Watch(),), lag: float = 0.2) -> list[Entry]:
    """Return the history of a run."""
    service = Service(lag)
    numbers = count(1)
    named = [(request, f"m{next(numbers)}") for request in requests]
    for request, message in sorted(named, key=lambda each: each[0].at + each[0].wait):
        _ask(service, request, message)
    service.expire(math.inf)
    for watch in watches:
        service.entries += _account(service, watch)
    for name, record in service.records.items():
        service.entries.append(
            FinalRecord(
                resource=name,
                state=record.state,
                revision=record.revision,
                fencing_token=record.fence,
                logs=record.logs,
            )
        )
        service.entries.append(FinalValue(resource=name, elements=tuple(record.value)))
    return service.entries


def _ask(service: Service, request: Request, message: str) -> None:
    now = request.at + request.wait
    ended = now + request.back
    fences = [
        fence
        for at, resource, token, fence in service.told
        if at <= request.at and (resource, token) == (request.resource, request.token)
    ]
    known = fences[-1] if fences else 0
    if request.rpc == "update":
        if known:
            _update(service, request, message, known)
        return
    sent = known if request.sends_fence else 0
    if request.rpc != "get":
        service.entries.append(
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
        service.expire(now)
    elif not request.is_never_made:
        reason = service.make(request, now, message, sent)
    if request.is_killed:
        return
    record = service.records.get(request.resource, Record())
    is_unknown = request.is_lost or request.is_never_made
    is_ok = not reason and not is_unknown
    is_told = is_ok and record.state not in {"", "PENDING", *OVER}
    if is_told and request.rpc != "cancel":
        service.told.append((ended, request.resource, request.token, record.fence))
    service.entries.append(
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


def _update(service: Service, request: Request, element: str, fence: int) -> None:
    record = service.records[request.resource]
    is_refused = fence < record.value_fence
    if not is_refused and not request.is_never_made:
        record.value.append(element)
        record.value_fence = fence
    is_unknown = request.is_lost or request.is_never_made
    service.entries.append(
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


def _account(service: Service, watch: Watch) -> Iterator[Entry]:
    """What one account tells: what was there, and what came after."""
    yield WatchBegan(watcher=watch.watcher, account=watch.account, at=watch.at, start_revision=watch.start_revision)
    after = watch.start_revision - 1
    if not watch.start_revision:
        before = [seen for at, seen in service.happened if at <= watch.at]
        after = max((seen.revision for seen in before), default=0)
        there: dict[str, Seen] = {}
        for seen in before:
            is_expiry = seen.event in RUN_OUT
            record_revision = there[seen.resource].record_revision if is_expiry else seen.record_revision
            event = "CREATED" if seen.state == "PENDING" else seen.state
            there[seen.resource] = replace(seen, event=event, revision=record_revision, record_revision=record_revision)
        present = sorted(there.values(), key=lambda seen: seen.revision)
        if watch.heard < len(present):
            present = present[: watch.heard]
            after = present[-1].revision
        for number, seen in enumerate(present, 1):
            revision = after if number == len(present) else seen.revision
            yield replace(
                seen, watcher=watch.watcher, account=watch.account, at=watch.at, revision=revision, is_present=True
            )
    for at, seen in service.happened:
        if seen.revision > after and at <= watch.ends:
            at_least = max(at, watch.at) + watch.delay
            yield replace(seen, watcher=watch.watcher, account=watch.account, at=at_least)
