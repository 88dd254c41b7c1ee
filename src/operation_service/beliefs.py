"""What this replica last saw of resources: good enough to try a change on, and cheap to forget."""

from collections import OrderedDict

from operation_service import weights
from operation_service.model import Resource, Snapshot

_MAX_BYTES = 32 * 1024 * 1024
"""About 20,000 resources at common lengths. What falls out costs one more read."""


class Beliefs:
    """The latest snapshots, as many as there is room for.

    Args:
        max_bytes: That room.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._snapshots: OrderedDict[Resource, tuple[Snapshot, int]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._snapshots)

    def get(self, resource: Resource) -> Snapshot | None:
        """Return what is believed of a resource."""
        found = self._snapshots.get(resource)
        return found[0] if found else None

    def keep(self, resource: Resource, snapshot: Snapshot) -> None:
        """Believe this from now on; forget what has not been seen for longest."""
        size, known = weights.of_snapshot(snapshot), self._snapshots.pop(resource, None)
        self._snapshots[resource] = snapshot, size
        self._bytes += size - known[1] if known else size
        while self._bytes > self._max_bytes:
            _, (_, size) = self._snapshots.popitem(last=False)
            self._bytes -= size

    def forget(self, resource: Resource) -> None:
        """Believe nothing of a resource."""
        found = self._snapshots.pop(resource, None)
        self._bytes -= found[1] if found else 0
