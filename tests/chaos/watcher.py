"""A watcher process: it follows all operations, across replicas that break, until SIGTERM."""

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from chaos.caller import CHANNEL_OPTIONS, told_refusal
from chaos.history import Recorder, Seen, WatchBegan
from support import PROJECT, Peer, event_name, messages, state_name

from n0stack.operation.v1alpha import operation_service_pb2 as pb

RESUMED, BEGAN_ANEW, ODD = "resumed", "began anew", "odd"
"""What its log's lines begin with."""

_OPTIONS = (*CHANNEL_OPTIONS, ("grpc.keepalive_time_ms", 6_000), ("grpc.keepalive_timeout_ms", 2_000))
_LIFE = (4.0, 20.0)
"""A stream is left after so long even if it is well: resuming is what is to be tested."""
_STANDS_SECONDS = 5.0
_PAUSE_SECONDS = 0.2
_AWAY = 0.35
_AWAY_SECONDS = (1.0, 14.0)
"""After so many of its streams a watcher does not come back for so long: compactions may overtake it."""
_FAR_FUTURE = 2**62
_EXPECTED = {"DEADLINE_EXCEEDED", "UNAVAILABLE", "WATCH_INTERRUPTED", "ETCD_UNAVAILABLE"}
"""How a watch may end in a run like this."""
_FITTING = {"PENDING": "CREATED"}
"""The event of a present record whose name differs from its state's."""


class _BrokenWatchError(Exception):
    """The stream has ended, as streams do."""


class _GoneError(Exception):
    """What was missed is compacted."""


class Watcher:
    """One watcher.

    Args:
        name: Its name.
        replicas: Addresses.
        recorder: Where to.
        rng: Its choices.
    """

    def __init__(self, name: str, replicas: list[str], recorder: Recorder, rng: random.Random) -> None:
        self._name = name
        self._recorder = recorder
        self._rng = rng
        self._channels = [grpc.aio.insecure_channel(address, options=_OPTIONS) for address in replicas]
        self._replica = rng.randrange(len(replicas))
        self._account = 0
        self._revision = 0
        """Up to where everything has been told. 0: nothing is known, and the next watch begins a new account."""

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                if self._revision:
                    _log(RESUMED, f"at {self._revision + 1}")
                    await self._resume()
                else:
                    await self._begin()
            except _GoneError:
                self._revision = 0
            except (_BrokenWatchError, TimeoutError):
                await asyncio.sleep(_PAUSE_SECONDS)
                if self._rng.random() < _AWAY:
                    await asyncio.sleep(self._rng.uniform(*_AWAY_SECONDS))
            self._replica = (self._replica + self._rng.randrange(1, len(self._channels))) % len(self._channels)

    async def _begin(self) -> None:
        """Begin a new account, and tell what is there from what changes.

        Present records and changes look alike, but what is present is no newer than the revision R that the service
        read when the watch began. R is not told for certain, so the service is asked for the current revision once the
        watch stands: R is no greater. A message is taken for a present one if its record is no newer than that, if its
        event fits its state as those of present records do, if its resource was not told of before, and if no message
        has shown that the present part is over: a change; or one whose revision is greater than its record's, which is
        the last of the present part. A change that slips through right at the seam is called present: nothing is
        claimed of it then that is not true of a present record as well.
        """
        peer = Peer(self._channels[self._replica])
        async with asyncio.timeout(_STANDS_SECONDS):
            stream = self._open(peer, 0)
            await stream.initial_metadata()
            at = time.monotonic()
            newest = await _current_revision(peer)
        if stream.done():
            raise _BrokenWatchError
        self._account += 1
        if self._account > 1:
            _log(BEGAN_ANEW, f"as account {self._account}")
        self._recorder.add(WatchBegan(watcher=self._name, account=self._account, at=at, start_revision=0))
        present: set[str] = set()
        is_present_over = False
        async for told in _messages(stream):
            record = told.operation
            is_present = (
                not is_present_over
                and record.revision <= newest
                and record.name not in present
                and event_name(told.event) == _fitting(record)
            )
            is_present_over = not is_present or told.revision > record.revision
            present.add(record.name)
            self._note(told, is_present=is_present)

    async def _resume(self) -> None:
        peer = Peer(self._channels[self._replica])
        stream = self._open(peer, self._revision + 1)
        async for told in _messages(stream):
            self._note(told, is_present=False)

    def _open(self, peer: Peer, start_revision: int) -> Any:
        peer.timeout = self._rng.uniform(*_LIFE)
        return peer.watch(project=PROJECT, start_revision=start_revision)

    def _note(self, told: pb.WatchOperationsResponse, *, is_present: bool) -> None:
        record = told.operation
        self._revision = told.revision
        self._recorder.add(
            Seen(
                watcher=self._name,
                account=self._account,
                at=time.monotonic(),
                is_present=is_present,
                event=event_name(told.event),
                revision=told.revision,
                resource=record.name,
                record_revision=record.revision,
                state=state_name(record.state),
                token=record.operation.proposing_peer_token,
                fencing_token=record.fencing_token,
                logs=tuple(messages(record.operation)),
            )
        )


async def _messages(stream: Any) -> AsyncIterator[pb.WatchOperationsResponse]:
    try:
        async for told in stream:
            yield told
    except grpc.aio.AioRpcError as error:
        refusal = told_refusal(error)
        reason = refusal.reason if refusal else error.code().name
        if reason == "REVISION_COMPACTED":
            raise _GoneError from error
        if reason not in _EXPECTED:
            _log(ODD, f"{reason}: {error.details()}")
        raise _BrokenWatchError from error
    raise _BrokenWatchError


async def _current_revision(peer: Peer) -> int:
    """Ask the service itself: it refuses to watch from a revision that is yet to come, and says what is now."""
    peer.timeout = _STANDS_SECONDS
    try:
        await peer.watch(project=PROJECT, start_revision=_FAR_FUTURE).read()
    except grpc.aio.AioRpcError as error:
        refusal = told_refusal(error)
        if refusal is not None and refusal.reason == "REVISION_IN_FUTURE":
            return int(refusal.metadata["current_revision"])
        raise _BrokenWatchError from error
    raise _BrokenWatchError


def _fitting(record: pb.OperationRecord) -> str:
    state = state_name(record.state)
    return _FITTING.get(state, state)


def _log(what: str, more: str) -> None:
    sys.stderr.write(f"{what} {more}\n")
    sys.stderr.flush()


async def run(options: argparse.Namespace) -> None:
    """Run the watchers."""
    recorder = Recorder(options.history)
    watchers = [
        asyncio.create_task(Watcher(name, options.replicas, recorder, random.Random(f"{options.seed} {name}")).run())
        for name in options.names
    ]
    everyone = asyncio.gather(*watchers)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, everyone.cancel)
    # A watcher that fails ends the process with an error, which the run notices.
    await everyone


def main() -> None:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", nargs="+", required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--replicas", nargs="+", required=True)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
