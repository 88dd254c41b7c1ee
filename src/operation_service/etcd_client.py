"""The few calls of etcd that this service needs: deadlines, attempts at one member and another, errors translated here.

For every call the three questions of a distributed program are answered in one place:

- If the answer never comes: each attempt ends after `ATTEMPT_SECONDS` at the latest, and is made again at another
  member as long as the deadline allows, but only where repeating is harmless. `etcd_members.py` says at which.
- If another replica did it in between: no call here changes anything unguarded, except granting and revoking leases
  of our own.
- If this process was asleep for a minute: the attempt's time has passed, the error says so, and whoever called
  decides again on what it reads then.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from etcd3 import etcdrpc
from google.protobuf.message import Message
from grpc import StatusCode

from operation_service.clock import Deadline
from operation_service.errors import Fault, OperationError, StoreOutOfSpaceError, StoreUnavailableError
from operation_service.etcd_members import ATTEMPT_SECONDS, REFUSALS, EtcdObserver, Member, Members
from operation_service.etcd_reasons import reason_of, wants_a_token
from operation_service.grpc_calls import RpcError
from operation_service.grpc_client import Answer, UnaryCall
from operation_service.settings_tls import EtcdAccess

_PAUSE_SECONDS = 0.1
_GIVE_UP_AFTER_SECONDS = 5.0
"""Once etcd has been out of reach for this long, a call tries once and fails at once, so that calls do not pile up."""
_HISTORY_ATTEMPTS = 3


class LeaseGoneError(Exception):
    """A lease that a change wanted to use has ended; nothing of the change was made."""


class RevisionGoneError(Exception):
    """The revision to read at is not there: compacted away, or never reached."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as granted.

    Attributes:
        id: Its id.
        ttl_seconds: Its time, which may be more than was asked for.
        asked_at: The monotonic time just before the attempt that was answered: the lease began no earlier, and what
            other attempts may have been granted are other leases.
    """

    id: int
    ttl_seconds: int
    asked_at: float


class EtcdClient:
    """A client of one etcd cluster.

    Args:
        endpoints: URLs of members, "http://host:port" or "https://host:port".
        monotonic: The clock that leases are measured by, in seconds.
        observer: Sees every call, if anybody does.
        access: How etcd knows the service.
        probe: The key that is asked for when nothing but an answer is wanted: one that the service may read.
        is_telling: Whether what has to be set right goes to the log, besides to whoever called.

    Attributes:
        members: The members, and which of them is used.

    Raises:
        SettingsError: A file of `access` cannot be used.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        monotonic: Callable[[], float] = time.monotonic,
        observer: EtcdObserver | None = None,
        *,
        access: EtcdAccess | None = None,
        probe: bytes = b"pulse",
        is_telling: bool = True,
    ) -> None:
        self._monotonic = monotonic
        self._unreachable_since: float | None = None
        self.members = Members(endpoints, observer, access=access, probe=probe, is_telling=is_telling)

    async def close(self) -> None:
        """Close all connections."""
        await self.members.close()

    async def range(self, request: etcdrpc.RangeRequest, deadline: Deadline) -> etcdrpc.RangeResponse:
        """Read keys.

        Raises:
            StoreUnavailableError: etcd could not be reached before the deadline.
            RevisionGoneError: The revision asked for is compacted, or lies in the future.
        """
        return await self._call(lambda member: member.range, request, deadline)

    async def is_kept(self, key: bytes, revision: int, deadline: Deadline) -> bool:
        """Whether etcd can still be read as it was at a revision (0: as it is now, always).

        Args:
            key: One that may be read; whether it is there does not matter.
            revision: The revision.
            deadline: For the answer.

        Raises:
            StoreUnavailableError: etcd could not be reached before the deadline.
        """
        try:
            await self.range(etcdrpc.RangeRequest(key=key, count_only=True, revision=revision), deadline)
        except RevisionGoneError:
            return False
        return True

    async def read(self, request: etcdrpc.TxnRequest, deadline: Deadline) -> etcdrpc.TxnResponse:
        """Carry out a transaction of ranges, all of them at one revision. Raises like `range`."""
        if self.members.reads_at_once:
            try:
                return await self._call(lambda member: member.txn, request, deadline)
            except StoreOutOfSpaceError:
                # Some versions, 3.5.1 for one, refuse every transaction then; ranges alone they still answer.
                pass
        for _ in range(_HISTORY_ATTEMPTS):
            with contextlib.suppress(RevisionGoneError):
                return await self._read_one_by_one(request, deadline)
            if any(op.request_range.revision for op in request.success):
                raise RevisionGoneError
        raise StoreUnavailableError("it compacts its history faster than that can be read")

    async def _read_one_by_one(self, request: etcdrpc.TxnRequest, deadline: Deadline) -> etcdrpc.TxnResponse:
        answer = etcdrpc.TxnResponse(succeeded=True)
        for op in request.success:
            ask = etcdrpc.RangeRequest()
            ask.CopyFrom(op.request_range)
            ask.revision = ask.revision or answer.header.revision
            found = await self.range(ask, deadline)
            answer.responses.add().response_range.CopyFrom(found)
            if not answer.header.revision:
                answer.header.CopyFrom(found.header)
        return answer

    def write(self, request: etcdrpc.TxnRequest, deadline: Deadline) -> Coroutine[None, None, etcdrpc.TxnResponse]:
        """Carry out a transaction that may change something, once: an unclear outcome is for the caller to read back.

        Raises:
            StoreUnavailableError: etcd could not be reached; `is_outcome_unknown` says whether it may have been made.
            StoreOutOfSpaceError: etcd takes no changes.
            LeaseGoneError: A lease in it has ended; nothing was changed.
        """
        return self._call(lambda member: member.txn, request, deadline, is_repeatable=False)

    async def grant(self, ttl_seconds: int, deadline: Deadline) -> Lease:
        """Grant a lease. One whose answer was lost holds no key, and ends by itself.

        Raises:
            StoreUnavailableError: etcd could not be reached before the deadline.
            StoreOutOfSpaceError: etcd takes no changes.
        """
        request = etcdrpc.LeaseGrantRequest(TTL=ttl_seconds)
        asked_at = 0.0

        def rpc(member: Member) -> UnaryCall[etcdrpc.LeaseGrantResponse]:
            nonlocal asked_at
            asked_at = self._monotonic()
            return member.grant

        response = await self._call(rpc, request, deadline)
        return Lease(response.ID, response.TTL, asked_at)

    async def time_to_live(self, lease_id: int, deadline: Deadline) -> int:
        """Return the whole seconds that a lease has left, rounded down; -1 if it has ended.

        Raises:
            StoreUnavailableError: etcd could not be reached before the deadline.
        """
        request = etcdrpc.LeaseTimeToLiveRequest(ID=lease_id)
        try:
            response = await self._call(lambda member: member.time_to_live, request, deadline)
        except LeaseGoneError:
            return -1
        return response.TTL

    async def revoke(self, lease_id: int, deadline: Deadline) -> None:
        """End a lease, and delete the keys on it. One that has ended already is fine.

        Raises:
            StoreUnavailableError: etcd could not be reached before the deadline.
        """
        request = etcdrpc.LeaseRevokeRequest(ID=lease_id)
        try:
            await self._call(lambda member: member.revoke, request, deadline)
        except LeaseGoneError:
            return

    async def _call(
        self,
        rpc: Callable[[Member], UnaryCall[Answer]],
        request: Message,
        deadline: Deadline,
        *,
        is_repeatable: bool = True,
    ) -> Answer:
        met: tuple[str, Fault | None] | None = None
        while True:
            member = self.members.current
            timeout = min(deadline.remaining(), ATTEMPT_SECONDS)
            if timeout <= 0:
                why, fault = met or ("no answer in time", None)
                raise StoreUnavailableError(why, fault=fault)
            try:
                response = await rpc(member)(request, timeout=timeout)
            except RpcError as error:
                member.tell(error)
                failure = translate(error)
                try:
                    if not isinstance(failure, StoreUnavailableError) or self._is_final(error):
                        raise failure from error
                    if met is None or not _is_out_of_time(error):
                        # The last attempt may have too little time to find out what those before it have.
                        met = failure.why, failure.fault
                    if timeout >= ATTEMPT_SECONDS or not _is_out_of_time(error):
                        # A caller in a hurry says nothing about the member.
                        self.members.leave(member.channel)
                    if failure.is_outcome_unknown and not is_repeatable:
                        raise failure from error
                    if self._is_given_up() or deadline.remaining() <= _PAUSE_SECONDS:
                        raise StoreUnavailableError(met[0], fault=met[1]) from error
                    await asyncio.sleep(_PAUSE_SECONDS)
                finally:
                    # It holds this frame: with it there would be a circle, for the garbage collector to find some day.
                    del failure
            else:
                self._unreachable_since = None
                return response

    def _is_final(self, error: RpcError) -> bool:
        """Whether another attempt would meet the same refusal."""
        return error.code in REFUSALS and not (self.members.have_a_user and wants_a_token(error.details))

    def _is_given_up(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self._unreachable_since is None:
            self._unreachable_since = now
        return now - self._unreachable_since > _GIVE_UP_AFTER_SECONDS


def _is_out_of_time(error: RpcError) -> bool:
    """Whether a call's time was over, as this side found, or etcd did: then it answers UNAVAILABLE (3.4.23)."""
    return error.code is StatusCode.DEADLINE_EXCEEDED or "request timed out" in error.details


def translate(error: RpcError) -> OperationError | LeaseGoneError | RevisionGoneError:
    """Translate what etcd, or the way to it, says went wrong.

    etcd's own errors are told apart by their texts (its api/v3/v3rpc/rpctypes/error.go): one code stands for several.
    """
    code, details = error.code, error.details
    if "requested lease not found" in details:
        return LeaseGoneError()
    if "database space exceeded" in details:
        return StoreOutOfSpaceError()
    if "revision has been compacted" in details or "is a future revision" in details:
        return RevisionGoneError()
    reason = reason_of(details)
    if code in REFUSALS:
        # What is wrong with the service's user is wrong with each part of what was sent.
        fault = Fault.USER if reason else None
        return StoreUnavailableError(reason or "it refuses the service's call", is_refused=not reason, fault=fault)
    was_not_carried_out = error.is_untouched or "no leader" in details or wants_a_token(details)
    why = "it did not answer in time" if code is StatusCode.DEADLINE_EXCEEDED else "it cannot be reached"
    if reason:
        return StoreUnavailableError(reason, is_outcome_unknown=not was_not_carried_out, fault=Fault.CONNECTION)
    if "no leader" in details:
        why = "it has no leader"
    return StoreUnavailableError(why, is_outcome_unknown=not was_not_carried_out)
