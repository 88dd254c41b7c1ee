"""Which layout the keys have: a number in etcd, `{prefix}layout`. Changes are guarded by it, and reads read it too.

So two versions of the service can run side by side while one takes over from the other, but a version never changes
what a newer one has laid out in another way, and does not tell of it what it can only guess at. What was written before
there was such a number has layout 1. Watches hear of the number in order with all other changes (`changes.py`).

- If the answer never comes: a change is as unclear as without the guard; the number itself is written again.
- If another replica was faster: who finds the number there reads it, and writes none.
- If a newer version puts a newer number between a look and a change: the change is not made, since the guard is a part
  of its transaction. What is read is of the moment in which the number was right, for the same reason.
"""

import contextlib

from etcd3 import etcdrpc
from msgspec import Struct

from operation_service import etcd_ops
from operation_service.clock import Deadline
from operation_service.errors import LayoutError, StoreUnavailableError
from operation_service.etcd_client import EtcdClient
from operation_service.keys import Keys

LAYOUT = 1
"""The one that this version reads and writes."""
_WRITTEN = str(LAYOUT).encode()
_ATTEMPTS = 3


class LaidOut(Struct, frozen=True, gc=False):
    """That the layout is this version's.

    Attributes:
        revision: At which revision of etcd.
        since: From which revision on it has been so for certain. What was before is another question.
        is_written: Whether the number is there at all.
    """

    revision: int
    since: int
    is_written: bool


def compare(key: bytes, value: bytes) -> None:
    """Make sure that a number is that of this version's layout.

    Args:
        key: The number's key.
        value: What it says.

    Raises:
        LayoutError: It is another.
    """
    if value != _WRITTEN:
        raise LayoutError(key.decode(), value.decode(errors="replace"), LAYOUT)


class Layout:
    """Guards what is written and read under a prefix.

    Args:
        etcd: The client.
        keys: Where things lie.
    """

    def __init__(self, etcd: EtcdClient, keys: Keys) -> None:
        self._etcd = etcd
        self._key = keys.layout
        guard = etcdrpc.Compare(
            key=self._key, target=etcdrpc.Compare.VALUE, result=etcdrpc.Compare.EQUAL, value=_WRITTEN
        )
        guarded = etcdrpc.TxnRequest(compare=[guard], failure=[etcd_ops.get(self._key)])
        # To merge bytes costs a third of what to append two messages does.
        self._guard = guarded.SerializeToString()
        self._look = etcdrpc.TxnRequest(success=[etcd_ops.get(self._key)]).SerializeToString()

    async def check(self, deadline: Deadline, *, revision: int = 0) -> LaidOut:
        """Make sure that the layout is this version's, or (with a revision) that it was then.

        Raises:
            LayoutError: It is not.
            StoreUnavailableError: etcd could not be reached before the deadline.
            RevisionGoneError: The revision asked for is compacted.
        """
        found = await self._etcd.range(etcdrpc.RangeRequest(key=self._key, revision=revision), deadline)
        since = found.header.revision
        for kv in found.kvs:
            compare(kv.key, kv.value)
            since = kv.mod_revision
        return LaidOut(found.header.revision, since, bool(found.kvs))

    async def read(self, request: etcdrpc.TxnRequest, deadline: Deadline) -> etcdrpc.TxnResponse:
        """Carry out a transaction of ranges, if the layout is this version's. Raises like `EtcdClient.read`.

        The number is read, not compared: of an etcd that has to be asked for one range after the other no compare can
        be made, and where there is no number nothing has to be asked again.

        Args:
            request: The transaction; it is changed.
            deadline: For the answer.

        Raises:
            LayoutError: It is not.
        """
        request.MergeFromString(self._look)
        response = await self._etcd.read(request, deadline)
        for kv in response.responses[-1].response_range.kvs:
            compare(kv.key, kv.value)
        del response.responses[-1]
        return response

    async def settle(self, deadline: Deadline) -> None:
        """Make sure of the layout, and write its number if it is not there.

        Raises:
            LayoutError: It is another version's.
            StoreUnavailableError: etcd could not be reached before the deadline.
            StoreOutOfSpaceError: etcd takes no changes; the number is not there yet.
        """
        if (await self.check(deadline)).is_written:
            return
        put = etcdrpc.RequestOp(request_put=etcdrpc.PutRequest(key=self._key, value=_WRITTEN))
        is_new = etcdrpc.TxnRequest(compare=[etcd_ops.unchanged(self._key, 0)], success=[put])
        with contextlib.suppress(_OutcomeUnknown):
            await self._once(is_new, deadline)
        # Another replica may have been faster, and it may be a newer one.
        if not (await self.check(deadline)).is_written:
            raise StoreUnavailableError("the number of the layout has gone again")

    async def _once(self, request: etcdrpc.TxnRequest, deadline: Deadline) -> None:
        try:
            await self._etcd.write(request, deadline)
        except StoreUnavailableError as error:
            if error.is_outcome_unknown:
                raise _OutcomeUnknown from error
            raise

    async def write(self, request: etcdrpc.TxnRequest, deadline: Deadline) -> etcdrpc.TxnResponse:
        """Carry out a transaction, if the layout is this version's. Raises like `EtcdClient.write`.

        Args:
            request: The transaction; it is changed.
            deadline: For the answer.

        Raises:
            LayoutError: It is not; nothing was changed.
        """
        request.MergeFromString(self._guard)
        for _ in range(_ATTEMPTS):
            response = await self._etcd.write(request, deadline)
            if response.succeeded:
                return response
            found = response.responses[-1].response_range.kvs
            if found:
                compare(self._key, found[0].value)
                # It was a guard of the transaction's own that failed.
                del response.responses[-1]
                return response
            # Deleted by hand, or not written yet since etcd was out of reach: nothing was changed.
            await self.settle(deadline)
        raise StoreUnavailableError("the number of the layout goes again and again")


class _OutcomeUnknown(Exception):  # noqa: N818, what it is
    """Whether the number was written is for the next look to tell."""
