"""What the checker finds."""

from dataclasses import dataclass
from enum import StrEnum

from chaos.history import Entry


class Kind(StrEnum):
    """Which promise was broken."""

    TWO_HOLDERS = "two holders"
    EARLY_GRANT = "early grant"
    EARLY_EXPIRY = "early expiry"
    LOCKED_UNTIL = "locked_until"
    FENCING = "fencing token"
    ANSWER = "answer"
    LOST_CHANGE = "lost change"
    REPEATED_CHANGE = "repeated change"
    REFUSED_CHANGE = "refused change"
    FOREIGN_MESSAGE = "foreign message"
    ORDER = "order"
    EVENT = "event"
    LOGS = "logs"
    READ = "read"
    STALE_READ = "stale read"
    FUTURE_READ = "future read"
    WATCH_ORDER = "watch order"
    WATCH_GAP = "watch gap"
    WATCH_DISAGREEMENT = "watch disagreement"
    LOST_UPDATE = "lost update"
    REPEATED_UPDATE = "repeated update"
    REFUSED_UPDATE = "refused update"
    FOREIGN_ELEMENT = "foreign element"
    UPDATE_ORDER = "update order"


@dataclass(frozen=True, slots=True)
class Violation:
    """One promise that the service did not keep.

    Attributes:
        kind: Which.
        resource: Of which resource.
        what: What happened, for people.
        entries: What tells so.
    """

    kind: Kind
    resource: str
    what: str
    entries: tuple[Entry, ...]

    def __str__(self) -> str:
        return "\n    ".join((f"{self.kind}: {self.resource}: {self.what}", *map(str, self.entries)))
