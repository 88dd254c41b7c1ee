"""The operations that etcd transactions are made of, each by the name of what it is for."""

from etcd3 import etcdrpc

from operation_service.keys import KeyRange

Op = etcdrpc.RequestOp


def get(key: bytes, *, keys_only: bool = False, revision: int = 0) -> Op:
    """Read one key. Revision 0: as it is now."""
    return Op(request_range=etcdrpc.RangeRequest(key=key, keys_only=keys_only, revision=revision))


def get_range(keys: KeyRange, *, limit: int = 0, revision: int = 0) -> Op:
    """Read a range, in the order of its keys. Limit 0: all of it; revision 0: as it is now."""
    request = etcdrpc.RangeRequest(key=keys.start, range_end=keys.end, limit=limit, revision=revision)
    return Op(request_range=request)


def put(key: bytes, value: bytes, lease: int = 0) -> Op:
    """Write a key, and hang it on a lease. Lease 0: on none, even if it hung on one before."""
    return Op(request_put=etcdrpc.PutRequest(key=key, value=value, lease=lease))


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
