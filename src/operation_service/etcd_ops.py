"""The operations that etcd transactions are made of, each by the name of what it is for."""

from collections.abc import Sequence

from etcd3 import etcdrpc
from msgspec import Struct

from operation_service.keys import KeyRange

Op = etcdrpc.RequestOp

_MAX_KEYS = 16
"""3 guards, 4 puts, a delete, 2 ranges with two keys each, 3 reads otherwise, and one to spare."""
_MORE_IN_A_KEY = 80
"""Than in the first guard's: an operation's id and a log's number, and what messages have around a key."""


class Guard(Struct, frozen=True, gc=False):
    """That a key was last changed at a revision. 0: that it is not there (a missing key compares as 0)."""

    key: bytes
    mod_revision: int


class Put(Struct, frozen=True, gc=False):
    """A key to write, and the lease that it hangs on. Lease 0: on none, even if it hung on one before."""

    key: bytes
    value: bytes
    lease: int = 0


class Transaction(Struct, frozen=True, gc=False):
    """What is written of one resource if all guards hold, and what is read otherwise.

    It becomes a message once it is known whether it goes alone or as a part of another: a message would be copied.
    """

    guards: Sequence[Guard]
    puts: Sequence[Put]
    deletes: Sequence[bytes] = ()
    reads: Sequence[Op] = ()
    reads_otherwise: Sequence[bytes] = ()

    @property
    def size(self) -> int:
        """About how many bytes it takes in a request, and no fewer: all its keys name the same resource."""
        return _MAX_KEYS * (len(self.guards[0].key) + _MORE_IN_A_KEY) + sum([len(put.value) for put in self.puts])

    def write_into(self, request: etcdrpc.TxnRequest) -> None:
        """Add it to an empty request."""
        for guard in self.guards:
            compare = request.compare.add()
            compare.key = guard.key
            compare.target = etcdrpc.Compare.MOD
            compare.mod_revision = guard.mod_revision
        for each in self.puts:
            put = request.success.add().request_put
            put.key = each.key
            put.value = each.value
            put.lease = each.lease
        for key in self.deletes:
            request.success.add().request_delete_range.key = key
        if self.reads:
            request.success.extend(self.reads)
        for key in self.reads_otherwise:
            request.failure.add().request_range.key = key


def get(key: bytes, *, keys_only: bool = False, revision: int = 0) -> Op:
    """Read one key. Revision 0: as it is now."""
    return Op(request_range=etcdrpc.RangeRequest(key=key, keys_only=keys_only, revision=revision))


def get_range(keys: KeyRange, *, limit: int = 0, revision: int = 0) -> Op:
    """Read a range, in the order of its keys. Limit 0: all of it; revision 0: as it is now."""
    request = etcdrpc.RangeRequest(key=keys.start, range_end=keys.end, limit=limit, revision=revision)
    return Op(request_range=request)


def count(keys: KeyRange, *, revision: int = 0) -> Op:
    """Count the keys of a range. Revision 0: as it is now."""
    request = etcdrpc.RangeRequest(key=keys.start, range_end=keys.end, count_only=True, revision=revision)
    return Op(request_range=request)


def delete(key: bytes) -> Op:
    """Delete one key, if it is there."""
    return Op(request_delete_range=etcdrpc.DeleteRangeRequest(key=key))


def delete_range(keys: KeyRange) -> Op:
    """Delete a range of keys."""
    return Op(request_delete_range=etcdrpc.DeleteRangeRequest(key=keys.start, range_end=keys.end))


def nested(transaction: etcdrpc.TxnRequest) -> Op:
    """Make a whole transaction, with guards of its own, a part of another one."""
    return Op(request_txn=transaction)


def unchanged(key: bytes, mod_revision: int) -> etcdrpc.Compare:
    """Guard that a key was last changed at a revision. 0: that it is not there (a missing key compares as 0)."""
    return etcdrpc.Compare(key=key, target=etcdrpc.Compare.MOD, result=etcdrpc.Compare.EQUAL, mod_revision=mod_revision)
