"""The few calls of etcd that this service needs: deadlines, failover between the members, errors translated here.

For every call the three questions of a distributed program are answered in one place:

- If the answer never comes: each attempt ends after `_ATTEMPT_SECONDS` at the latest, and is made again at another
  member as long as the deadline allows, but only where repeating is harmless.
- If another replica did it in between: no call here changes anything unguarded, except granting and revoking leases
  of our own.
- If this process was asleep for a minute: the attempt's time has passed, the error says so, and whoever called
  decides again on what it reads then.
"""

import asyncio
import contextlib
import logging
import re
import ssl
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Protocol

from etcd3 import etcdrpc
from google.protobuf.message import Message
from grpc import StatusCode

from operation_service.background import Work
from operation_service.clock import Deadline
from operation_service.errors import OperationError, StoreOutOfSpaceError, StoreUnavailableError
from operation_service.etcd_login import EtcdLogin
from operation_service.etcd_password import kept_password
from operation_service.etcd_reasons import reason_of, wants_a_token
from operation_service.etcd_tls import kept_context
from operation_service.grpc_calls import RpcError
from operation_service.grpc_client import Answer, Channel, HeaderedCall, UnaryCall
from operation_service.kept_files import KeptFiles
from operation_service.settings import is_loopback
from operation_service.settings_tls import EtcdAccess

_log = logging.getLogger(__name__)

_REFUSALS = {StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED, StatusCode.INVALID_ARGUMENT}
"""What another attempt would meet just the same."""

_SILENCE = {StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED}
"""What a member answers that is no use at the moment, or has no leader."""

_METADATA = (("hasleader", "true"),)
"""Makes a member that has lost the quorum say so, instead of answering nothing (ETCD_FACTS, Python clients)."""

_ATTEMPT_SECONDS = 1.0
"""After this a silent member is left for another one. When a leader falls silent the others notice after one to two
seconds, and what was asked of any member just before that is lost: so calls go on one attempt after the election, some
3 s after the leader fell silent at the latest, unless the votes were split."""
_PULSE_SECONDS = 0.5
_PAUSE_SECONDS = 0.1
_GIVE_UP_AFTER_SECONDS = 5.0
"""Once etcd has been out of reach for this long, a call tries once and fails at once, so that calls do not pile up."""

_PANICKING = (((3, 4, 21), (3, 4, 23)), ((3, 5, 0), (3, 5, 7)))
"""Versions, from the first on and before the second, that end with a panic when a transaction of reads is cancelled,
or runs out of time (etcd issues 14110 and 14891)."""
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


class EtcdObserver(Protocol):
    """Sees calls of etcd (`observing.py`)."""

    def etcd(self, path: str, address: str, call: HeaderedCall[Answer]) -> HeaderedCall[Answer]:
        """Return what calls a method of a member in place of what did so."""
        ...


class _Member:
    """One etcd member, on a channel of its own."""

    def __init__(
        self, url: str, tls: KeptFiles[ssl.SSLContext] | None, login: EtcdLogin | None, observer: EtcdObserver | None
    ) -> None:
        self.channel = Channel(url, _METADATA, (lambda: tls.meaning) if tls else None)
        self.address = self.channel.address
        self.is_well = True
        self._login = login
        self._observer = observer
        if login is not None:
            login.join(self.channel)
        self.range = self._rpc("/etcdserverpb.KV/Range", etcdrpc.RangeResponse)
        self.txn = self._rpc("/etcdserverpb.KV/Txn", etcdrpc.TxnResponse)
        self.grant = self._rpc("/etcdserverpb.Lease/LeaseGrant", etcdrpc.LeaseGrantResponse)
        self.revoke = self._rpc("/etcdserverpb.Lease/LeaseRevoke", etcdrpc.LeaseRevokeResponse)
        self.time_to_live = self._rpc("/etcdserverpb.Lease/LeaseTimeToLive", etcdrpc.LeaseTimeToLiveResponse)
        self.status = self._rpc("/etcdserverpb.Maintenance/Status", etcdrpc.StatusResponse)
        self.bears_cancelled_reads: bool | None = None
        self._told = ""

    def _rpc(self, path: str, answer: type[Answer]) -> UnaryCall[Answer]:
        rpc = self.channel.unary(path, answer)
        if self._login is not None:
            rpc = self._login.guarded(rpc, self.channel)
        return rpc if self._observer is None else self._observer.etcd(path, self.address, rpc)

    def tell(self, error: RpcError) -> None:
        """Say in the log what whoever runs the service has to set right; once, as long as it is the same."""
        reason = reason_of(error.details) or (error.details if error.code in _REFUSALS else "")
        if reason and reason != self._told:
            _log.error("etcd at %s: %s (%s)", self.address, reason, error)
            self._told = reason

    def is_right(self) -> None:
        """Note that it does what it is asked: should it go wrong again, that is told again."""
        self._told = ""


