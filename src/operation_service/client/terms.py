"""What a peer asks for when it proposes."""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True)
class Terms:
    """What a hold asks for, with the acquisition and with each renewal.

    Attributes:
        project: The project of the resource.
        name: The name of the resource within its project.
        lock_for: For how many seconds the resource is to be locked, from each renewal on.
        disable_cancel: Whether CancelOperation is refused meanwhile.
    """

    project: str
    name: str
    lock_for: int
    disable_cancel: bool

    @property
    def resource(self) -> str:
        """The resource, as messages name it."""
        return f"{self.project}/{self.name}"

    def changed(self, lock_for: int | None, disable_cancel: bool | None) -> Self:
        """Return the same but for what is not None."""
        return replace(
            self,
            lock_for=self.lock_for if lock_for is None else lock_for,
            disable_cancel=self.disable_cancel if disable_cancel is None else disable_cancel,
        )
