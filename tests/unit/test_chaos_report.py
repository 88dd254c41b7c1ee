"""The sums of a chaos run."""

import msgspec
import pytest
from chaos.checker_facts import Facts
from chaos.history import Call, Fault, Outcome, Seen
from chaos.report import Delays, Run, as_text, longest_silence, make_report, percentile
from chaos.takeover import Takeover, takeovers

FORMER = Call(
    client="a",
    rpc="propose",
    resource="r",
    began=10.0,
    ended=10.1,
    outcome=Outcome.OK,
    token="a",
    lock_for_seconds=3,
    fencing_token=5,
    told_until=13.0,
)
POLLED = Call(
    client="b",
    rpc="propose",
    resource="r",
    began=12.9,
    ended=12.95,
    outcome=Outcome.REFUSED,
    token="b",
    reason="LOCKED",
)
NEXT = Call(
    client="b",
    rpc="propose",
    resource="r",
    began=13.4,
    ended=13.5,
    outcome=Outcome.OK,
    token="b",
    lock_for_seconds=3,
    fencing_token=9,
    told_until=16.4,
)
AGAIN = msgspec.structs.replace(POLLED, began=13.2, ended=13.21)
CALLS = [FORMER, POLLED, AGAIN, NEXT]
RUN = Run(seed=1, seconds=60, began=0.0, quiet_at=60.0)


def changed(call: Call, **facts: object) -> Call:
    return msgspec.structs.replace(call, **facts)


def test_a_takeover_is_measured_from_what_the_former_holder_was_told() -> None:
    (found,) = takeovers(Facts(CALLS), [])
    assert found == Takeover("r", 13.0, pytest.approx(0.5), is_quiet=True, allowed=4.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "calls",
    [
        [FORMER, NEXT],
        [FORMER, changed(POLLED, ended=12.0), NEXT],
        [FORMER, POLLED, NEXT],
        [*CALLS, changed(FORMER, rpc="complete", began=11.0, ended=11.1, told_until=0.0)],
        [FORMER, POLLED, AGAIN, changed(NEXT, token="a")],
        [*CALLS, changed(POLLED, outcome=Outcome.UNKNOWN, reason="UNAVAILABLE")],
        [changed(FORMER, lock_for_seconds=1), POLLED, AGAIN, NEXT],
    ],
    ids=[
        "nobody waited",
        "waited too early",
        "gave up",
        "completed",
        "by the same one",
        "an unclear call",
        "granted for longer",
    ],
)
def test_what_is_no_clear_takeover_does_not_count(calls: list[Call]) -> None:
    assert takeovers(Facts(calls), []) == []


def test_a_renewal_moves_the_deadline() -> None:
    renewal = changed(FORMER, began=12.0, ended=12.1, told_until=13.3)
    (found,) = takeovers(Facts([*CALLS, renewal]), [])
    assert found.delay == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("began", "ended", "is_quiet"), [(1.0, 7.9, True), (1.0, 8.1, False), (13.2, 20.0, False), (13.6, 20.0, True)]
)
def test_a_takeover_is_quiet_if_no_fault_was_near(began: float, ended: float, is_quiet: bool) -> None:
    (found,) = takeovers(Facts(CALLS), [Fault(kind="compact", target="etcd", began=began, ended=ended)])
    assert found.is_quiet is is_quiet


def test_percentiles() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (50.0, 99.0, 100.0)
    assert percentile([], 0.5) == 0.0


def test_delays_over_the_limit_are_counted() -> None:
    delays = Delays.of([Takeover("r", 0.0, delay, is_quiet=True, allowed=4.0) for delay in (0.5, 2.4, 2.6)])
    assert (delays.count, delays.over_limit, delays.max) == (3, 1, 2.6)


def test_the_longest_silence_names_what_was_done_meanwhile() -> None:
    faults = [
        Fault(kind="kill leader", target="m1", began=11.0, ended=12.0),
        Fault(kind="compact", target="etcd", began=14.0, ended=14.0),
    ]
    silence = longest_silence(CALLS, faults, began=10.0, ended=13.6)
    assert silence.seconds == pytest.approx(3.4)
    assert silence.faults == ("kill leader (m1)",)


def test_changes_that_were_committed_together_are_counted() -> None:
    def seen(revision: int, resource: str, event: str = "LOGGED", *, is_present: bool = False) -> Seen:
        return Seen(
            watcher="w1",
            account=1,
            at=1.0,
            event=event,
            revision=revision,
            resource=resource,
            record_revision=revision,
            state="LOCKED",
            token="a",
            fencing_token=1,
            logs=(),
            is_present=is_present,
        )

    events = [
        *(seen(5, resource) for resource in ("r1", "r2", "r2", "r3")),
        seen(6, "r1"),
        *(seen(7, resource, "EXPIRED") for resource in ("r1", "r2")),
        *(seen(8, resource, is_present=True) for resource in ("r1", "r2")),
    ]
    assert make_report(RUN, events, []).together == (3, 4)


def test_the_table_tells_calls_by_outcome_and_reason() -> None:
    report = make_report(RUN, CALLS, ["two holders: r: both\n    Call()"])
    text = as_text(report, ["s1 does not serve again"])
    assert report.calls == {"propose": {"ok": 2, "refused LOCKED": 2}}
    assert "LOCKED 2" in text
    assert "violations: 1 (two holders 1)\n  two holders: r: both" in text
    assert "judged: 4 calls, 0 events, 0 updates, 1 takeovers; 0 of 0 changes were committed together" in text
    assert "problem: s1 does not serve again" in text