def bears_cancelled_reads(version: str) -> bool:
    """Whether etcd of a version ("3.5.12") goes on when a transaction of reads is cancelled while it runs."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    return not any(first <= numbers < mended for first, mended in _PANICKING)


class EtcdClient:
    """A client of one etcd cluster.

    Args:
        endpoints: URLs of members, "http://host:port" or "https://host:port".
        monotonic: The clock that leases are measured by, in seconds.
        observer: Sees every call, if anybody does.
        access: How etcd knows the service.
        probe: The key that is asked for when nothing but an answer is wanted: one that the service may read.

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
    ) -> None:
        self._monotonic = monotonic
        self._probe = probe
        access = access or EtcdAccess()
        tls = kept_context(access) if access.tls_files else None
        password = kept_password(access.password_file) if access.password_file else None
        self._login = EtcdLogin(access.user, password) if access.user and password else None
        self._kept = (tls, password)
        self._members = [_Member(url, tls, self._login, observer) for url in endpoints]
        if self._login is not None:
            for url in endpoints:
                if url.startswith("http://") and not is_loopback(url.removeprefix("http://")):
                    _log.warning("the password of --etcd-user goes to %s without TLS: use https://", url)
        self._current = 0
        self._unreachable_since: float | None = None
        self._moved = asyncio.Event()

    @property
    def channel(self) -> Channel:
        """The channel to the member in use, for a stream."""
        return self._members[self._current].channel

    def leave(self, channel: Channel) -> None:
        """Use another member than the one behind a channel that has failed, if it is still the one in use.

        The next one that answered when it was last asked; or just the next one, if none did.
        """
        member = self._members[self._current]
        if member.channel is not channel:
            return
        if member.is_well:
            _log.info("etcd at %s is left: a call failed there", member.address)
        member.is_well = False
        others = [(self._current + step) % len(self._members) for step in range(1, len(self._members))]
        self._current = next((other for other in others if self._members[other].is_well), [*others, self._current][0])
        self._moved.set()
        self._moved = asyncio.Event()

    @property
    def works(self) -> Sequence[Work]:
        """Background work."""
        return (self.feel_pulses, *(files.run for files in self._kept if files is not None))

    async def feel_pulses(self) -> None:
        """Ask every member all the time, until cancelled: so a silent one is left in time, and for one that answers."""
        async with asyncio.TaskGroup() as group:
            for member in self._members:
                group.create_task(self._feel_pulse(member))

    async def _feel_pulse(self, member: _Member) -> None:
        # Linearizable, so a member that is cut off from the others does not answer either.
        request = etcdrpc.RangeRequest(key=self._probe, count_only=True)
        while True:
            was_well = member.is_well
            asked_at = asyncio.get_running_loop().time()
            try:
                await member.range(request, timeout=_ATTEMPT_SECONDS)
                member.is_well = True
                member.is_right()
                if member.bears_cancelled_reads is None or not was_well:
                    # It may have come back as another version.
                    status = await member.status(etcdrpc.StatusRequest(), timeout=_ATTEMPT_SECONDS)
                    member.bears_cancelled_reads = bears_cancelled_reads(status.version)
            except RpcError as error:
                member.tell(error)
                member.is_well = error.code not in _SILENCE
                if not member.is_well:
                    self.leave(member.channel)
                    # After a cut a connection may take minutes to find out that its packets can pass again.
                    member.channel.end_if_silent(asked_at)
            if was_well is not member.is_well:
                _log.info("etcd at %s %s", member.address, "answers again" if member.is_well else "does not answer")
            await asyncio.sleep(_PULSE_SECONDS)

    async def left(self, channel: Channel) -> None:
        """Wait until another member is in use than the one behind a channel.

        A stream tells nothing while nothing happens: that its member is silent shows in the calls made beside it.
        """
        while self._members[self._current].channel is channel:
            await self._moved.wait()

    async def close(self) -> None:
        """Close all connections."""
        if self._login is not None:
            await self._login.close()
        for member in self._members:
            await member.channel.close()

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

    @property
    def reads_at_once(self) -> bool:
        """Whether some ranges can be read in one transaction; otherwise it is one after the other."""
        # Until a member has told its version, it is better asked for one range after the other.
        others_bear_it = all(member.bears_cancelled_reads is not False for member in self._members)
        return bool(self._members[self._current].bears_cancelled_reads) and others_bear_it

    async def read(self, request: etcdrpc.TxnRequest, deadline: Deadline) -> etcdrpc.TxnResponse:
        """Carry out a transaction of ranges, all of them at one revision. Raises like `range`."""
        if self.reads_at_once:
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

        def rpc(member: _Member) -> UnaryCall[etcdrpc.LeaseGrantResponse]:
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
        rpc: Callable[[_Member], UnaryCall[Answer]],
        request: Message,
        deadline: Deadline,
        *,
        is_repeatable: bool = True,
    ) -> Answer:
        while True:
            member = self._members[self._current]
            timeout = min(deadline.remaining(), _ATTEMPT_SECONDS)
            if timeout <= 0:
                raise StoreUnavailableError("no answer in time")
            try:
                response = await rpc(member)(request, timeout=timeout)
            except RpcError as error:
                member.tell(error)
                failure = translate(error)
                try:
                    if not isinstance(failure, StoreUnavailableError) or self._is_final(error):
                        raise failure from error
                    if timeout >= _ATTEMPT_SECONDS or not _is_out_of_time(error):
                        # A caller in a hurry says nothing about the member.
                        self.leave(member.channel)
                    if failure.is_outcome_unknown and not is_repeatable:
                        raise failure from error
                    if self._is_given_up() or deadline.remaining() <= _PAUSE_SECONDS:
                        raise StoreUnavailableError(failure.why) from error
                    await asyncio.sleep(_PAUSE_SECONDS)
                finally:
                    # It holds this frame: with it there would be a circle, for the garbage collector to find some day.
                    del failure
            else:
                self._unreachable_since = None
                return response

    def _is_final(self, error: RpcError) -> bool:
        """Whether another attempt would meet the same refusal."""
        return error.code in _REFUSALS and not (self._login is not None and wants_a_token(error.details))

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
    if code in _REFUSALS:
        # What is wrong with the service's user is wrong with each part of what was sent.
        return StoreUnavailableError(reason or "it refuses the service's call", is_refused=not reason)
    was_not_carried_out = error.is_untouched or "no leader" in details or wants_a_token(details)
    why = "it did not answer in time" if code is StatusCode.DEADLINE_EXCEEDED else "it cannot be reached"
    why = reason or why
    if "no leader" in details:
        why = "it has no leader"
    return StoreUnavailableError(why, is_outcome_unknown=not was_not_carried_out)
