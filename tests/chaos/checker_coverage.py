"""Which of etcd's revisions the watchers' accounts cover: where a change cannot have been made without being told."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from chaos.history import Seen, WatchBegan


@dataclass(slots=True)
class Account:
    """One account of one watcher.

    Attributes:
        began: Its beginning. None: the history has lost it.
        seen: What it tells, in its order.
    """

    began: WatchBegan | None = None
    seen: list[Seen] = field(default_factory=list)

    @property
    def after(self) -> int:
        """Behind which revision it covers everything."""
        if self.began is not None and self.began.start_revision:
            return self.began.start_revision - 1
        # What is there comes in the order of the latest changes: whoever heard only a part of it resumes behind that.
        # Where nothing was there, nothing had happened before.
        present = max((seen.revision for seen in self.seen if seen.is_present), default=0)
        if self.began is None and not present:
            return min((seen.record_revision - 1 for seen in self.seen), default=0)
        return present

    @property
    def up_to(self) -> int:
        """The last revision that it covers; `after` if it covers none."""
        return max((seen.revision for seen in self.seen), default=self.after)


class Coverage:
    """All accounts together."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self._afters: list[int] = []
        self._up_tos: list[int] = []
        for after, up_to in sorted((account.after, account.up_to) for account in accounts):
            if self._up_tos and after <= self._up_tos[-1]:
                self._up_tos[-1] = max(self._up_tos[-1], up_to)
            else:
                self._afters.append(after)
                self._up_tos.append(up_to)

    def has_all(self, after: int, up_to: int) -> bool:
        """Whether every revision greater than `after`, up to `up_to`, is covered."""
        place = bisect_right(self._afters, after) - 1
        return after >= up_to or (place >= 0 and up_to <= self._up_tos[place])
