"""Serves with several processes on one port: starts them, keeps them running, and ends with them.

It does nothing that a caller waits for, and never has a gRPC server or channel: even the embedded etcd is asked by
plain HTTP whether it serves. Each worker is the ordinary service, one replica among others, and knows of none of them.
"""

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from operation_service import handover
from operation_service.access_files import AccessFiles
from operation_service.certificate_files import certificates_of
from operation_service.descriptor_sets import load
from operation_service.embedded_etcd import start_embedded_etcd
from operation_service.ending import StopSignals
from operation_service.etcd_files import check_files
from operation_service.metrics_gathering import gathered
from operation_service.metrics_http import metrics_served
from operation_service.port_claim import claimed
from operation_service.serving_line import serving_line
from operation_service.settings import Settings, SettingsError
from operation_service.worker_keeper import Worker

_log = logging.getLogger(__name__)

_LONGEST_FOLDER = 96
"""In bytes: a socket's whole path may have some hundred."""


async def serve(settings: Settings) -> None:
    """Serve with `settings.workers` processes until SIGTERM or SIGINT.

    What is wrong with the settings shows here, and once, before a worker or an etcd is started for nothing.

    Raises:
        SettingsError: The service cannot run with these settings.
        EmbeddedEtcdError: The embedded etcd cannot be started.
        DescriptorSetError: A descriptor set cannot be used.
    """
    signals = StopSignals()
    load(settings.descriptor_sets)
    if settings.tls is not None:
        certificates_of(settings.tls)
    check_files(settings.etcd_access)
    AccessFiles(settings.access)
    async with contextlib.AsyncExitStack() as stack:
        settings = replace(settings, listen=stack.enter_context(claimed(settings.listen)))
        if settings.health_listen is not None:
            health = stack.enter_context(claimed(settings.health_listen, "--health-listen"))
            settings = replace(settings, health_listen=health)
        sockets = None
        if settings.metrics_listen is not None:
            sockets = _folder_of_sockets(stack)
            every = {f"{number}": sockets / f"{number}" for number in range(1, settings.workers + 1)}
            await stack.enter_async_context(metrics_served(settings.metrics_listen, lambda: gathered(every)))
        endpoints = settings.etcd_endpoints or (await start_embedded_etcd(settings, stack),)
        order = handover.order(settings, endpoints)
        workers = [
            Worker(number, order, sockets and sockets / f"{number}") for number in range(1, settings.workers + 1)
        ]
        # For when the end in good order is cut short: whoever still runs.
        stack.push_async_callback(_kill, workers)
        signalled = asyncio.create_task(signals.wait())
        keeping = [worker.start() for worker in workers]
        if await _all_ready(workers, until=(signalled, *keeping)):
            _log.info("%s", serving_line(settings, endpoints))
            await asyncio.wait({signalled, *keeping}, return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in keeping if task.done()]
        if not failed:
            _log.info("stopping: calls in flight may finish")
        await asyncio.gather(*(worker.stop() for worker in workers))
        for task in failed:
            await task
    _log.info("stopped; locks stay with their holders")


def _folder_of_sockets(stack: contextlib.AsyncExitStack) -> Path:
    """Make a folder that nobody else may look into, for as long as the supervisor runs."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="operation-service-")))
    if len(os.fsencode(folder)) > _LONGEST_FOLDER:
        raise SettingsError(f"--metrics-listen: TMPDIR is too long for the workers' sockets: {folder}")
    return folder


async def _all_ready(workers: Sequence[Worker], until: Iterable["asyncio.Task[None]"]) -> bool:
    """Wait until all serve; False if one of the tasks ended before that."""

    async def all_ready() -> None:
        for worker in workers:
            await worker.is_ready.wait()

    ready = asyncio.create_task(all_ready())
    await asyncio.wait({ready, *until}, return_when=asyncio.FIRST_COMPLETED)
    is_ready = ready.done()
    ready.cancel()
    return is_ready


async def _kill(workers: Sequence[Worker]) -> None:
    await asyncio.gather(*(worker.kill() for worker in workers))
