"""One run: bad requests from many clients at once against a service, and the judgement."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import grpc
from e2e.support_e2e import Server
from fuzz import halfopen_kinds, header_kinds, hpack_kinds, http2_kinds, kept, message_kinds
from fuzz.lane import Lane
from fuzz.tally import Tally
from fuzz.vitals import Liveness, Vitals, bad_lines

KINDS = message_kinds.KINDS + header_kinds.KINDS + http2_kinds.KINDS + hpack_kinds.KINDS + halfopen_kinds.KINDS
_WEIGHTS = [kind.weight for kind in KINDS]
_LANES = 24
_MAX_GROWTH_MIB = 200
_MAX_MORE_FILES = 20
_SETTLE_SECONDS = 30.0


@dataclass(frozen=True)
class Plan:
    """Which requests to send. Each is drawn from the seed and its own number, and so can be sent again alone.

    Attributes:
        seed: Where all that is random comes from.
        requests: How many.
        first: The number of the first.
        only: A part of the names of the kinds to send; empty for all.
    """

    seed: int
    requests: int
    first: int = 0
    only: str = ""


@dataclass(frozen=True)
class Verdict:
    """How a run went."""

    report: str
    failures: list[str]


async def fuzz(server: Server, plan: Plan) -> Verdict:
    """Run a plan against a service that has no records yet."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        await kept.make(channel)
    records = await kept.snapshot(server.address, server.etcd_url)
    before = Vitals.of(server.process.pid)
    liveness, tally, began = Liveness(server.address), Tally(), time.monotonic()
    living = asyncio.create_task(liveness.run())
    indexes = iter(range(plan.first, plan.first + plan.requests))
    async with asyncio.TaskGroup() as clients:
        for _ in range(min(_LANES, plan.requests)):
            clients.create_task(_client(server, plan, indexes, tally))
    seconds = time.monotonic() - began
    living.cancel()
    await asyncio.wait({living})
    failures = [*tally.complaints(), *liveness.failures[:10]]
    report = [tally.table(), "", f"{seconds:.0f} s, {tally.total / seconds:.0f} requests a second"]
    await asyncio.sleep(0.5)
    if server.process.returncode is not None:
        failures.append(f"the process ended with {server.process.returncode}")
    else:
        after = await _settled(server.process.pid, before)
        failures += kept.differences(records, await kept.snapshot(server.address, server.etcd_url))
        failures += _judged(before, after)
        report += [f"before: {before}", f"after:  {after}"]
    report.append(f"{liveness.calls} good calls, the slowest three in {liveness.slowest_seconds:.2f} s")
    failures += [f"in the log: {line}" for line in bad_lines(server.log)[:20]]
    return Verdict("\n".join(report), failures)


async def _client(server: Server, plan: Plan, indexes: Iterator[int], tally: Tally) -> None:
    lane = Lane(server.address)
    for index in indexes:
        if server.process.returncode is not None:
            return
        rng = Random(f"{plan.seed}/{index}")
        (kind,) = rng.choices(KINDS, _WEIGHTS)
        while plan.only not in kind.name:
            (kind,) = rng.choices(KINDS, _WEIGHTS)
        lane.detail = ""
        try:
            reaction = await kind.send(lane, rng)
        except OSError as error:
            reaction = f"fuzz: {type(error).__name__}"
            lane.detail = str(error)
        tally.add(index, kind, reaction, lane.detail)
    await lane.close()


async def _settled(pid: int, before: Vitals) -> Vitals:
    """The vitals once connections that have gone are forgotten, or after a while."""
    until = time.monotonic() + _SETTLE_SECONDS
    while (after := Vitals.of(pid)).open_files > before.open_files + _MAX_MORE_FILES and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.5)
    return after


def _judged(before: Vitals, after: Vitals) -> list[str]:
    failures = []
    if after.rss_mib > before.rss_mib + _MAX_GROWTH_MIB:
        failures.append(f"memory grew from {before} to {after}")
    if after.open_files > before.open_files + _MAX_MORE_FILES:
        failures.append(f"files stay open: before {before}, after {after}")
    return failures
