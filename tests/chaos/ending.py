"""The end of a run: all is mended, the clients finish, the watchers catch up, and what is left is read."""

import asyncio
import random
import time

import grpc
from chaos.arena import RESOURCES, Arena
from chaos.caller import Answer, Caller
from chaos.history import FinalRecord, FinalValue, Recorder
from support import Peer, messages, state_name

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.health_check import check_health

_WELL_SECONDS = 60.0
_CATCH_UP_SECONDS = 40.0
_CALL_SECONDS = 10.0
_LAST = "machines/last"
"""A resource of the run itself: once watchers tell of its change, they have told of all that came before."""


async def all_well(found: Arena) -> list[str]:
    """Mend what can be mended, and wait until all replicas serve; return what does not come back."""
    problems = []
    if not await found.admin.disarm(_WELL_SECONDS):
        problems.append("the NOSPACE alarm cannot be disarmed")
    if not await found.admin.until_well(range(len(found.targets.members)), _WELL_SECONDS):
        problems.append("etcd does not come back")
    for replica, door in zip(found.targets.replicas, found.doors, strict=True):
        if not await _serves(door):
            problems.append(f"{replica.name} does not serve again")
    return problems


async def _serves(door: str) -> bool:
    end = time.monotonic() + _WELL_SECONDS
    while time.monotonic() < end:
        if (await check_health(door, 2.0)).is_serving:
            return True
        await asyncio.sleep(0.2)
    return False


async def clients_finished(found: Arena) -> list[str]:
    """Let the clients finish; return what went wrong with them."""
    codes = await asyncio.gather(*(client.process.stop(30.0) for client in found.targets.clients))
    return [
        f"{client.process.name} ended with {code}: {client.process.log[-1000:]}"
        for client, code in zip(found.targets.clients, codes, strict=True)
        if code
    ]


async def read_what_is_left(found: Arena, recorder: Recorder) -> list[str]:
    """Wait until the locks have run out, and the watchers have told so; then read everything. Return what failed."""
    problems = []
    caller = Caller("end", found.doors, recorder, random.Random(0))
    channel = grpc.aio.insecure_channel(found.doors[0])
    try:
        peer = Peer(channel)
        peer.timeout = _CALL_SECONDS
        await asyncio.gather(*(_unlocked(peer, resource) for resource in RESOURCES))
        if not await _have_caught_up(found, caller):
            problems.append("watchers do not catch up")
        for resource in RESOURCES:
            recorder.add(await _final_record(peer, resource))
            recorder.add(FinalValue(resource=resource, elements=found.values.value(resource)))
        recorder.add(await _final_record(peer, _LAST))
    except (grpc.aio.AioRpcError, TimeoutError) as error:
        problems.append(f"what is left cannot be read: {error}")
    finally:
        await caller.close()
        await channel.close()
    for process in found.watchers:
        if not process.is_running:
            problems.append(f"{process.name} has ended: {process.log[-1000:]}")
        await process.stop()
    return problems


async def _unlocked(peer: Peer, resource: str) -> None:
    """Wait until nobody holds a resource: then nothing happens to it any more."""
    async with asyncio.timeout(_CATCH_UP_SECONDS):
        while await _state(peer, resource) == "LOCKED":
            await asyncio.sleep(0.2)


async def _state(peer: Peer, resource: str) -> str:
    record = await _record(peer, resource)
    return state_name(record.state) if record is not None else ""


async def _record(peer: Peer, resource: str) -> pb.OperationRecord | None:
    try:
        return await peer.get(resource)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return None


async def _have_caught_up(found: Arena, caller: Caller) -> bool:
    """Make a change, and wait until all watchers have told of it."""
    answer = await _until_ok(caller)
    await caller.complete(_LAST, fence=answer.call.fencing_token)
    wanted = f'"{answer.call.message}"'
    end = time.monotonic() + _CATCH_UP_SECONDS
    while time.monotonic() < end:
        lines = [line for line in found.watched().splitlines() if '"type":"seen"' in line]
        told = {line.split('"watcher":"')[1].split('"')[0] for line in lines if wanted in line and "SUCCEEDED" in line}
        if told == set(found.watcher_names):
            return True
        await asyncio.sleep(0.2)
    return False


async def _until_ok(caller: Caller) -> Answer:
    async with asyncio.timeout(_CATCH_UP_SECONDS):
        while not (answer := await caller.propose(_LAST, lock_for_seconds=30)).is_ok:
            await asyncio.sleep(0.2)
    return answer


async def _final_record(peer: Peer, resource: str) -> FinalRecord:
    record = await _record(peer, resource)
    if record is None:
        return FinalRecord(resource=resource, state="")
    logs: list[str] = []
    token = ""
    is_last = False
    while not is_last:
        page = await peer.logs(resource, page_token=token)
        logs += messages(page)
        token = page.next_page_token
        is_last = not token
    return FinalRecord(
        resource=resource,
        state=state_name(record.state),
        revision=record.revision,
        fencing_token=record.fencing_token,
        logs=tuple(logs),
    )
