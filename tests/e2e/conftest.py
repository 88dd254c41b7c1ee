"""Real processes, each ended by its pid with the test that started it."""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from certificates import Authority, KeyPair
from e2e.support_e2e import Serve, Server, etcd_binary, start_server
from e2e.support_etcd import Etcd, StartEtcd

from operation_service.embedded_binary import EtcdBinary


@pytest.fixture(scope="session")
async def binary() -> EtcdBinary:
    """The etcd that tests run on."""
    return await etcd_binary()


@pytest.fixture
async def serve(tmp_path: Path, binary: EtcdBinary) -> AsyncIterator[Serve]:
    """Start services; without --etcd-endpoints they get the etcd that the tests run on, and a data directory."""
    started: list[tuple[Server, signal.Signals]] = []
    numbers = itertools.count(1)

    async def start(*flags: str | Path, wait: bool = True, **variables: str) -> Server:
        words = [*map(str, flags)]
        if "--listen" not in words and "OPERATION_SERVICE_LISTEN" not in variables:
            words += ["--listen", "127.0.0.1:0"]
        # Killing is faster. But a service with an etcd of its own has to see to that one's end, if it can by now.
        end = signal.SIGKILL
        if "--etcd-endpoints" not in words and not variables.get("OPERATION_SERVICE_ETCD_ENDPOINTS"):
            end = signal.SIGTERM
            if "--etcd-binary" not in words and "OPERATION_SERVICE_ETCD_BINARY" not in variables:
                words += ["--etcd-binary", str(binary.path)]
            if "--data-dir" not in words and "OPERATION_SERVICE_DATA_DIR" not in variables:
                words += ["--data-dir", str(tmp_path / "data")]
        server = await start_server(tmp_path / f"service-{next(numbers)}.log", *words, **variables)
        started.append((server, end))
        return await server.serving() if wait else server

    yield start
    await asyncio.gather(*(server.stop(end) for server, end in started))


@pytest.fixture
async def start_etcd(tmp_path: Path, binary: EtcdBinary) -> AsyncIterator[StartEtcd]:
    """Make etcds that a test may stop and kill."""
    made: list[Etcd] = []

    async def make(*flags: str, start: bool = True) -> Etcd:
        made.append(Etcd(binary, tmp_path / f"etcd-{len(made) + 1}", flags))
        return await made[-1].start() if start else made[-1]

    yield make
    for etcd in made:
        await etcd.kill()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A CA of the test's own."""
    return Authority(tmp_path)


@pytest.fixture
def server_pair(authority: Authority) -> KeyPair:
    """The service's certificate."""
    return authority.server()
