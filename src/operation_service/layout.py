"""Which layout the keys have: a number in etcd, `{prefix}layout`, that every change is guarded by.

So two versions of the service can run side by side while one takes over from the other, but a version never changes
what a newer one has laid out in another way. What was written before there was such a number has layout 1.

- If the answer never comes: a change is as unclear as without the guard; the number itself is written again.
- If another replica was faster: who finds the number there reads it, and writes none.
- If a newer version puts a newer number between a look and a change: the change is not made, since the guard is a part
  of its transaction.
"""

import contextlib

from etcd3 import etcdrpc

from operation_service import etcd_ops
from operation_service.clock import Deadline
from operation_service.errors import LayoutError, StoreUnavailableError
from operation_service.etcd_client import EtcdClient
from operation_service.keys import Keys

LAYOUT = 1
"""The one that this version reads and writes."""
_WRITTEN = str(LAYOUT).encode()
_ATTEMPTS = 3


class Layout:
    """Guards what is written under a prefix.

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

    async def check(self, deadline: Deadline) -> bool:
        """Make sure that the layout is this version's; return whether its number is there at all.

        Raises:
            LayoutError: It is not.
            StoreUnavailableError: etcd could not be reached before the deadline.
        """
        found = await self._etcd.range(etcdrpc.RangeRequest(key=self._key), deadline)
        for kv in found.kvs:
            self._compare(kv.value)
        return bool(found.kvs)

    async def settle(self, deadline: Deadline) -> None:
        """Make sure of the layout, and write its number if it is not there.

        Raises:
            LayoutError: It is another version's.
            StoreUnavailableError: etcd could not be reached before the deadline.
            StoreOutOfSpaceError: etcd takes no changes; the number is not there yet.
        """
        if await self.check(deadline):
            return
        put = etcdrpc.RequestOp(request_put=etcdrpc.PutRequest(key=self._key, value=_WRITTEN))
        is_new = etcdrpc.TxnRequest(compare=[etcd_ops.unchanged(self._key, 0)], success=[put])
        with contextlib.suppress(_OutcomeUnknown):
            await self._once(is_new, deadline)
        # Another replica may have been faster, and it may be a newer one.
        if not await self.check(deadline):
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
                self._compare(found[0].value)
                # It was a guard of the transaction's own that failed.
                del response.responses[-1]
                return response
            # Deleted by hand, or not written yet since etcd was out of reach: nothing was changed.
            await self.settle(deadline)
        raise StoreUnavailableError("the number of the layout goes again and again")

    def _compare(self, value: bytes) -> None:
        if value != _WRITTEN:
            raise LayoutError(self._key.decode(), value.decode(errors="replace"), LAYOUT)


class _OutcomeUnknown(Exception):  # noqa: N818, what it is
    """Whether the number was written is for the next look to tell."""
