"""CONTRACT section 4, rule by rule: what is decided, given what is known, what is asked for, and now."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from unit_support import (
    CALLER,
    COMMANDS,
    FENCE,
    HOLDER,
    NEVER,
    NEWEST_LOG,
    NOW,
    OTHER,
    REMAINING,
    SELF,
    SINCE,
    SITUATIONS,
    UNTIL,
    a_lock,
    a_record,
    append,
    cancel,
    cancelled_peer,
    complete,
    create,
    expired,
    locked,
    over,
    pending,
    propose,
    without_record,
)

from operation_service.errors import (
    AlreadyExistsError,
    CancelDisabledError,
    FencingTokenMismatchError,
    LockedError,
    NotFoundError,
    NotLockedError,
    OperationCancelledError,
    OperationError,
    OperationOverError,
    TokenMismatchError,
    rfc3339,
)
from operation_service.model import Command, Event, Failure, Lock, Log, Phase, Record, Snapshot
from operation_service.policy import Change, LockAction, Moment, Unchanged, broken, decide, granted

MOMENT = Moment(NOW, "change-2")
OVER = (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)
FAILURE = Failure(13, "the disk is gone", (b"detail",))
PHASES = {
    Event.CREATED: Phase.PENDING,
    Event.LOCKED: Phase.PROPOSED,
    Event.RENEWED: Phase.PROPOSED,
    Event.LOGGED: Phase.PROPOSED,
    Event.SUCCEEDED: Phase.SUCCEEDED,
    Event.CANCELLED: Phase.CANCELLED,
}
WALL_TIMES = [SINCE, UNTIL - timedelta(microseconds=1), UNTIL, UNTIL + timedelta(microseconds=1), UNTIL.replace(2036)]

# The whole of section 4 at a glance. SELF created the operation and proposed for it; the rows say whose token calls,
# the columns what. "new": a new operation begins. "unchanged": OK, a retry is safe. "!": refused. The last word of a
# change is what becomes of the lock key.
TABLE = """
situation           | token | create           | propose          | append         | complete       | cancel
never               | self  | new CREATED keep | new LOCKED hold  | !NotFound      | !NotFound      | !NotFound
pending             | self  | unchanged        | LOCKED hold      | !NotLocked     | !NotLocked     | CANCELLED free
pending             | other | !AlreadyExists   | LOCKED hold      | !NotLocked     | !NotLocked     | CANCELLED free
locked              | self  | unchanged        | RENEWED hold     | LOGGED keep    | SUCCEEDED free | CANCELLED cancel
locked              | other | !Locked          | !Locked          | !TokenMismatch | !TokenMismatch | !TokenMismatch
locked, disabled    | self  | unchanged        | RENEWED hold     | LOGGED keep    | SUCCEEDED free | !CancelDisabled
locked, disabled    | other | !Locked          | !Locked          | !TokenMismatch | !TokenMismatch | !TokenMismatch
expired             | self  | !AlreadyExists   | LOCKED hold      | !NotLocked     | !NotLocked     | CANCELLED free
expired             | other | !AlreadyExists   | LOCKED hold      | !NotLocked     | !NotLocked     | CANCELLED free
expired, disabled   | self  | !AlreadyExists   | LOCKED hold      | !NotLocked     | !NotLocked     | CANCELLED free
expired, disabled   | other | !AlreadyExists   | LOCKED hold      | !NotLocked     | !NotLocked     | CANCELLED free
succeeded           | self  | new CREATED keep | new LOCKED hold  | !NotLocked     | unchanged      | !OperationOver
succeeded           | other | new CREATED keep | new LOCKED hold  | !NotLocked     | !NotLocked     | !OperationOver
failed              | self  | new CREATED keep | new LOCKED hold  | !NotLocked     | unchanged      | !OperationOver
failed              | other | new CREATED keep | new LOCKED hold  | !NotLocked     | !NotLocked     | !OperationOver
cancelled           | self  | new CREATED keep | new LOCKED hold  | !NotLocked     | !NotLocked     | !OperationOver
cancelled           | other | new CREATED keep | new LOCKED hold  | !NotLocked     | !NotLocked     | !OperationOver
lock without record | self  | !AlreadyExists   | new RENEWED hold | !NotFound      | !NotFound      | !NotFound
lock without record | other | !Locked          | !Locked          | !NotFound      | !NotFound      | !NotFound
"""


def cells() -> list[tuple[str, str, str, str]]:
    """Return (situation, token, command, expected) for each cell."""
    heads, *rows = ([cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines())
    tokens = {"self": SELF, "other": OTHER}
    return [
        (row[0], tokens[row[1]], command, expected)
        for row in rows
        for command, expected in zip(heads[2:], row[2:], strict=True)
    ]


every_cell = pytest.mark.parametrize(("situation", "token", "command", "expected"), cells())
every_change = pytest.mark.parametrize(
    ("situation", "token", "command"),
    [(*cell, command) for *cell, command, expected in cells() if expected[0] != "!" and expected != "unchanged"],
)
every_situation = pytest.mark.parametrize("snapshot", SITUATIONS.values(), ids=SITUATIONS)
every_command = pytest.mark.parametrize("command", COMMANDS)


def outcome(snapshot: Snapshot, command: Command) -> str:
    try:
        decision = decide(snapshot, command, MOMENT)
    except OperationError as refusal:
        return f"!{type(refusal).__name__.removesuffix('Error')}"
    if isinstance(decision, Unchanged):
        return "unchanged"
    return f"{'new ' * decision.starts_operation}{decision.record.event} {decision.action.name.lower()}"


def change(snapshot: Snapshot, command: Command, now: datetime = NOW) -> Change:
    decision = decide(snapshot, command, Moment(now, "change-2"))
    assert isinstance(decision, Change)
    return decision


def lock_after(snapshot: Snapshot, command: Command, now: datetime = NOW) -> Lock:
    lock = change(snapshot, command, now).record.lock
    assert lock is not None
    return lock


def record_of(snapshot: Snapshot) -> Record:
    assert snapshot.record is not None
    return snapshot.record


@every_cell
def test_every_command_in_every_situation(situation: str, token: str, command: str, expected: str) -> None:
    assert outcome(SITUATIONS[situation], COMMANDS[command](token)) == expected


@every_change
def test_the_phase_agrees_with_the_event(situation: str, token: str, command: str) -> None:
    record = change(SITUATIONS[situation], COMMANDS[command](token)).record
    assert record.phase is PHASES[record.event]


def test_the_table_has_every_situation() -> None:
    assert {situation for situation, *_ in cells()} == set(SITUATIONS)
    assert len(cells()) == len(COMMANDS) * (2 * len(SITUATIONS) - 1)


class TestRule1Acquire:
    def test_rule_1_a_proposal_for_a_resource_that_is_not_locked_takes_the_lock(self) -> None:
        lock = Lock(OTHER, CALLER, NOW, NOW + timedelta(seconds=30), 30, is_disabled_cancel=True)
        assert change(NEVER, propose(OTHER, is_disabled_cancel=True)) == Change(
            record=Record("change-2", Phase.PROPOSED, Event.LOCKED, "change-2", lock, fencing_token=None),
            action=LockAction.HOLD,
            starts_operation=True,
            lock_for_seconds=30,
        )

    @pytest.mark.parametrize("token", [SELF, OTHER])
    def test_rule_1_whoever_proposes_for_what_was_created_takes_the_lock_and_keeps_the_request(
        self, token: str
    ) -> None:
        before = record_of(pending())
        after = change(pending(), propose(token))
        assert (after.action, after.starts_operation, after.request) == (LockAction.HOLD, False, None)
        assert after.record == replace(
            before,
            phase=Phase.PROPOSED,
            event=Event.LOCKED,
            change_id="change-2",
            lock=Lock(token, CALLER, NOW, NOW + timedelta(seconds=30), 30, is_disabled_cancel=False),
            fencing_token=None,
        )

    @pytest.mark.parametrize("ttl_seconds", [30, 31, 3_600])
    def test_rule_1_locked_until_is_the_time_before_etcd_was_asked_plus_the_time_granted(
        self, ttl_seconds: int
    ) -> None:
        before = change(NEVER, propose(log_message="begin"))
        asked_at = NOW + timedelta(milliseconds=3)
        lock = before.record.lock
        assert lock is not None
        told = replace(lock, locked_until=asked_at + timedelta(seconds=ttl_seconds), ttl_seconds=ttl_seconds)
        assert granted(before, asked_at, ttl_seconds) == replace(before, record=replace(before.record, lock=told))

    @pytest.mark.parametrize("command", [append(), complete(), cancel()], ids=["append", "complete", "cancel"])
    def test_rule_1_what_acquires_nothing_is_granted_nothing(self, command: Command) -> None:
        before = change(locked(), command)
        assert granted(before, NOW.replace(2030), 99) == before

    def test_rule_1_a_pending_operation_is_granted_nothing(self) -> None:
        before = change(NEVER, create())
        assert granted(before, NOW.replace(2030), 99) == before


class TestRule2Renew:
    @pytest.mark.parametrize("seconds", [1, 30, 86_400], ids=["earlier than before", "shorter", "later"])
    def test_rule_2_a_renewal_sets_locked_until_to_now_plus_lock_for_seconds(self, seconds: int) -> None:
        assert lock_after(locked(), propose(lock_for_seconds=seconds)).locked_until == NOW + timedelta(seconds=seconds)
        assert change(locked(), propose(lock_for_seconds=seconds)).lock_for_seconds == seconds

    @pytest.mark.parametrize("before", [False, True])
    @pytest.mark.parametrize("asked", [False, True])
    def test_rule_2_a_renewal_sets_is_disabled_cancel_to_what_the_request_says(
        self, *, before: bool, asked: bool
    ) -> None:
        lock = lock_after(locked(is_disabled_cancel=before), propose(is_disabled_cancel=asked))
        assert lock.is_disabled_cancel is asked

    def test_rule_2_a_renewal_keeps_locked_since(self) -> None:
        assert lock_after(locked(), propose()).locked_since == SINCE

    def test_rule_2_a_renewal_keeps_the_fencing_token(self) -> None:
        assert change(locked(), propose()).record.fencing_token == FENCE

    def test_rule_2_a_renewal_keeps_the_operation_its_request_and_its_logs(self) -> None:
        after = change(locked(), propose())
        assert (after.starts_operation, after.request, after.log) == (False, None, None)
        assert after.record == replace(
            record_of(locked()), event=Event.RENEWED, change_id="change-2", lock=after.record.lock
        )

    def test_rule_2_a_renewal_tells_where_the_holder_calls_from_now(self) -> None:
        assert lock_after(locked(), propose()).holder == CALLER


class TestRule3Refuse:
    @pytest.mark.parametrize("now", WALL_TIMES, ids=str)
    @pytest.mark.parametrize("is_disabled_cancel", [False, True])
    @pytest.mark.parametrize("command", [propose(OTHER), create(OTHER)], ids=["propose", "create"])
    def test_rule_3_a_proposal_with_another_token_while_locked_is_refused_whatever_a_wall_clock_says(
        self, command: Command, now: datetime, *, is_disabled_cancel: bool
    ) -> None:
        with pytest.raises(LockedError):
            decide(locked(is_disabled_cancel=is_disabled_cancel), command, Moment(now, "change-2"))

    def test_rule_3_the_refusal_tells_who_holds_it_since_when_until_when_and_the_newest_log(self) -> None:
        with pytest.raises(LockedError) as caught:
            decide(locked(), propose(OTHER), MOMENT)
        assert caught.value.metadata == {
            "holder": HOLDER,
            "locked_since": "2026-01-02T03:03:45.678901Z",
            "locked_until": "2026-01-02T03:04:45.678901Z",
            "last_log": NEWEST_LOG.message,
        }

    def test_rule_3_the_retry_hint_is_the_time_left_until_locked_until(self) -> None:
        with pytest.raises(LockedError) as caught:
            decide(locked(), propose(OTHER), MOMENT)
        assert caught.value.retry_after == REMAINING

    @pytest.mark.parametrize(
        "snapshot",
        [locked(log_count=0, last_log=None), without_record()],
        ids=["no log yet", "record deleted by hand"],
    )
    def test_rule_3_without_a_log_the_newest_one_is_empty(self, snapshot: Snapshot) -> None:
        with pytest.raises(LockedError) as caught:
            decide(snapshot, propose(OTHER), MOMENT)
        assert caught.value.metadata["last_log"] == ""


class TestRule4TakeOver:
    @pytest.mark.parametrize("now", WALL_TIMES, ids=str)
    @pytest.mark.parametrize("token", [SELF, OTHER])
    @pytest.mark.parametrize("is_disabled_cancel", [False, True])
    def test_rule_4_after_the_lock_has_run_out_whoever_proposes_gets_it_whatever_a_wall_clock_says(
        self, token: str, now: datetime, *, is_disabled_cancel: bool
    ) -> None:
        snapshot = expired(is_disabled_cancel=is_disabled_cancel)
        assert lock_after(snapshot, propose(token), now) == Lock(
            token, CALLER, now, now + timedelta(seconds=30), 30, is_disabled_cancel=False
        )

    @pytest.mark.parametrize("token", [SELF, OTHER])
    def test_rule_4_the_operation_its_request_and_its_logs_stay(self, token: str) -> None:
        after = change(expired(), propose(token))
        assert (after.starts_operation, after.request, after.log) == (False, None, None)
        assert after.record == replace(
            record_of(expired()),
            event=Event.LOCKED,
            change_id="change-2",
            lock=after.record.lock,
            fencing_token=None,
        )

    def test_rule_4_a_take_over_goes_on_with_the_logs(self) -> None:
        after = change(expired(), propose(OTHER, log_message="going on"))
        assert after.record.log_count == 3
        assert after.record.last_log == after.log == Log(NOW, "going on")

    def test_rule_4_a_take_over_is_locked_since_now(self) -> None:
        assert lock_after(expired(), propose(SELF)).locked_since == NOW


class TestRule5ANewOperation:
    @pytest.mark.parametrize("token", [SELF, OTHER])
    @pytest.mark.parametrize("phase", OVER)
    def test_rule_5_a_proposal_after_the_end_starts_a_new_operation_with_no_request_and_no_logs(
        self, phase: Phase, token: str
    ) -> None:
        after = change(over(phase, failure=FAILURE), propose(token))
        assert (after.starts_operation, after.request, after.log) == (True, None, None)
        assert after.record == Record(
            "change-2", Phase.PROPOSED, Event.LOCKED, "change-2", after.record.lock, fencing_token=None
        )

    @pytest.mark.parametrize("phase", OVER)
    def test_rule_5_the_first_log_of_a_new_operation_has_number_1(self, phase: Phase) -> None:
        assert change(over(phase), propose(log_message="begin")).record.log_count == 1

    @pytest.mark.parametrize("phase", OVER)
    def test_rule_5_its_lock_has_nothing_of_the_earlier_one(self, phase: Phase) -> None:
        assert lock_after(over(phase, lock=a_lock(is_disabled_cancel=True)), propose()) == Lock(
            SELF, CALLER, NOW, NOW + timedelta(seconds=30), 30, is_disabled_cancel=False
        )


class TestRule6Create:
    def test_rule_6_create_records_the_request_and_locks_nothing(self) -> None:
        assert change(NEVER, create(OTHER)) == Change(
            record=Record(
                "change-2",
                Phase.PENDING,
                Event.CREATED,
                "change-2",
                creator=CALLER,
                creator_token=OTHER,
                request_digest="digest",
            ),
            action=LockAction.KEEP,
            request=b"request",
            starts_operation=True,
        )

    def test_rule_6_create_takes_the_lock_too_if_lock_for_seconds_says_so(self) -> None:
        after = change(NEVER, create(OTHER, lock_for_seconds=30, is_disabled_cancel=True))
        assert (after.action, after.lock_for_seconds) == (LockAction.HOLD, 30)
        assert (after.request, after.starts_operation) == (b"request", True)
        assert after.record == Record(
            "change-2",
            Phase.PROPOSED,
            Event.LOCKED,
            "change-2",
            Lock(OTHER, CALLER, NOW, NOW + timedelta(seconds=30), 30, is_disabled_cancel=True),
            fencing_token=None,
            creator=CALLER,
            creator_token=OTHER,
            request_digest="digest",
        )

    @pytest.mark.parametrize("seconds", [0, 30])
    def test_rule_6_while_locked_by_another_peer_rule_3(self, seconds: int) -> None:
        with pytest.raises(LockedError) as caught:
            decide(locked(), create(OTHER, lock_for_seconds=seconds), MOMENT)
        assert caught.value.metadata["holder"] == HOLDER
        assert caught.value.retry_after == REMAINING

    @pytest.mark.parametrize("seconds", [0, 30])
    @pytest.mark.parametrize(
        ("snapshot", "state"),
        [
            (pending(), "PENDING"),
            (locked(), "LOCKED"),
            (expired(), "EXPIRED"),
            (expired(is_disabled_cancel=True), "OPERATOR_DEAD"),
            (without_record(), "LOCKED"),
        ],
        ids=["pending", "locked by the caller", "expired", "operator dead", "lock without record"],
    )
    def test_rule_6_while_another_operation_is_not_over_it_already_exists(
        self, snapshot: Snapshot, state: str, seconds: int
    ) -> None:
        another = create(request_digest="another", lock_for_seconds=seconds)
        with pytest.raises(AlreadyExistsError) as caught:
            decide(snapshot, another, MOMENT)
        assert caught.value.metadata == {"state": state}

    @pytest.mark.parametrize("seconds", [0, 30])
    @pytest.mark.parametrize("message", ["", "requested"])
    @pytest.mark.parametrize("snapshot", [pending(), locked(), locked(is_disabled_cancel=True)])
    def test_rule_6_asking_again_while_it_is_pending_or_locked_by_the_caller_changes_nothing(
        self, snapshot: Snapshot, message: str, seconds: int
    ) -> None:
        again = create(lock_for_seconds=seconds, log_message=message)
        assert isinstance(decide(snapshot, again, MOMENT), Unchanged)

    def test_rule_6_asking_again_without_a_request_changes_nothing(self) -> None:
        again = create(request=None, request_digest="")
        assert isinstance(decide(pending(request_digest=""), again, MOMENT), Unchanged)

    @pytest.mark.parametrize(
        ("snapshot", "command"),
        [
            (pending(), create(OTHER)),
            (pending(), create(request_digest="another")),
            (pending(), create(request=None, request_digest="")),
            (locked(), create(request_digest="another")),
            (locked(creator_token=OTHER), create()),
            (locked(creator_token="", request_digest=""), create(request=None, request_digest="")),
            (expired(), create()),
            (expired(is_disabled_cancel=True), create()),
        ],
        ids=[
            "another token",
            "another request",
            "no request",
            "another request while locked",
            "locked by the caller, created by another",
            "locked by the caller, begun with a proposal",
            "expired",
            "operator dead",
        ],
    )
    def test_rule_6_what_is_no_retry_is_refused(self, snapshot: Snapshot, command: Command) -> None:
        with pytest.raises(AlreadyExistsError):
            decide(snapshot, command, MOMENT)

    @pytest.mark.parametrize("token", [SELF, OTHER])
    @pytest.mark.parametrize("phase", OVER)
    def test_rule_6_after_the_end_the_same_request_is_a_new_operation(self, phase: Phase, token: str) -> None:
        after = change(over(phase, failure=FAILURE), create(token, log_message="requested"))
        assert after.starts_operation
        assert (after.request, after.log) == (b"request", Log(NOW, "requested"))
        assert after.record == Record(
            "change-2",
            Phase.PENDING,
            Event.CREATED,
            "change-2",
            creator=CALLER,
            creator_token=token,
            request_digest="digest",
            log_count=1,
            last_log=Log(NOW, "requested"),
        )


class TestRule7TheTokenIsChecked:
    @pytest.mark.parametrize("is_disabled_cancel", [False, True])
    @pytest.mark.parametrize("command", ["create", "propose"])
    def test_rule_7_a_different_token_gets_locked_from_create_and_propose(
        self, command: str, *, is_disabled_cancel: bool
    ) -> None:
        with pytest.raises(LockedError):
            decide(locked(is_disabled_cancel=is_disabled_cancel), COMMANDS[command](OTHER), MOMENT)

    @pytest.mark.parametrize("is_disabled_cancel", [False, True])
    @pytest.mark.parametrize("command", ["append", "complete", "cancel"])
    def test_rule_7_a_different_token_gets_token_mismatch_from_append_complete_and_cancel(
        self, command: str, *, is_disabled_cancel: bool
    ) -> None:
        with pytest.raises(TokenMismatchError) as caught:
            decide(locked(is_disabled_cancel=is_disabled_cancel), COMMANDS[command](OTHER), MOMENT)
        assert caught.value.metadata == {
            "holder": HOLDER,
            "locked_since": rfc3339(SINCE),
            "locked_until": rfc3339(UNTIL),
        }
        assert caught.value.retry_after is None

    def test_rule_7_the_token_that_counts_is_the_locks_and_not_the_creators(self) -> None:
        taken_over = replace(locked(creator_token=OTHER), is_confirmed=True)
        assert outcome(taken_over, complete(SELF)) == "SUCCEEDED free"
        assert outcome(taken_over, complete(OTHER)) == "!TokenMismatch"


class TestRule8AppendAndCompleteNeedTheLock:
    @pytest.mark.parametrize("command", [append(), complete()], ids=["append", "complete"])
    @pytest.mark.parametrize(
        ("snapshot", "state"),
        [
            (pending(), "PENDING"),
            (expired(), "EXPIRED"),
            (expired(is_disabled_cancel=True), "OPERATOR_DEAD"),
            (over(Phase.CANCELLED), "CANCELLED"),
        ],
        ids=["pending", "expired", "operator dead", "cancelled"],
    )
    def test_rule_8_not_locked_is_refused_and_the_state_is_told(
        self, snapshot: Snapshot, state: str, command: Command
    ) -> None:
        with pytest.raises(NotLockedError) as caught:
            decide(snapshot, command, MOMENT)
        assert caught.value.metadata == {"state": state}

    @pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.FAILED])
    def test_rule_8_appending_to_what_is_completed_is_refused_for_its_peer_too(self, phase: Phase) -> None:
        with pytest.raises(NotLockedError) as caught:
            decide(over(phase), append(), MOMENT)
        assert caught.value.metadata == {"state": phase.value}

    @pytest.mark.parametrize("command", ["append", "complete", "cancel"])
    def test_rule_8_where_nothing_is_there_is_nothing_to_change(self, command: str) -> None:
        with pytest.raises(NotFoundError):
            decide(NEVER, COMMANDS[command](), MOMENT)

    def test_rule_8_append_adds_the_line_and_keeps_lock_and_operation(self) -> None:
        log = Log(NOW, "a step")
        assert change(locked(), append()) == Change(
            record=replace(record_of(locked()), event=Event.LOGGED, change_id="change-2", log_count=3, last_log=log),
            action=LockAction.KEEP,
            log=log,
        )

    def test_rule_8_complete_without_an_error_ends_it_as_succeeded_and_frees_the_lock(self) -> None:
        assert change(locked(), complete()) == Change(
            record=replace(record_of(locked()), phase=Phase.SUCCEEDED, event=Event.SUCCEEDED, change_id="change-2"),
            action=LockAction.FREE,
        )

    def test_rule_8_complete_with_an_error_ends_it_as_failed_with_that_error_and_frees_the_lock(self) -> None:
        assert change(locked(is_disabled_cancel=True), complete(failure=FAILURE)) == Change(
            record=replace(
                record_of(locked(is_disabled_cancel=True)),
                phase=Phase.FAILED,
                event=Event.FAILED,
                change_id="change-2",
                failure=FAILURE,
            ),
            action=LockAction.FREE,
        )

    @pytest.mark.parametrize("fence", [None, FENCE], ids=["without fencing token", "with its fencing token"])
    @pytest.mark.parametrize("failure", [None, FAILURE], ids=["as succeeded", "as failed"])
    @pytest.mark.parametrize("message", ["", "done"])
    @pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.FAILED])
    def test_rule_8_completing_again_with_the_same_token_changes_nothing(
        self, phase: Phase, message: str, failure: Failure | None, fence: int | None
    ) -> None:
        again = complete(fence=fence, failure=failure, log_message=message)
        assert isinstance(decide(over(phase), again, MOMENT), Unchanged)

    @pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.FAILED])
    def test_rule_8_completing_what_another_token_completed_is_refused(self, phase: Phase) -> None:
        with pytest.raises(NotLockedError):
            decide(over(phase), complete(OTHER), MOMENT)

    def test_rule_8_the_creator_did_not_complete_what_another_peer_completed(self) -> None:
        with pytest.raises(NotLockedError):
            decide(over(Phase.SUCCEEDED, lock=a_lock(token=OTHER)), complete(SELF), MOMENT)

    def test_rule_8_completing_what_was_cancelled_is_no_retry(self) -> None:
        with pytest.raises(NotLockedError):
            decide(cancelled_peer(over(Phase.CANCELLED)), complete(), MOMENT)

    def test_rule_8_completing_what_was_cancelled_before_anybody_proposed_is_no_retry(self) -> None:
        with pytest.raises(NotLockedError):
            decide(over(Phase.CANCELLED, lock=None, fencing_token=0), complete(), MOMENT)

    @pytest.mark.parametrize("fence", [0, FENCE - 1, FENCE + 1])
    def test_rule_8_completing_again_with_the_fencing_token_of_another_lock_is_refused(self, fence: int) -> None:
        with pytest.raises(FencingTokenMismatchError):
            decide(over(Phase.SUCCEEDED), complete(fence=fence), MOMENT)


class TestRule9Cancel:
    def test_rule_9_while_disabled_cancelling_is_refused_for_the_holder_too(self) -> None:
        with pytest.raises(CancelDisabledError) as caught:
            decide(locked(is_disabled_cancel=True), cancel(SELF), MOMENT)
        assert caught.value.metadata == {
            "holder": HOLDER,
            "locked_since": rfc3339(SINCE),
            "locked_until": rfc3339(UNTIL),
        }
        assert caught.value.retry_after == REMAINING

    def test_rule_9_what_the_latest_renewal_said_counts(self) -> None:
        enabled = replace(locked(), record=a_record(lock=a_lock(is_disabled_cancel=True)))
        assert outcome(enabled, cancel()) == "CANCELLED cancel"

    def test_rule_9_otherwise_the_operation_becomes_cancelled_and_its_holder_is_remembered(self) -> None:
        assert change(locked(), cancel()) == Change(
            record=replace(record_of(locked()), phase=Phase.CANCELLED, event=Event.CANCELLED, change_id="change-2"),
            action=LockAction.CANCEL,
        )

    @pytest.mark.parametrize("token", [SELF, OTHER])
    @pytest.mark.parametrize(
        "snapshot",
        [pending(), expired(), expired(is_disabled_cancel=True)],
        ids=["pending", "expired", "operator dead"],
    )
    def test_rule_9_what_nobody_holds_may_be_cancelled_by_anybody(self, snapshot: Snapshot, token: str) -> None:
        after = change(snapshot, cancel(token))
        assert (after.record.phase, after.action) == (Phase.CANCELLED, LockAction.FREE)
        assert after.record.lock == record_of(snapshot).lock

    @pytest.mark.parametrize("token", [SELF, OTHER])
    @pytest.mark.parametrize("phase", OVER)
    def test_rule_9_cancelling_what_is_over_is_refused(self, phase: Phase, token: str) -> None:
        with pytest.raises(OperationOverError) as caught:
            decide(over(phase), cancel(token), MOMENT)
        assert caught.value.metadata == {"state": phase.value}

    @every_situation
    @pytest.mark.parametrize(
        "command", [propose(OTHER), create(OTHER, lock_for_seconds=30)], ids=["propose", "create with a lock"]
    )
    def test_rule_9_the_cancelled_holder_finds_out_whatever_has_happened_since(
        self, snapshot: Snapshot, command: Command
    ) -> None:
        with pytest.raises(OperationCancelledError):
            decide(cancelled_peer(snapshot), command, MOMENT)

    @pytest.mark.parametrize("token", [SELF, OTHER])
    def test_rule_9_other_peers_may_propose_at_once_and_the_holder_once_its_time_has_passed(self, token: str) -> None:
        assert outcome(over(Phase.CANCELLED), propose(token)) == "new LOCKED hold"

    def test_rule_9_the_cancelled_holder_may_ask_for_an_operation_that_it_does_not_hold(self) -> None:
        assert outcome(cancelled_peer(over(Phase.CANCELLED)), create()) == "new CREATED keep"

    def test_rule_9_the_cancelled_holder_may_still_cancel_what_nobody_holds(self) -> None:
        assert outcome(cancelled_peer(pending()), cancel()) == "CANCELLED free"


LOGGING: list[tuple[str, Snapshot]] = [
    ("create", NEVER),
    ("propose", NEVER),
    ("propose", pending()),
    ("propose", locked()),
    ("propose", expired()),
    ("complete", locked()),
    ("cancel", locked()),
    ("cancel", expired()),
]


class TestRule10Logs:
    @pytest.mark.parametrize(("command", "snapshot"), [*LOGGING, ("append", locked())])
    @pytest.mark.parametrize("now", [NOW, SINCE.replace(2020)], ids=["now", "a clock that went back"])
    def test_rule_10_a_log_message_adds_one_log_stamped_with_the_services_time(
        self, command: str, snapshot: Snapshot, now: datetime
    ) -> None:
        before = snapshot.record.log_count if snapshot.record else 0
        after = change(snapshot, COMMANDS[command](log_message="line"), now)
        assert after.log == after.record.last_log == Log(now, "line")
        assert after.record.log_count == before + 1

    @pytest.mark.parametrize(("command", "snapshot"), LOGGING)
    def test_rule_10_an_empty_log_message_adds_none(self, command: str, snapshot: Snapshot) -> None:
        before = snapshot.record or Record("", Phase.PENDING, Event.CREATED, "")
        after = change(snapshot, COMMANDS[command](log_message=""))
        assert after.log is None
        assert (after.record.log_count, after.record.last_log) == (before.log_count, before.last_log)

    def test_rule_10_create_with_a_lock_adds_its_log_once(self) -> None:
        after = change(NEVER, create(lock_for_seconds=30, log_message="begin"))
        assert (after.record.log_count, after.log) == (1, Log(NOW, "begin"))


class TestRule11Fencing:
    @pytest.mark.parametrize(
        ("snapshot", "command"),
        [
            (NEVER, propose()),
            (NEVER, create(lock_for_seconds=30)),
            (pending(), propose()),
            (expired(), propose(SELF)),
            (expired(), propose(OTHER)),
            *((over(phase), propose()) for phase in OVER),
            *((over(phase), create(lock_for_seconds=30)) for phase in OVER),
        ],
    )
    def test_rule_11_every_acquisition_gets_the_revision_of_its_own_change(
        self, snapshot: Snapshot, command: Command
    ) -> None:
        after = change(snapshot, command)
        assert (after.action, after.record.fencing_token) == (LockAction.HOLD, None)

    @pytest.mark.parametrize("command", ["propose", "append", "complete", "cancel"])
    def test_rule_11_while_held_the_lock_keys_token_stays_whatever_the_record_says(self, command: str) -> None:
        assert change(locked(fencing_token=FENCE - 1), COMMANDS[command]()).record.fencing_token == FENCE

    def test_rule_11_a_renewal_of_a_lock_whose_record_was_deleted_keeps_its_token(self) -> None:
        assert change(without_record(), propose()).record.fencing_token == FENCE

    @pytest.mark.parametrize(("snapshot", "token"), [(pending(), 0), (expired(), FENCE)], ids=["pending", "expired"])
    def test_rule_11_cancelling_what_nobody_holds_tells_the_latest_locks_token(
        self, snapshot: Snapshot, token: int
    ) -> None:
        assert change(snapshot, cancel()).record.fencing_token == token

    def test_rule_11_a_pending_operation_has_no_token(self) -> None:
        assert change(over(Phase.SUCCEEDED), create()).record.fencing_token == 0

    @every_cell
    def test_rule_11_the_token_of_the_lock_that_is_there_changes_no_decision(
        self, situation: str, token: str, command: str, expected: str
    ) -> None:
        snapshot = SITUATIONS[situation]
        if snapshot.lock is not None or (expected == "unchanged" and command == "complete"):
            assert outcome(snapshot, COMMANDS[command](token, FENCE)) == expected
        else:
            assert outcome(snapshot, COMMANDS[command](token, FENCE)) == "!FencingTokenMismatch"

    @pytest.mark.parametrize("fence", [0, FENCE - 1, FENCE + 1])
    @pytest.mark.parametrize("token", [SELF, OTHER])
    @every_command
    @every_situation
    def test_rule_11_any_other_token_is_refused_always_and_before_the_peer_token_is_looked_at(
        self, snapshot: Snapshot, command: str, token: str, fence: int
    ) -> None:
        with pytest.raises(FencingTokenMismatchError) as caught:
            decide(snapshot, COMMANDS[command](token, fence), MOMENT)
        assert caught.value.metadata == {"fencing_token": str(snapshot.fencing_token)}

    def test_rule_11_a_renewal_never_silently_becomes_a_new_acquisition(self) -> None:
        assert outcome(locked(), propose(fence=FENCE)) == "RENEWED hold"
        for lost in (expired(), over(Phase.SUCCEEDED), over(Phase.CANCELLED), NEVER):
            assert outcome(lost, propose(fence=FENCE)) == "!FencingTokenMismatch"

    def test_rule_11_it_is_checked_before_the_cancelled_peer_is_told(self) -> None:
        assert outcome(cancelled_peer(over(Phase.CANCELLED)), propose(fence=FENCE)) == "!FencingTokenMismatch"


@every_change
def test_rule_13_every_change_carries_the_id_that_it_is_recognised_by(situation: str, token: str, command: str) -> None:
    assert change(SITUATIONS[situation], COMMANDS[command](token)).record.change_id == "change-2"


@every_cell
def test_rule_13_a_belief_is_decided_like_a_read(situation: str, token: str, command: str, expected: str) -> None:
    belief = replace(SITUATIONS[situation], is_confirmed=False)
    assert outcome(belief, COMMANDS[command](token)) == expected


def test_times_are_told_in_utc() -> None:
    assert rfc3339(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2026-01-02T03:04:05.000000Z"


# --- a lock that is broken from outside


@pytest.mark.parametrize(
    ("is_disabled_cancel", "event"), [(False, Event.EXPIRED), (True, Event.OPERATOR_DEAD)], ids=["EXPIRED", "DEAD"]
)
def test_a_broken_lock_is_one_that_has_run_out_and_whose_peer_is_refused(
    is_disabled_cancel: bool, event: Event
) -> None:
    lock, why = a_lock(is_disabled_cancel=is_disabled_cancel), Log(NOW, "broken by alice")
    before = a_record(lock=lock)
    change = broken(before, lock, why, "change-2")
    assert change == Change(
        replace(before, event=event, change_id="change-2", log_count=3, last_log=why), LockAction.CANCEL, log=why
    )
    assert change.record.phase is Phase.PROPOSED
    assert change.record.fencing_token == FENCE
