"""Whether a command gives what a page shows, apart from what differs from run to run."""

import re
from collections.abc import Sequence

MASKS = [
    (re.compile(pattern), mask)
    for pattern, mask in (
        # What differs by nature from run to run, and is checked to be of its kind.
        (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", "<time>"),
        (r'"retryDelay":\s*"\d+(\.\d+)?s"', '"retryDelay":<duration>'),
        (r'"remaining":\s*"\d+(\.\d+)?s"', '"remaining":<duration>'),
        (r"\b127\.0\.0\.1:\d+\b", "<address>"),
        (r'"(revision|fencingToken)":\s*"[1-9]\d*"', r'"\1":<number>'),
        (r'"fencing_token":\s*"?[1-9]\d*"?', '"fencing_token":<number>'),
        (r'"(dbSize|mod_revision)":[1-9]\d*', r'"\1":<number>'),
        (r"n0stack-fencing-token: [1-9]\d*", "n0stack-fencing-token: <number>"),
        # What `operation-service` prints for people; the width of a duration goes with it.
        (r"\b(revision|fencing token)( +)[1-9]\d*", r"\1\2<number>"),
        (r"\b\d+[dhm]\d\d[hms]\b *", "<duration> "),
        (r"\bis locked with [1-9]\d*", "is locked with <number>"),
        (r"\b[\w.?-]+@[\w.?-]+\b(:\d+(-\d+)?)?", "<person>"),
        (r"\b[0-9a-f]{32}\b", "<id>"),
        # A lock with neighbours lasts a little longer than asked for.
        (r"\"ttl_seconds\":\d+\.\d+", '"ttl_seconds":<number>'),
        (r"\b[0-9a-f]{64}\b", "<digest>"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", "<time>"),
        # protobuf's JSON for Go is free to put spaces here and there.
        (r"(?<=[,:{\[])[ \t]+", ""),
    )
]


def masked(lines: Sequence[str]) -> list[str]:
    """The lines, with what differs from run to run replaced by what it is."""
    text = "\n".join(line.rstrip() for line in lines)
    for pattern, mask in MASKS:
        text = pattern.sub(mask, text)
    return text.splitlines()


def is_shown(real: Sequence[str], shown: Sequence[str]) -> bool:
    """Whether the output is what the page shows; a line `...` there stands for any lines, at least one."""
    cut = "\0"
    expected = "\n".join(cut if line.strip() == "..." else line for line in masked(shown))
    pattern = re.escape(expected).replace(re.escape(cut), r"[^\n]*(?:\n[^\n]*)*?")
    return re.fullmatch(pattern, "\n".join(masked(real))) is not None
