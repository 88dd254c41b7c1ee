"""What bad requests met, counted."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from fuzz.allowed import Allowance, allowance
from fuzz.connection import NOT_READING, SILENCE
from fuzz.lane import Kind

_EXAMPLES = 5


@dataclass
class Tally:
    """Counts by kind and reaction, and examples of what must not be."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    allowed: Counter[Allowance] = field(default_factory=Counter)
    failures: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, index: int, kind: Kind, reaction: str, detail: str) -> None:
        """Count one."""
        if allowed := allowance(reaction, detail):
            self.allowed[allowed] += 1
            reaction = f"{reaction} (allowed)"
        self.counts[kind.name][reaction] += 1
        if is_failure(kind, reaction):
            self.failures[kind.name, reaction].append(f"request {index}: {detail}")

    @property
    def total(self) -> int:
        return sum(counter.total() for counter in self.counts.values())

    def table(self) -> str:
        """All counts, a line for each kind, and the sums."""
        lines = [
            f"{kind:45} {counter.total():7}  " + ", ".join(f"{what} {count}" for what, count in counter.most_common())
            for kind, counter in sorted(self.counts.items())
        ]
        sums: Counter[str] = Counter()
        for counter in self.counts.values():
            sums.update(counter)
        lines += [
            "",
            *(f"{what:45} {count:7}" for what, count in sums.most_common()),
            f"{'requests':45} {self.total:7}",
        ]
        lines += [f"allowed {count} times: {each}" for each, count in self.allowed.most_common()]
        return "\n".join(lines)

    def complaints(self) -> list[str]:
        """What must not have been, each with a few examples."""
        return [
            f"{kind} met {reaction}, {len(examples)} times: " + "; ".join(examples[:_EXAMPLES])
            for (kind, reaction), examples in sorted(self.failures.items())
        ]


def is_failure(kind: Kind, reaction: str) -> bool:
    """Whether a caller must not be able to cause that."""
    if reaction == SILENCE:
        return not kind.may_be_silent
    return reaction in {"INTERNAL", "UNKNOWN", "DATA_LOSS", NOT_READING} or reaction.startswith("fuzz:")
