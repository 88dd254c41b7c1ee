"""What holds however peers come and go: the policy alone, over a model of what a commit does to a resource.

The model is an etcd of one resource. It knows nothing of the rules; what it remembers beside the snapshot (who was
granted the lock, every fencing token, how each operation looked last) is what the properties are checked against.
"""

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from msgspec.structs import replace
from unit_support import RESOURCE, a_lock

from operation_service.errors import NotFoundError, OperationCancelledError, RefusedError
from operation_service.model import (
    Append,
    Caller,
    Cancel,
    Command,
    Complete,
    Create,
    Failure,
    Phase,
    Propose,
    Record,
    Snapshot,
)
from operation_service.policy import Change, LockAction, Moment, Unchanged, decide, granted

START = datetime(2026, 1, 1, tzinfo=UTC)

tokens = st.sampled_from(["a", "b"])
messages = st.sampled_from(["", "line"])
seconds = st.sampled_from([1, 60])
flags = st.booleans()
fences = st.sampled_from([None, None, None, "own", "current", "earlier"])
"""Which fencing token comes with a call: none, the caller's latest, the one that is right, or some earlier one."""


class Etcd:
    """The keys of one resource, and what a change does to them."""

    def __init__(self) -> None:
        self.revision = 1
        self.snapshot = Snapshot(revision=1, is_confirmed=True)
        self.cancelled: frozenset[str] = frozenset()

    @property
    def is_kept_for_a_time(self) -> bool:
        """Rule 14: pending and locked records never go."""
        record, lock = self.snapshot.record, self.snapshot.lock
        return record is not None and lock is None and record.phase is not Phase.PENDING

    def seen_by(self, token: str) -> Snapshot:
        cancelled_lock = a_lock(token=token) if token in self.cancelled else None
        return replace(self.snapshot, revision=self.revision, cancelled_lock=cancelled_lock)

    def commit(self, token: str, change: Change) -> None:
        before = self.snapshot
        self.revision += 1
        record = change.record
        if record.fencing_token is None:
            record = replace(record, fencing_token=self.revision)
        after = replace(before, record=record, record_revision=self.revision)
        if change.action is LockAction.HOLD:
            created = before.fencing_token if before.lock else self.revision
            after = replace(
                after,
                lock=record.lock,
                lock_revision=self.revision,
                lock_lease=self.revision,
                fencing_token=created,
                remaining=timedelta(seconds=change.lock_for_seconds),
            )
        elif change.action is not LockAction.KEEP:
            after = unlocked(after)
        if change.action is LockAction.CANCEL:
            self.cancelled |= {token}
        self.snapshot = after

    def lock_runs_out(self) -> None:
        self.revision += 1
        self.snapshot = unlocked(self.snapshot)

    def record_goes(self) -> None:
        self.revision += 1
        self.snapshot = replace(self.snapshot, record=None, record_revision=0)


def unlocked(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, lock=None, lock_revision=0, lock_lease=0, fencing_token=0, remaining=None)


