"""What a run has to come to, beside a history without violations: the service answers, and in time. Pure."""

from collections.abc import Iterator

from chaos.allowance import PROMISED_SECONDS
from chaos.report import Report
from chaos.takeover import Takeover

_CHANGES_A_MINUTE = 60
"""Runs come to 370 and more."""
_SILENCE_SECONDS = 15.0
"""Runs come to less than 4, and to 5 after all was killed."""
_TOGETHER = 0.05
"""Runs come to a quarter."""
_LONG_SECONDS = 100.0
"""A run that lasts so long has calm times of its own."""


def shortcomings(report: Report) -> list[str]:
    """Return what a correct service, and a run that says anything about it, cannot come to; a line each."""
    return [*late_takeovers(report), *_too_little(report)]


def late_takeovers(report: Report) -> list[str]:
    """Return which takeovers came later than they may; a line each."""
    return [_late(each, each.told_until - report.run.began) for each in report.takeovers if each.is_late]


def _late(takeover: Takeover, at: float) -> str:
    allowed = f"{PROMISED_SECONDS} s are promised, {takeover.allowed:.1f} s can be excused"
    near = "no fault near" if takeover.is_quiet else "the faults near"
    return (
        f"{takeover.resource}, whose lock ran out at {at:.0f} s, was granted {takeover.delay:.1f} s later: "
        f"{allowed} with {near}"
    )


def _too_little(report: Report) -> Iterator[str]:
    seconds = max(1.0, report.run.quiet_at - report.run.began)
    if report.changes < _CHANGES_A_MINUTE * seconds / 60:
        yield f"{report.changes} changes were acknowledged in {seconds:.0f} s: less than {_CHANGES_A_MINUTE} a minute"
    if report.silence.seconds > _SILENCE_SECONDS:
        yield f"nothing was acknowledged for {report.silence.seconds:.1f} s: more than {_SILENCE_SECONDS:.0f} s"
    if seconds >= _LONG_SECONDS and not report.quiet_takeovers.count:
        yield "no lock that ran out was taken over with no fault near: nothing tells how long that takes"
    together, changes = report.together
    if seconds >= _LONG_SECONDS and together < changes * _TOGETHER:
        yield f"{together} of {changes} changes were committed together: nothing tells whether that is right"
    if seconds >= _LONG_SECONDS and not report.faults:
        yield "no fault was made"
