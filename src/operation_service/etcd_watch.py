"""A watch of etcd that goes on by itself when the connection breaks, with no gap and no duplicate."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from itertools import groupby

from etcd3 import etcdrpc
from etcd3.etcdrpc.kv_pb2 import Event as EtcdEvent

from operation_service.clock import Deadline
from operation_service.errors import RevisionCompactedError, StoreUnavailableError
from operation_service.etcd_client import EtcdClient
from operation_service.grpc_calls import RpcError, StreamCall
from operation_service.grpc_client import Channel
from operation_service.keys import KeyRange

_log = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.2
_READ_SECONDS = 2.0
_TELLING_SECONDS = 1.0
"""For etcd to say up to where it has compacted, once a watch stands; it looks after such watches ten times a second."""
_TURNS = 5
"""Of the event loop, until what came with a message of the watch is answered."""


@dataclass(frozen=True, slots=True)
class Batch:
    """All that one revision changed within the range."""

    revision: int
    events: tuple[EtcdEvent, ...]


class EtcdWatch:
    """Watches a range of keys.

    Args:
        etcd: The client.
        keys: What to watch.
        start_revision: From where on.
        patience_seconds: After how long without etcd to give up. None: never.
    """

    def __init__(
        self, etcd: EtcdClient, keys: KeyRange, start_revision: int, patience_seconds: float | None = None
    ) -> None:
        self._etcd = etcd
        self._keys = keys
        self._patience_seconds = patience_seconds
        self._next_revision = start_revision
        self._broken_since: float | None = asyncio.get_running_loop().time()

    @property
    def interrupted_seconds(self) -> float:
        """For how long nothing could have been heard. 0: the watch stands."""
        return asyncio.get_running_loop().time() - self._broken_since if self._broken_since is not None else 0.0

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """Yield what happens, revision by revision, for ever.

        Raises:
            RevisionCompactedError: etcd has compacted away what has not been told yet.
            StoreUnavailableError: etcd was out of reach for longer than the patience lasts.
        """
        while True:
            channel = self._etcd.members.channel
            try:
                async with contextlib.aclosing(self._stream(channel)) as stream:
                    async for response in stream:
                        self._broken_since = None
                        for batch in _by_revision(response.events):
                            # The last event's revision, not the header's: that one may be ahead of what was sent.
                            self._next_revision = batch.revision + 1
                            yield batch
                _log.info("etcd has ended a watch; it goes on at revision %d", self._next_revision)
            except (RpcError, StoreUnavailableError) as error:
                _log.debug("a watch of etcd broke: %s", error)
            finally:
                # Also if whoever listens has given it up: nothing is heard then either.
                if self._broken_since is None:
                    self._broken_since = asyncio.get_running_loop().time()
            self._etcd.members.leave(channel)
            if self._patience_seconds is not None and self.interrupted_seconds > self._patience_seconds:
                raise StoreUnavailableError("it cannot be reached")
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _stream(self, channel: Channel) -> AsyncGenerator[etcdrpc.WatchResponse, None]:
        # Without prev_kv: to look up what was there before took half of etcd's time under load.
        create = etcdrpc.WatchCreateRequest(
            key=self._keys.start, range_end=self._keys.end, start_revision=self._next_revision
        )
        call = await channel.stream("/etcdserverpb.Watch/Watch", etcdrpc.WatchRequest(create_request=create))
        # Its stream would be silent until the connection is given up, when the member is left.
        leaving = asyncio.ensure_future(self._etcd.members.left(channel))
        leaving.add_done_callback(lambda _: call.cancel())
        try:
            while (data := await call.read()) is not None:
                # The answers to calls come together with the news of what they changed, and are waited for.
                for _ in range(_TURNS):
                    await asyncio.sleep(0)
                response = etcdrpc.WatchResponse.FromString(data)
                if response.compact_revision:
                    raise RevisionCompactedError(response.compact_revision)
                if response.canceled:
                    # On a stream that stays open: without this it would be silent for ever (ETCD_FACTS, Watches). Its
                    # token may not be valid any more, of which 3.5.1 only says "permission denied": a read finds out,
                    # and renews it.
                    await self._etcd.is_kept(self._keys.start, 0, Deadline(_READ_SECONDS))
                    return
                # Only now: before the watch stood, its history could still be compacted away.
                if response.created and not await self._is_history_kept():
                    raise RevisionCompactedError(await self._compacted_up_to(call))
                yield response
        finally:
            leaving.cancel()
            call.cancel()

    async def _is_history_kept(self) -> bool:
        """Find out whether what happened at the first revision of the watch is still there.

        A watch that starts at the very revision that was compacted is answered without an error, and without the keys
        that were deleted at it (measured on 3.4.23): an expiry would be missed. A read at the revision before it fails.
        """
        return await self._etcd.is_kept(self._keys.start, self._next_revision - 1, Deadline(_READ_SECONDS))

    async def _compacted_up_to(self, call: StreamCall) -> int:
        """Return up to which revision etcd has compacted its history.

        It says so before long, unless that is the watch's own first one.
        """
        with contextlib.suppress(TimeoutError, RpcError):
            async with asyncio.timeout(_TELLING_SECONDS):
                while (data := await call.read()) is not None:
                    if revision := etcdrpc.WatchResponse.FromString(data).compact_revision:
                        return int(revision)
        return self._next_revision


def _by_revision(events: Iterable[EtcdEvent]) -> list[Batch]:
    return [Batch(revision, tuple(some)) for revision, some in groupby(events, key=_revision)]


def _revision(event: EtcdEvent) -> int:
    return event.kv.mod_revision
