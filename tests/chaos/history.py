"""What the clients of a run asked, were answered and saw: the facts that the checker judges by.

All times are seconds of CLOCK_MONOTONIC, which all processes of one machine share. Everything is one line of JSON, so
that a client that is killed leaves what it wrote before, and a run that found something can be looked at again.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path

import msgspec


class Outcome(StrEnum):
    """What a client knows of what it asked for."""

    OK = "ok"
    """It was acknowledged."""
    REFUSED = "refused"
    """The service said that nothing was changed."""
    UNKNOWN = "unknown"
    """No answer, or one that says that nobody knows: it was made once, or never."""


class Call(msgspec.Struct, frozen=True, tag="call", kw_only=True):
    """One call of the operation service.

    Attributes:
        client: Which client; another one after a crash.
        rpc: "create", "propose", "append", "complete", "cancel" or "get".
        resource: Its name.
        token: The proposing_peer_token that was sent; empty for "get".
        began: Just before it was sent.
        ended: Just after it was answered, or was given up. A call that a killed client left open has no line.
        outcome: What the client knows.
        reason: Of one that is not OK: the ErrorInfo's reason, else the name of the status code.
        message: The log_message that was sent: no other call of the run sends the same one.
        sent_fencing_token: The fencing token that was sent as a precondition. 0: none.
        lock_for_seconds: As sent by "create" and "propose".
        is_disabled_cancel: As sent by "create" and "propose".
        fencing_token: As told in the answer. 0: none.
        told_until: Until when the client may rely on its lock: the answer's locked_until, on the monotonic clock; or
            `began + lock_for_seconds`, where the replica's wall clock is plainly wrong. 0: the answer shows no lock.
        said_until: The answer's locked_until on the monotonic clock, whether it can be right or not. 0: see told_until.
        replica: The address of the replica that acknowledged a change.
        revision: Of what "get" answered.
        state: Of what "get" answered, such as "LOCKED". Empty: NOT_FOUND.
        logs: The messages that "get", or a change, answered with: the newest 100, oldest first.
    """

    client: str
    rpc: str
    resource: str
    began: float
    ended: float
    outcome: Outcome
    token: str = ""
    reason: str = ""
    message: str = ""
    sent_fencing_token: int = 0
    lock_for_seconds: int = 0
    is_disabled_cancel: bool = False
    fencing_token: int = 0
    told_until: float = 0.0
    said_until: float = 0.0
    replica: str = ""
    revision: int = 0
    state: str = ""
    logs: tuple[str, ...] = ()


class Began(msgspec.Struct, frozen=True, tag="call_began", kw_only=True):
    """A call that changes something is about to be sent: all that is known of it if the client is killed.

    Its `Call` follows as the same client's next call with the same message; where none does, the outcome is unknown.
    """

    client: str
    rpc: str
    resource: str
    began: float
    token: str
    message: str
    lock_for_seconds: int = 0
    sent_fencing_token: int = 0


class WatchBegan(msgspec.Struct, frozen=True, tag="watch_began", kw_only=True):
    """A watcher begins a new account: what it sees from here on is complete, across all resumptions.

    Attributes:
        watcher: Which one.
        account: Its number: it grows with each beginning, after what a watcher missed was compacted away for example.
        at: When.
        start_revision: As sent. 0: what is there first.
    """

    watcher: str
    account: int
    at: float
    start_revision: int


class Seen(msgspec.Struct, frozen=True, tag="seen", kw_only=True):
    """One message of a watch.

    Attributes:
        watcher: Who saw it.
        account: In which account.
        at: When.
        is_present: Whether it tells what was there at the beginning (start_revision 0), and not a change.
        event: Such as "LOCKED".
        revision: The message's revision: resuming at the next one misses nothing.
        resource: Whose.
        record_revision: The record's revision.
        state: Of the record, such as "LOCKED".
        token: The proposing_peer_token that the record shows.
        fencing_token: Of the record.
        logs: The record's newest 100 messages, oldest first.
    """

    watcher: str
    account: int
    at: float
    event: str
    revision: int
    resource: str
    record_revision: int
    state: str
    token: str = ""
    fencing_token: int = 0
    logs: tuple[str, ...] = ()
    is_present: bool = False


class Update(msgspec.Struct, frozen=True, tag="update", kw_only=True):
    """One read-modify-write of the value that a lock guards: an element was added, under a fencing token.

    Attributes:
        client: Whose.
        resource: Under which lock.
        fencing_token: As told by the grant.
        element: What was added: no other update of the run adds the same one.
        began: Before the value was read.
        ended: After the write was answered, or given up.
        outcome: REFUSED where the store knew of a later fencing token.
    """

    client: str
    resource: str
    fencing_token: int
    element: str
    began: float
    ended: float
    outcome: Outcome


class UpdateBegan(msgspec.Struct, frozen=True, tag="update_began", kw_only=True):
    """An update is about to be written: all that is known of it if the client is killed before its `Update`.

    Attributes:
        client: Whose.
        resource: Under which lock.
        fencing_token: As told by the grant.
        element: What is to be added.
        began: Before the value was read.
    """

    client: str
    resource: str
    fencing_token: int
    element: str
    began: float


class FinalValue(msgspec.Struct, frozen=True, tag="final_value", kw_only=True):
    """The guarded value at the end of the run."""

    resource: str
    elements: tuple[str, ...]


class FinalRecord(msgspec.Struct, frozen=True, tag="final_record", kw_only=True):
    """What a resource looked like at the end of the run, when everything was well again and nobody called any more.

    Attributes:
        resource: Which.
        state: Empty: NOT_FOUND.
        revision: Of the record.
        fencing_token: Of the record.
        logs: The messages of all pages of ListOperationLogs, oldest first.
    """

    resource: str
    state: str
    revision: int = 0
    fencing_token: int = 0
    logs: tuple[str, ...] = ()


class Fault(msgspec.Struct, frozen=True, tag="fault", kw_only=True):
    """What was done to the cluster.

    Attributes:
        kind: Such as "kill leader".
        target: To what.
        began: When it was begun.
        ended: When it was mended.
        mending: When that was begun: a member that is started again takes a while. 0: with the fault itself.
    """

    kind: str
    target: str
    began: float
    ended: float
    mending: float = 0.0


class ClockSet(msgspec.Struct, frozen=True, tag="clock_set", kw_only=True):
    """The wall clock of a replica was put right, or wrong; the replica looks at it once a second.

    Attributes:
        replica: Its address, as clients know it.
        at: When.
        ahead: By how much it is ahead of the machine's from then on.
    """

    replica: str
    at: float
    ahead: float


Entry = Call | Began | WatchBegan | Seen | Update | UpdateBegan | FinalValue | FinalRecord | Fault | ClockSet

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)


class Recorder:
    """Appends to a file, each entry at once: a process that is killed loses nothing that it had recorded."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def add(self, entry: Entry) -> None:
        """Write one line."""
        self._file.write(_encoder.encode(entry) + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(paths: Iterable[Path]) -> Iterator[Entry]:
    """Read files of entries. The last line of a client that was killed in the middle of it is left out."""
    for path in paths:
        for line in path.read_bytes().split(b"\n")[:-1]:
            yield _decoder.decode(line)
