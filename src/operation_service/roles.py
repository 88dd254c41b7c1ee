"""What may be asked for: three roles, each on a project, and the one that each RPC needs. Pure.

n0stack's services say in the comment of each RPC which roles it needs (`required_roles`); so does the proto here, and a
test holds those comments to this table.
"""

from enum import StrEnum


class Role(StrEnum):
    """What somebody may do in a project."""

    READ = "read"
    """Look: operations, their logs, watches. The peer tokens in them stay hidden from those who may do no more."""
    WRITE = "write"
    """Ask for operations, and cancel them."""
    OPERATE = "operate"
    """Carry operations out: propose, append to the log, complete."""


INCLUDED: dict[Role, frozenset[Role]] = {
    Role.READ: frozenset({Role.READ}),
    # Whoever changes something is answered with the whole operation, and has to see what became of it: a client that
    # holds a lock watches it.
    Role.WRITE: frozenset({Role.READ, Role.WRITE}),
    Role.OPERATE: frozenset({Role.READ, Role.OPERATE}),
}
"""What each role allows."""

NEEDED: dict[str, Role] = {
    "CreateOperation": Role.WRITE,
    "ProposeOperation": Role.OPERATE,
    "AppendOperationLog": Role.OPERATE,
    "CompleteOperation": Role.OPERATE,
    "CancelOperation": Role.WRITE,
    "GetOperation": Role.READ,
    "ListOperations": Role.READ,
    "ListOperationLogs": Role.READ,
    "WatchOperations": Role.READ,
}
"""The role that each RPC needs on the request's project."""

OF_ALL_PROJECTS = frozenset({"ListOperations", "WatchOperations"})
"""The RPCs that may leave the project empty: then they tell of those that the caller may read."""
