"""What a run comes to: sums over its history, as a table for people and as JSON. Pure."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise

from chaos.allowance import PROMISED_SECONDS
from chaos.checker_facts import EXPIRIES, Facts
from chaos.history import Call, Entry, Fault, Outcome, Seen, Update
from chaos.takeover import Takeover, takeovers

_SHOWN = 10


@dataclass(frozen=True)
class Run:
    """What the history does not tell.

    Attributes:
        seed: Which schedule.
        seconds: For how long faults were made.
        began: When the clients began.
        quiet_at: When the last fault was mended.
        broken: Which mistake was built into the replicas. Empty: none.
        left_out: What could not be done on this machine.
        skipped: How many faults found nothing to be done to.
        resumptions: How often a watch was resumed.
        new_accounts: How often a watch had to begin anew.
        peak_rss: Of each replica, in bytes.
        problems: What went wrong beside what the checker finds: a replica that did not come back, for example.
    """

    seed: int
    seconds: float
    began: float
    quiet_at: float
    broken: str = ""
    left_out: tuple[str, ...] = ()
    skipped: int = 0
    resumptions: int = 0
    new_accounts: int = 0
    peak_rss: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Silence:
    """The longest time in which no call of any client was acknowledged."""

    seconds: float
    began: float
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Delays:
    """How many takeovers there were, and how long they took, in seconds."""

    count: int
    p50: float
    p99: float
    max: float
    over_limit: int

    @classmethod
    def of(cls, found: Iterable[Takeover]) -> "Delays":
        """Sum them up."""
        delays = sorted(each.delay for each in found)
        late = sum(delay > PROMISED_SECONDS for delay in delays)
        return cls(len(delays), percentile(delays, 0.5), percentile(delays, 0.99), max(delays, default=0.0), late)


@dataclass(frozen=True)
class Report:
    """All of it."""

    run: Run
    faults: dict[str, tuple[int, float]]
    calls: dict[str, dict[str, int]]
    events: int
    together: tuple[int, int]
    updates: dict[str, int]
    silence: Silence
    quiet_takeovers: Delays
    all_takeovers: Delays
    takeovers: tuple[Takeover, ...]
    violations: tuple[str, ...]

    @property
    def changes(self) -> int:
        """How many were acknowledged."""
        return sum(counts.get(Outcome.OK, 0) for rpc, counts in self.calls.items() if rpc != "get")

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of some sorted values that so many of them do not exceed; 0 of none."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else 0.0


def longest_silence(calls: Iterable[Call], faults: Sequence[Fault], began: float, ended: float) -> Silence:
    """Find the longest time between two acknowledged calls, and what was done to the cluster meanwhile."""
    successes = sorted(call.ended for call in calls if call.outcome is Outcome.OK and began <= call.ended <= ended)
    moments = [began, *successes, ended]
    gaps = [(after - before, before) for before, after in pairwise(moments)]
    seconds, since = max(gaps)
    meanwhile = [fault for fault in faults if fault.began <= since + seconds and fault.ended >= since]
    return Silence(seconds, since, tuple(f"{fault.kind} ({fault.target})" for fault in meanwhile))


def make_report(run: Run, entries: Sequence[Entry], violations: Sequence[str]) -> Report:
    """Sum a history up."""
    calls = [entry for entry in entries if isinstance(entry, Call)]
    faults = sorted((entry for entry in entries if isinstance(entry, Fault)), key=lambda fault: fault.began)
    found = takeovers(Facts(entries), faults)
    return Report(
        run=run,
        faults=_faults(faults),
        calls=_calls(calls),
        events=sum(isinstance(entry, Seen) for entry in entries),
        together=_together(entry for entry in entries if isinstance(entry, Seen)),
        updates=dict(Counter(entry.outcome.value for entry in entries if isinstance(entry, Update))),
        silence=longest_silence(calls, faults, run.began, run.quiet_at),
        quiet_takeovers=Delays.of(each for each in found if each.is_quiet),
        all_takeovers=Delays.of(found),
        takeovers=tuple(found),
        violations=tuple(violations),
    )


def _together(events: Iterable[Seen]) -> tuple[int, int]:
    """Return how many changes were committed together with others, and how many there were, as the watchers saw."""
    by_revision: dict[int, set[str]] = {}
    for seen in events:
        if not seen.is_present and seen.event not in EXPIRIES:
            by_revision.setdefault(seen.record_revision, set()).add(seen.resource)
    sizes = [len(resources) for resources in by_revision.values()]
    return sum(size for size in sizes if size > 1), sum(sizes)


def _faults(faults: Iterable[Fault]) -> dict[str, tuple[int, float]]:
    sums: dict[str, tuple[int, float]] = {}
    for fault in faults:
        count, seconds = sums.get(fault.kind, (0, 0.0))
        sums[fault.kind] = (count + 1, seconds + fault.ended - fault.began)
    return dict(sorted(sums.items()))


def _calls(calls: Iterable[Call]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for call in calls:
        what = call.outcome.value if call.outcome is Outcome.OK else f"{call.outcome.value} {call.reason}"
        counts.setdefault(call.rpc, Counter())[what] += 1
    return {rpc: dict(counts[rpc].most_common()) for rpc in sorted(counts)}


def as_text(report: Report, problems: Sequence[str] = ()) -> str:
    """Write the table for people, with what was found wrong beside the violations."""
    run = report.run
    lines = [f"seed {run.seed}, {run.seconds:.0f} s" + (f", broken on purpose: {run.broken}" if run.broken else "")]
    lines += [f"left out: {what}" for what in run.left_out]
    lines += ["", f"{'fault':<28}{'count':>6}{'seconds':>9}"]
    lines += [f"{kind:<28}{count:>6}{seconds:>9.1f}" for kind, (count, seconds) in report.faults.items()]
    if run.skipped:
        lines.append(f"{'(found nothing to hurt)':<28}{run.skipped:>6}")
    lines += ["", f"{'call':<10}{'ok':>7}{'refused':>9}{'unknown':>9}  why"]
    lines += [_call_line(rpc, counts) for rpc, counts in report.calls.items()]
    lines.append(f"updates of guarded values: {_counts(report.updates)}")
    silence = report.silence
    during = ", ".join(silence.faults) or "no fault"
    lines += [
        "",
        f"longest time without success: {silence.seconds:.1f} s at {silence.began - run.began:.0f} s, during {during}",
        _delay_line("with no fault near", report.quiet_takeovers),
        _delay_line("all", report.all_takeovers),
        f"watches: {run.resumptions} resumed, {run.new_accounts} begun anew"
        + (" (what they missed before that is judged by what clients were told alone)" if run.new_accounts else ""),
        "peak memory: " + ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in sorted(run.peak_rss.items())),
        "",
        _judged_line(report),
        f"violations: {len(report.violations)} {_kinds(report.violations)}".rstrip(),
        *(f"  {violation.splitlines()[0]}" for violation in report.violations[:_SHOWN]),
    ]
    if len(report.violations) > _SHOWN:
        lines.append(f"  ... and {len(report.violations) - _SHOWN} more")
    lines += [f"problem: {problem}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"  ... and {len(problems) - _SHOWN} more")
    return "\n".join(lines)


def _judged_line(report: Report) -> str:
    calls = sum(sum(counts.values()) for counts in report.calls.values())
    changed = f"{report.events} events, {sum(report.updates.values())} updates"
    together, changes = report.together
    return (
        f"judged: {calls} calls, {changed}, {report.all_takeovers.count} takeovers; "
        f"{together} of {changes} changes were committed together with others"
    )


def _kinds(violations: Sequence[str]) -> str:
    counts = Counter(violation.partition(":")[0] for violation in violations)
    return f"({_counts(dict(counts.most_common()))})" if counts else ""


def _call_line(rpc: str, counts: dict[str, int]) -> str:
    sums = Counter({outcome.value: 0 for outcome in Outcome})
    for what, count in counts.items():
        sums[what.partition(" ")[0]] += count
    why = {what.partition(" ")[2]: 0 for what in counts if " " in what}
    for what, count in counts.items():
        if " " in what:
            why[what.partition(" ")[2]] += count
    return f"{rpc:<10}{sums['ok']:>7}{sums['refused']:>9}{sums['unknown']:>9}  {_counts(why)}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{what} {count}" for what, count in counts.items())


def _delay_line(which: str, delays: Delays) -> str:
    if not delays.count:
        return f"takeover after a lock ran out, {which}: never"
    return (
        f"takeover after a lock ran out, {which}: {delays.count} times, p50 {delays.p50:.2f} s, "
        f"p99 {delays.p99:.2f} s, max {delays.max:.2f} s, {delays.over_limit} over {PROMISED_SECONDS} s"
    )
