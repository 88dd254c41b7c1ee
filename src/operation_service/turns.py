"""One call after the other for each resource, so that only those of other replicas can get in between."""

from operation_service.clock import Deadline
from operation_service.errors import ContentionError, StoreUnavailableError
from operation_service.line import Line
from operation_service.model import Resource
from operation_service.workers import Progress

_SILENT_SECONDS = 1.0
"""When no call for a resource is done for so long, it is etcd that does not answer: a call takes some milliseconds."""


class _Turn(Progress):
    """Whose turn it is for one resource: the first caller's, until it ends; the others wait in line."""

    __slots__ = ("callers", "line")

    def __init__(self) -> None:
        super().__init__()
        self.callers = 1
        self.line: Line | None = None


class Turns:
    """The turns of all resources that are called for."""

    def __init__(self) -> None:
        self._turns: dict[Resource, _Turn] = {}

    def one(self, resource: Resource, deadline: Deadline) -> "_OneTurn":
        """Wait for a turn, and have it for as long as the `async with` block runs.

        Raises:
            ContentionError: It did not come before the deadline, though others had theirs.
            StoreUnavailableError: Nor did anybody else's: they wait for etcd.
        """
        return _OneTurn(self, resource, deadline)

    async def take(self, resource: Resource, deadline: Deadline) -> _Turn:
        """Wait for a turn. Raises as `one` does."""
        turn = self._turns.get(resource)
        if turn is None:
            turn = self._turns[resource] = _Turn()
            return turn
        turn.callers += 1
        if turn.line is None:
            turn.line = Line(0)
        try:
            await self._wait(turn, turn.line, resource, deadline)
        except BaseException:
            self._leave(turn, resource)
            raise
        return turn

    def end(self, turn: _Turn, resource: Resource, error: BaseException | None) -> None:
        """Let the next one have its turn.

        Args:
            turn: Whose end it is.
            resource: The resource.
            error: What the turn ended with.
        """
        turn.note(error)
        if turn.line is not None:
            turn.line.leave()
        self._leave(turn, resource)

    def _leave(self, turn: _Turn, resource: Resource) -> None:
        turn.callers -= 1
        if not turn.callers:
            del self._turns[resource]

    async def _wait(self, turn: _Turn, line: Line, resource: Resource, deadline: Deadline) -> None:
        done, seconds = turn.done, deadline.remaining()
        ticket = line.join()
        if await line.wait(ticket, seconds):
            return
        line.give_up(ticket)
        if turn.done == done and seconds >= _SILENT_SECONDS:
            raise StoreUnavailableError("earlier calls for the same resource still wait for it")
        raise ContentionError(resource, attempts=0)


class _OneTurn:
    """One call's turn."""

    __slots__ = ("_deadline", "_resource", "_turn", "_turns")

    def __init__(self, turns: Turns, resource: Resource, deadline: Deadline) -> None:
        self._turns = turns
        self._resource = resource
        self._deadline = deadline
        self._turn: _Turn | None = None

    async def __aenter__(self) -> None:
        self._turn = await self._turns.take(self._resource, self._deadline)

    async def __aexit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if self._turn is not None:
            self._turns.end(self._turn, self._resource, error)