class Peers(RuleBasedStateMachine):
    """Two peers at one resource."""

    def __init__(self) -> None:
        super().__init__()
        self.etcd = Etcd()
        self.now = START
        self.calls = 0
        self.holder: str | None = None
        self.fences: list[int] = []
        self.own_fence: dict[str, int] = {}

    def caller(self, token: str, fence: str | None) -> Caller:
        known = {
            "own": self.own_fence.get(token, 0),
            "current": self.etcd.snapshot.fencing_token,
            "earlier": self.fences[0] if self.fences else 0,
        }
        return Caller(token, f"address of {token}", known[fence] if fence else None)

    def call(self, command: Command) -> None:
        """Make a call, and check what came of it."""
        self.calls += 1
        token, before = command.caller.token, self.etcd.seen_by(command.caller.token)
        moment = Moment(self.now, f"change {self.calls}")
        try:
            decision = decide(before, command, moment)
        except (RefusedError, NotFoundError) as refusal:
            self.check_refusal(before, command, refusal)
            return
        if isinstance(decision, Unchanged):
            self.check_unchanged(before, command)
            return
        self.check_change(before, command, decision)
        self.etcd.commit(token, granted(decision, self.now, decision.lock_for_seconds))
        self.check_lock(before, token, decision)

    def check_refusal(self, before: Snapshot, command: Command, refusal: Exception) -> None:
        """A free resource is granted to whoever asks; only a cancelled peer and a wrong fencing token are sent away."""
        assert (before.lock is None) == (self.holder is None)
        if isinstance(command, Propose) and self.holder in {None, command.caller.token}:
            fence = command.caller.fencing_token
            assert isinstance(refusal, OperationCancelledError) or fence not in {None, before.fencing_token or None}

    def check_unchanged(self, before: Snapshot, command: Command) -> None:
        """OK without a change is given only to who has done this very thing before."""
        record = before.record
        assert record is not None
        if isinstance(command, Create):
            assert (record.creator_token, record.request_digest) == (command.caller.token, command.request_digest)
            assert record.phase is Phase.PENDING or self.holder == command.caller.token
        else:
            assert isinstance(command, Complete)
            assert record.phase in {Phase.SUCCEEDED, Phase.FAILED}
            assert record.lock is not None
            assert record.lock.token == command.caller.token
            assert command.caller.fencing_token in {None, record.fencing_token}

    def check_change(self, before: Snapshot, command: Command, change: Change) -> None:
        """Nobody changes what another peer holds, and with a fencing token nobody changes what it does not fence."""
        caller, record = command.caller, change.record
        assert self.holder in {None, caller.token}
        assert caller.fencing_token in {None, before.fencing_token}
        assert caller.fencing_token != 0
        if isinstance(command, Append | Complete):
            assert self.holder == caller.token
        if before.record is not None and record.operation_id == before.record.operation_id:
            assert not change.starts_operation
            self.check_same_operation(before.record, change)
        else:
            assert change.starts_operation
            assert before.record is None or before.record.phase.is_over
            assert record.log_count == (1 if change.log else 0)

    def check_same_operation(self, before: Record, change: Change) -> None:
        """What is over stays over, logs only grow, and the request and who asked for it stay."""
        after = change.record
        assert not before.phase.is_over
        assert after.log_count == before.log_count + (1 if change.log else 0)
        assert change.request is None
        assert (after.request_digest, after.creator, after.creator_token) == (
            before.request_digest,
            before.creator,
            before.creator_token,
        )

    def check_lock(self, before: Snapshot, token: str, change: Change) -> None:
        """Every acquisition has a greater fencing token than all before it, and what the record tells is the lock's."""
        after = self.etcd.snapshot
        assert after.record is not None
        if change.action is LockAction.HOLD:
            assert after.lock is not None
            assert after.lock.token == token
            if before.lock is None:
                assert all(after.fencing_token > earlier for earlier in self.fences)
                assert token not in self.etcd.cancelled
                self.fences.append(after.fencing_token)
            self.holder, self.own_fence[token] = token, after.fencing_token
        elif change.action is not LockAction.KEEP:
            self.holder = None
        if after.lock is not None:
            assert after.record.fencing_token == after.fencing_token == self.fences[-1]
            assert after.record.lock == after.lock
            assert not after.record.phase.is_over
        assert (after.lock is None) == (self.holder is None)

    @rule(token=tokens, fence=fences, request=st.sampled_from([b"", b"x"]), message=messages)
    def create(self, token: str, fence: str | None, request: bytes, message: str) -> None:
        self.call(Create(RESOURCE, self.caller(token, fence), request or None, request.decode(), message))

    @rule(token=tokens, fence=fences, for_seconds=seconds, is_disabled=flags)
    def create_locked(self, token: str, fence: str | None, for_seconds: int, *, is_disabled: bool) -> None:
        self.call(Create(RESOURCE, self.caller(token, fence), b"x", "x", "", for_seconds, is_disabled))

    @rule(token=tokens, fence=fences, for_seconds=seconds, message=messages, is_disabled=flags)
    def propose(self, token: str, fence: str | None, for_seconds: int, message: str, *, is_disabled: bool) -> None:
        self.call(Propose(RESOURCE, self.caller(token, fence), for_seconds, message, is_disabled))

    @rule(token=tokens, fence=fences)
    def append(self, token: str, fence: str | None) -> None:
        self.call(Append(RESOURCE, self.caller(token, fence), "line"))

    @rule(token=tokens, fence=fences, message=messages, is_failed=flags)
    def complete(self, token: str, fence: str | None, message: str, *, is_failed: bool) -> None:
        failure = Failure(13, "broken") if is_failed else None
        self.call(Complete(RESOURCE, self.caller(token, fence), message, failure))

    @rule(token=tokens, fence=fences, message=messages)
    def cancel(self, token: str, fence: str | None, message: str) -> None:
        self.call(Cancel(RESOURCE, self.caller(token, fence), message))

    @rule(by=st.sampled_from([-3_600, 0, 30, 3_600]))
    def the_wall_clock_jumps(self, by: int) -> None:
        self.now += timedelta(seconds=by)

    @precondition(lambda self: self.etcd.snapshot.lock is not None)
    @rule()
    def the_lock_runs_out(self) -> None:
        self.etcd.lock_runs_out()
        self.holder = None

    @precondition(lambda self: self.etcd.cancelled)
    @rule()
    def the_cancelled_time_passes(self) -> None:
        self.etcd.cancelled = frozenset()

    @precondition(lambda self: self.etcd.is_kept_for_a_time)
    @rule()
    def the_retention_time_passes(self) -> None:
        self.etcd.record_goes()


TestPeers = Peers.TestCase
