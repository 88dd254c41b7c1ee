"""Where things lie in etcd. People read these keys with `etcdctl get --prefix`; README documents them.

    {prefix}cancelled/{project}/{name}#{token hash}               a cancelled peer, leased like the lock it had
    {prefix}details/{project}/{name}#{operation id}/request       the operation_request
    {prefix}details/{project}/{name}#{operation id}/log/{number}  one log each, numbered from 0000000001
    {prefix}layout                                                the number of this layout (layout.py)
    {prefix}locks/{project}/{name}                                the lock, leased
    {prefix}records/{project}/{name}                              the operation

Neither a project nor a name can contain "#", so no resource's keys are a prefix of another's.
"""

import functools
import hashlib
from dataclasses import dataclass

from msgspec import Struct

from operation_service.model import Resource


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys from `start` on, up to and without `end`."""

    start: bytes
    end: bytes


def prefix_range(prefix: bytes) -> KeyRange:
    """Return the range of all keys that begin with a prefix; it is ASCII, so its last byte can be counted up."""
    return KeyRange(prefix, prefix[:-1] + bytes([prefix[-1] + 1]))


class ResourceKeys(Struct, frozen=True, gc=False):
    """A resource's two keys that nearly every change has to do with: the operation's and the lock's."""

    record: bytes
    lock: bytes


class Keys:
    """All keys under one prefix.

    Args:
        prefix: ASCII, ends with "/".
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.encode()
        self._records = self._prefix + b"records/"
        self._locks = self._prefix + b"locks/"
        self._cancelled = self._prefix + b"cancelled/"
        self._details = self._prefix + b"details/"
        self.layout = self._prefix + b"layout"
        self.watched = KeyRange(self.layout, prefix_range(self._records).end)
        """The layout's number, locks and records, in a row: that is what changes are told from."""

    def record(self, resource: Resource) -> bytes:
        """Return the key of the operation."""
        return self._records + str(resource).encode()

    def lock(self, resource: Resource) -> bytes:
        """Return the key of the lock."""
        return self._locks + str(resource).encode()

    def of(self, resource: Resource) -> ResourceKeys:
        """Return both of them."""
        name = str(resource).encode()
        return ResourceKeys(self._records + name, self._locks + name)

    def looked_at(self, resource: Resource, token: str) -> list[bytes]:
        """Return what is read to learn of a resource, as seen by the peer with a token (empty: by nobody)."""
        at = self.of(resource)
        return [at.record, at.lock, self.cancelled(resource, token)] if token else [at.record, at.lock]

    def lock_beside(self, record: bytes) -> bytes:
        """Return the key of the lock that belongs to a record's key."""
        return self._locks + record.removeprefix(self._records)

    def records(self, project: str, name_prefix: str) -> KeyRange:
        """Return the range of the records of a project, or of all (an empty project; then no name_prefix counts)."""
        return prefix_range(self._records + f"{project}/{name_prefix}".encode() if project else self._records)

    def locks_beside(self, records: KeyRange) -> KeyRange:
        """Return the range of the locks that belong to a range of records; it may end with the last of all."""
        return self._beside(self._locks, records)

    def details_beside(self, records: KeyRange) -> KeyRange:
        """Return the range of the details that belong to a range of records; it may end with the last of all.

        What is behind a name in their keys comes before all that can go on with a name, so their order is the same.
        """
        return self._beside(self._details, records)

    def record_beside(self, detail: bytes) -> bytes:
        """Return the key that stands where a detail's key does, in the order of the records."""
        return self._records + detail.removeprefix(self._details)

    def _beside(self, base: bytes, records: KeyRange) -> KeyRange:
        is_within = records.end.startswith(self._records)
        end = base + records.end.removeprefix(self._records) if is_within else prefix_range(base).end
        return KeyRange(base + records.start.removeprefix(self._records), end)

    def all_locks(self) -> KeyRange:
        """Return the range of all locks."""
        return prefix_range(self._locks)

    def all_cancelled(self) -> KeyRange:
        """Return the range of all cancelled peers."""
        return prefix_range(self._cancelled)

    def cancelled(self, resource: Resource, token: str) -> bytes:
        """Return the key that stands for a cancelled peer; the token itself may hold anything printable."""
        return self._cancelled + f"{resource}#{_digest(token)}".encode()

    def details(self, resource: Resource) -> KeyRange:
        """Return the range of everything that any operation of the resource has left."""
        return prefix_range(self._details + f"{resource}#".encode())

    def operation_details(self, resource: Resource, operation_id: str) -> KeyRange:
        """Return the range of everything that one operation has left."""
        return prefix_range(self._operation(resource, operation_id))

    def request(self, resource: Resource, operation_id: str) -> bytes:
        """Return the key of the operation_request."""
        return self._operation(resource, operation_id) + b"request"

    def log(self, resource: Resource, operation_id: str, number: int) -> bytes:
        """Return the key of one log; the first has number 1."""
        return self._operation(resource, operation_id) + b"log/%010d" % number

    def _operation(self, resource: Resource, operation_id: str) -> bytes:
        return self._details + f"{resource}#{operation_id}/".encode()

    def resource_of(self, key: bytes) -> Resource:
        """Return whose record or lock a key is.

        Raises:
            ValueError: It is neither.
        """
        name, _ = self.named(key)
        return resource_named(name)

    def named(self, key: bytes) -> tuple[bytes, bool]:
        """Return how a record's or a lock's key names its resource (`resource_named`), and whether it is the record.

        Raises:
            ValueError: It is neither.
        """
        if key.startswith(self._records):
            return key[len(self._records) :], True
        if key.startswith(self._locks):
            return key[len(self._locks) :], False
        raise ValueError(key)

    def resource_of_cancelled(self, key: bytes) -> Resource:
        """Return of whose peer a key says that it was cancelled.

        Raises:
            ValueError: It says so of none.
        """
        resource, _ = _around_hash(self._cancelled, key)
        return resource

    def operation_of(self, key: bytes) -> tuple[Resource, str]:
        """Return whose detail a key is: the resource and the operation's id.

        Raises:
            ValueError: It is none.
        """
        resource, rest = _around_hash(self._details, key)
        operation_id, _, _ = rest.partition("/")
        return resource, operation_id


def resource_named(name: bytes) -> Resource:
    """Return the resource that a key names.

    Raises:
        ValueError: It names none.
    """
    project, slash, rest = name.decode("ascii").partition("/")
    if not slash:
        raise ValueError(name)
    return Resource(project, rest)


@functools.lru_cache(maxsize=4_096)
def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:32]


def _around_hash(base: bytes, key: bytes) -> tuple[Resource, str]:
    """Return the resource that a key names behind its base, and what comes behind the "#".

    Raises:
        ValueError: It is no such key.
    """
    if not key.startswith(base):
        raise ValueError(key)
    resource, hash_sign, rest = key.removeprefix(base).decode("ascii").rpartition("#")
    project, slash, name = resource.partition("/")
    if not (hash_sign and slash):
        raise ValueError(key)
    return Resource(project, name), rest
