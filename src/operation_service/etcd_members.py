"""The members of one etcd cluster: which of them is used, and when it is left for another one.

- If a member never answers: it is asked all the time, beside all calls, and left when an attempt has found it silent.
- If many calls fail at once: they leave the member that they were made at, and not the one that is used by then.
"""

import asyncio
import logging
import re
import ssl
from collections.abc import Sequence
from typing import Protocol

from etcd3 import etcdrpc
from grpc import StatusCode

from operation_service.background import Work
from operation_service.etcd_login import EtcdLogin
from operation_service.etcd_password import kept_password
from operation_service.etcd_reasons import reason_of
from operation_service.etcd_tls import kept_context
from operation_service.grpc_calls import RpcError
from operation_service.grpc_client import Answer, Channel, HeaderedCall, UnaryCall
from operation_service.kept_files import KeptFiles
from operation_service.settings import is_loopback
from operation_service.settings_tls import EtcdAccess

_log = logging.getLogger(__name__)

REFUSALS = {StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED, StatusCode.INVALID_ARGUMENT}
"""What another attempt would meet just the same."""

_SILENCE = {StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED}
"""What a member answers that is no use at the moment, or has no leader."""

_METADATA = (("hasleader", "true"),)
"""Makes a member that has lost the quorum say so, instead of answering nothing (ETCD_FACTS, Python clients)."""

ATTEMPT_SECONDS = 1.0
"""After this a silent member is left for another one. When a leader falls silent the others notice after one to two
seconds, and what was asked of any member just before that is lost: so calls go on one attempt after the election, some
3 s after the leader fell silent at the latest, unless the votes were split."""
_PULSE_SECONDS = 0.5

_PANICKING = (((3, 4, 21), (3, 4, 23)), ((3, 5, 0), (3, 5, 7)))
"""Versions, from the first on and before the second, that end with a panic when a transaction of reads is cancelled,
or runs out of time (etcd issues 14110 and 14891)."""


class EtcdObserver(Protocol):
    """Sees calls of etcd (`observing.py`)."""

    def etcd(self, path: str, address: str, call: HeaderedCall[Answer]) -> HeaderedCall[Answer]:
        """Return what calls a method of a member in place of what did so."""
        ...


class Member:
    """One etcd member, on a channel of its own."""

    def __init__(
        self,
        url: str,
        tls: KeptFiles[ssl.SSLContext] | None,
        login: EtcdLogin | None,
        observer: EtcdObserver | None,
        *,
        is_telling: bool,
    ) -> None:
        self.channel = Channel(url, _METADATA, (lambda: tls.meaning) if tls else None)
        self.address = self.channel.address
        self.is_well = True
        self._login = login
        self._observer = observer
        self._is_telling = is_telling
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
        reason = reason_of(error.details) or (error.details if error.code in REFUSALS else "")
        if reason and reason != self._told and self._is_telling:
            _log.error("etcd at %s: %s (%s)", self.address, reason, error)
            self._told = reason

    def is_right(self) -> None:
        """Note that it does what it is asked: should it go wrong again, that is told again."""
        self._told = ""


def bears_cancelled_reads(version: str) -> bool:
    """Whether etcd of a version ("3.5.12") goes on when a transaction of reads is cancelled while it runs."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    return not any(first <= numbers < mended for first, mended in _PANICKING)


class Members:
    """The members of one cluster, each on a channel of its own.

    Args:
        endpoints: Their URLs, "http://host:port" or "https://host:port".
        observer: Sees every call, if anybody does.
        access: How etcd knows the service.
        probe: The key that is asked for when nothing but an answer is wanted: one that the service may read.
        is_telling: Whether what has to be set right goes to the log.

    Attributes:
        all: All of them.
        current: The one in use.

    Raises:
        SettingsError: A file of `access` cannot be used.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        observer: EtcdObserver | None,
        *,
        access: EtcdAccess | None,
        probe: bytes,
        is_telling: bool,
    ) -> None:
        self._probe = probe
        access = access or EtcdAccess()
        tls = kept_context(access) if access.tls_files else None
        password = kept_password(access.password_file) if access.password_file else None
        self._login = EtcdLogin(access.user, password) if access.user and password else None
        self._kept = (tls, password)
        self.all = tuple(Member(url, tls, self._login, observer, is_telling=is_telling) for url in endpoints)
        self.current = self.all[0]
        if self._login is not None:
            for url in endpoints:
                if url.startswith("http://") and not is_loopback(url.removeprefix("http://")):
                    _log.warning("the password of --etcd-user goes to %s without TLS: use https://", url)
        self._moved = asyncio.Event()

    @property
    def have_a_user(self) -> bool:
        """Whether their calls carry a token of etcd's."""
        return self._login is not None

    @property
    def channel(self) -> Channel:
        """The channel to the member in use, for a stream."""
        return self.current.channel

    def leave(self, channel: Channel) -> None:
        """Use another member than the one behind a channel that has failed, if it is still the one in use.

        The next one that answered when it was last asked; or just the next one, if none did.
        """
        member = self.current
        if member.channel is not channel:
            return
        if member.is_well:
            _log.info("etcd at %s is left: a call failed there", member.address)
        member.is_well = False
        at = self.all.index(member)
        others = [*self.all[at + 1 :], *self.all[:at]]
        self.current = next((other for other in others if other.is_well), [*others, member][0])
        self._moved.set()
        self._moved = asyncio.Event()

    @property
    def works(self) -> Sequence[Work]:
        """Background work."""
        return (self.feel_pulses, *(files.run for files in self._kept if files is not None))

    async def feel_pulses(self) -> None:
        """Ask every member all the time, until cancelled: so a silent one is left in time, and for one that answers."""
        async with asyncio.TaskGroup() as group:
            for member in self.all:
                group.create_task(self._feel_pulse(member))

    async def _feel_pulse(self, member: Member) -> None:
        # Linearizable, so a member that is cut off from the others does not answer either.
        request = etcdrpc.RangeRequest(key=self._probe, count_only=True)
        while True:
            was_well = member.is_well
            asked_at = asyncio.get_running_loop().time()
            try:
                await member.range(request, timeout=ATTEMPT_SECONDS)
                member.is_well = True
                member.is_right()
                if member.bears_cancelled_reads is None or not was_well:
                    # It may have come back as another version.
                    status = await member.status(etcdrpc.StatusRequest(), timeout=ATTEMPT_SECONDS)
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
        while self.current.channel is channel:
            await self._moved.wait()

    @property
    def reads_at_once(self) -> bool:
        """Whether some ranges can be read in one transaction; otherwise it is one after the other."""
        # Until a member has told its version, it is better asked for one range after the other.
        others_bear_it = all(member.bears_cancelled_reads is not False for member in self.all)
        return bool(self.current.bears_cancelled_reads) and others_bear_it

    async def close(self) -> None:
        """Close all connections."""
        if self._login is not None:
            await self._login.close()
        for member in self.all:
            await member.channel.close()
