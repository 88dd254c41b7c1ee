"""The records that are there before a run, and must be the same after it."""

import asyncio
from typing import Any, cast

import grpc
from etcd_hands import EtcdHands
from fuzz.targets import EXPIRED, KEPT_PROJECT, LOCKED, PENDING, SUCCEEDED
from support import Peer, shutdown_request

NAMES = (PENDING, LOCKED, EXPIRED, SUCCEEDED)
KEY_PREFIX = "/n0stack/operation/"
HOLDER = "the-token-of-the-holder-which-nobody-guesses"

Snapshot = dict[str, object]


async def make(channel: grpc.aio.Channel) -> None:
    """Make one operation of each state, with requests and logs."""
    holder = Peer(channel, HOLDER)
    request = shutdown_request()
    day: dict[str, Any] = {"project": KEPT_PROJECT, "lock_for_seconds": 86_400}
    await holder.create(PENDING, project=KEPT_PROJECT, operation_request=request, log_message="asked for")
    await holder.create(LOCKED, operation_request=request, is_disabled_cancel=True, log_message="begun", **day)
    await holder.create(SUCCEEDED, operation_request=request, log_message="begun", **day)
    for step in range(3):
        await holder.append(f"step {step}", LOCKED, project=KEPT_PROJECT)
        await holder.append(f"step {step}", SUCCEEDED, project=KEPT_PROJECT)
    await holder.complete(SUCCEEDED, project=KEPT_PROJECT, log_message="done")
    await holder.create(EXPIRED, operation_request=request, log_message="begun", **day | {"lock_for_seconds": 1})
    async with asyncio.timeout(20):
        while (await holder.get(EXPIRED, KEPT_PROJECT)).remaining.ToMilliseconds() > 0:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    # For what the service itself still has to do about the one that ran out.
    await asyncio.sleep(3)


async def snapshot(address: str, etcd_url: str) -> Snapshot:
    """Everything about them, as the service tells it and as etcd keeps it."""
    facts: Snapshot = {}
    async with grpc.aio.insecure_channel(address) as channel:
        reader = Peer(channel)
        for name in NAMES:
            record = await reader.get(name, KEPT_PROJECT)
            record.ClearField("remaining")
            facts[f"API: {name}"] = str(record)
            facts[f"API: logs of {name}"] = str(await reader.logs(name, project=KEPT_PROJECT))
    async with grpc.aio.insecure_channel(etcd_url.removeprefix("http://")) as channel:
        for entry in await EtcdHands(channel, KEY_PREFIX).entries():
            kv = cast("Any", entry)
            key = kv.key.decode()
            # What bad requests make of a kept name by chance is a name of its own.
            resource = key.removeprefix(KEY_PREFIX).partition("/")[2].partition("#")[0]
            if resource in {f"{KEPT_PROJECT}/{name}" for name in NAMES}:
                facts[f"etcd: {key}"] = (kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)
    return facts


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """What is not the same, in words."""
    return [
        f"{name}: {before.get(name)!r} became {after.get(name)!r}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
