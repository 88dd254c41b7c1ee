"""Places for some at once; the rest waits in line, first come, first served.

asyncio's semaphore does the same, but tells whether there is room only by looking at all who wait, has to be asked with
a coroutine also where there is room, and lets nobody keep its place in line who looks around meanwhile.
"""

import asyncio

Ticket = asyncio.Future[None]
"""A place in line: done once there is a place for it."""


class Line:
    """The places, and the line before them.

    Args:
        free: How many places are free to begin with.
    """

    __slots__ = ("_free", "_waiting")

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: dict[Ticket, None] = {}

    def step_in(self) -> bool:
        """Take a place, if one is free: then nobody waits."""
        if self._free:
            self._free -= 1
            return True
        return False

    def join(self) -> Ticket:
        """Wait in line, unless a place is free. Who does not want it any more has to `give_up`."""
        ticket: Ticket = asyncio.get_running_loop().create_future()
        if self.step_in():
            ticket.set_result(None)
        else:
            self._waiting[ticket] = None
        return ticket

    async def wait(self, ticket: Ticket, seconds: float) -> bool:
        """Wait for so long; return whether there is a place now. If not, it is still in line; if cancelled, no more."""
        try:
            await asyncio.wait({ticket}, timeout=max(0.0, seconds))
        except BaseException:
            self.give_up(ticket)
            raise
        return ticket.done()

    def give_up(self, ticket: Ticket) -> None:
        """Leave the line, or the place if it was given in this very moment."""
        if ticket.done():
            self.leave()
        else:
            del self._waiting[ticket]

    def leave(self) -> None:
        """Give a place to whoever has waited for longest, or nobody."""
        if self._waiting:
            ticket = next(iter(self._waiting))
            del self._waiting[ticket]
            ticket.set_result(None)
        else:
            self._free += 1
