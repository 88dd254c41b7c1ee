"""A little lock service that keeps its contract: as few lines as its rules need, no I/O and no clock."""

from dataclasses import dataclass, field

from chaos.history import Entry, Seen

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


@dataclass
class Record:
    """What is there of one resource, and of the value that its lock guards."""

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
class Service:
    """All resources, what happened to them, and what was recorded of it."""

    expiry_lag: float
    records: dict[str, Record] = field(default_factory=dict)
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
        record = self.records.setdefault(request.resource, Record())
        is_locked, is_own = record.state == "LOCKED", record.token == request.token
        if request.rpc == "complete" and record.state == "SUCCEEDED" and is_own and sent in {0, record.fence}:
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

    def change(self, record: Record, request: Request, now: float) -> str:
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
