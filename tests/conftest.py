"""One etcd for the session, one key prefix and one service for each test."""

import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from e2e.support_e2e import etcd_binary
from etcd_hands import EtcdHands
from support import Peer, TestClock, connected

from operation_service.embedded_etcd import EmbeddedEtcd
from operation_service.server import running
from operation_service.settings import Settings

# Whoever starts the tests in the background of a script has them, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

DESCRIPTORS = Path(__file__).parent.parent / "examples" / "virtual_machine.binpb"


@pytest.fixture(scope="session")
async def etcd(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The URL of a real etcd: TEST_ETCD_BINARY, else the one that the service would start."""
    member = EmbeddedEtcd(await etcd_binary(), tmp_path_factory.mktemp("etcd"))
    yield await member.start()
    await member.stop()


@pytest.fixture
def settings() -> Settings:
    """A service on any free port, with keys of its own."""
    return Settings(listen="127.0.0.1:0", key_prefix=f"/test/{uuid.uuid4().hex}/", descriptor_sets=(DESCRIPTORS,))


@pytest.fixture
def clock() -> TestClock:
    """The service's clock, which a test can push."""
    return TestClock()


@pytest.fixture
async def address(etcd: str, settings: Settings, clock: TestClock) -> AsyncIterator[str]:
    """Where the test's service listens."""
    async with running(settings, [etcd], clock) as service:
        yield service.address


@pytest.fixture
async def peer(address: str) -> AsyncIterator[Peer]:
    """A caller of the test's service."""
    async with connected(address) as peer:
        yield peer


@pytest.fixture
async def hands(etcd: str, settings: Settings) -> AsyncIterator[EtcdHands]:
    """Hands on the keys of the test's service."""
    async with grpc.aio.insecure_channel(etcd.removeprefix("http://")) as channel:
        yield EtcdHands(channel, settings.key_prefix)
