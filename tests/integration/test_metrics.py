"""What is told to Prometheus, of a service over a real etcd."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest
from etcd_hands import EtcdHands
from links import linked
from ports import a_port
from scraping import Scraped, http_get, scrape
from support import Peer, TestClock, connected
from waiting import soon

from operation_service import metrics_http
from operation_service.server import running
from operation_service.settings import Settings, SettingsError
from operation_service.tallies import Spread


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, metrics_listen=f"127.0.0.1:{a_port()}")


@pytest.fixture
def metrics(settings: Settings) -> str:
    assert settings.metrics_listen
    return settings.metrics_listen


async def comes(metrics: str, is_so: Callable[[Scraped], bool]) -> bool:
    """Whether a scrape tells it before long."""

    async def is_told() -> bool:
        scraped = await scrape(metrics)
        return scraped.has("locks_held") and is_so(scraped)

    return await soon(is_told)


def shows(metrics: str, **values: float) -> Awaitable[bool]:
    """Whether series without labels come to have these values."""
    return comes(metrics, lambda scraped: all(scraped.get(name) == value for name, value in values.items()))


@contextlib.asynccontextmanager
async def another(etcd: str, settings: Settings) -> AsyncIterator[str]:
    """Another replica; the value is where its metrics are."""
    listen = f"127.0.0.1:{a_port()}"
    async with running(replace(settings, metrics_listen=listen), [etcd]):
        yield listen


async def test_calls_are_counted_by_method_and_code(peer: Peer, metrics: str) -> None:
    before = await scrape(metrics)
    await peer.propose()
    with pytest.raises(grpc.aio.AioRpcError):
        await peer.named("peer-b").propose()
    with pytest.raises(grpc.aio.AioRpcError):
        await peer.propose("no//name")
    assert await comes(
        metrics,
        lambda scraped: (
            scraped.get("calls_total", method="ProposeOperation", code="OK") == 1
            and scraped.get("calls_total", method="ProposeOperation", code="FAILED_PRECONDITION") == 1
            and scraped.get("calls_total", method="ProposeOperation", code="INVALID_ARGUMENT") == 1
            and scraped.get("call_duration_seconds_count", method="ProposeOperation") == 3
            and scraped.get("refusals_total", reason="LOCKED") == 1
            and scraped.get("refusals_total", reason="INVALID_ARGUMENT") == 1
            and scraped.get("refusals_total", reason="NOT_LOCKED") == 0
        ),
    )
    assert before.get("call_duration_seconds_count", method="ProposeOperation") == 0


async def test_a_call_that_its_caller_gives_up_is_counted_as_cancelled(peer: Peer, metrics: str) -> None:
    watch = await peer.watching(project="project")
    assert await shows(metrics, watches=1)
    watch.cancel()
    assert await comes(metrics, lambda scraped: scraped.values.get(_ended_watch) == 1 and scraped.get("watches") == 0)


_ended_watch = ("operation_service_calls_total", frozenset({("method", "WatchOperations"), ("code", "CANCELLED")}))


async def test_no_word_of_a_caller_becomes_a_label(peer: Peer, metrics: str) -> None:
    for path in ("/n0stack.operation.v1alpha.OperationService/Invented", "/an.invented.Service/Rpc"):
        invented: Any = peer.channel.unary_unary(path)
        with pytest.raises(grpc.aio.AioRpcError):
            await invented(b"")
    await peer.propose("an-own-name", proposing_peer_token="an-own-token")
    assert await shows(metrics, locks_held=1)
    _, text = await http_get(metrics)
    for word in ("Invented", "invented", "an-own-name", "an-own-token", "project", "127.0.0.1"):
        assert word not in text


async def test_changes_are_counted_by_their_events_and_retries_are_none(peer: Peer, metrics: str) -> None:
    await peer.create()
    await peer.create()
    await peer.propose()
    await peer.propose()
    await peer.append("a step")
    await peer.complete()
    await peer.complete()
    counted = {"CREATED": 1, "LOCKED": 1, "RENEWED": 1, "LOGGED": 1, "SUCCEEDED": 1, "FAILED": 0, "CANCELLED": 0}
    scraped = await scrape(metrics)
    assert {event: scraped.get("changes_total", event=event) for event in counted} == counted
    assert scraped.get("commit_changes_sum") == 5
    # A proposal for what nobody ever held takes nothing over.
    assert scraped.get("takeovers_total") == 0


async def test_a_lock_is_held_until_it_is_over_whichever_replica_gave_it(
    etcd: str, settings: Settings, peer: Peer, metrics: str
) -> None:
    await peer.propose("before")
    async with another(etcd, settings) as other:
        assert await shows(other, locks_held=1)
        await peer.propose("one")
        await peer.propose("one")
        await peer.propose("two")
        for each in (metrics, other):
            assert await shows(each, locks_held=3, dead_operators=0)
        await peer.complete("before")
        await peer.cancel("one")
        for each in (metrics, other):
            assert await shows(each, locks_held=1, dead_operators=0)


async def test_dead_operators_are_counted_from_their_death_to_their_takeover(
    peer: Peer, hands: EtcdHands, metrics: str
) -> None:
    await peer.propose("dead", is_disabled_cancel=True)
    await peer.propose("expired")
    await hands.let_lock_run_out("dead")
    await hands.let_lock_run_out("expired")
    assert await shows(metrics, locks_held=0, dead_operators=1)
    scraped = await scrape(metrics)
    assert scraped.get("expiries_heard_total", event="OPERATOR_DEAD") == 1
    assert scraped.get("expiries_heard_total", event="EXPIRED") == 1
    assert scraped.get("takeovers_total") == 0
    await peer.named("peer-b").propose("dead")
    assert await shows(metrics, locks_held=1, dead_operators=0, takeovers_total=1)


async def test_who_was_dead_before_a_replica_started_counts(
    etcd: str, settings: Settings, peer: Peer, hands: EtcdHands, metrics: str
) -> None:
    for name in ("dead", "dead-too"):
        await peer.propose(name, is_disabled_cancel=True)
        await hands.let_lock_run_out(name)
    await peer.propose("alive", is_disabled_cancel=True)
    assert await shows(metrics, dead_operators=2, locks_held=1)
    async with another(etcd, settings) as other:
        assert await shows(other, dead_operators=2, locks_held=1)
        # It has heard of none of them.
        assert (await scrape(other)).get("expiries_heard_total", event="OPERATOR_DEAD") == 0
        await peer.cancel("dead")
        assert await shows(other, dead_operators=1)
        # The end of the retention time is no more than that the record goes.
        await hands.delete("records/project/dead-too")
        assert await shows(other, dead_operators=0)
        await hands.let_lock_run_out("alive")
        assert await shows(other, dead_operators=1)


async def test_what_was_missed_is_looked_for_again(etcd: str, settings: Settings, peer: Peer, hands: EtcdHands) -> None:
    """While a replica is cut off, operators die and are relieved, and etcd compacts the news of it away."""
    await peer.propose("dies", is_disabled_cancel=True)
    await peer.propose("was-dead", is_disabled_cancel=True)
    await hands.let_lock_run_out("was-dead")
    async with linked(etcd) as link, another(link.url, settings) as cut_off:
        assert await shows(cut_off, dead_operators=1, locks_held=1)
        await link.close()
        await peer.named("peer-b").propose("was-dead")
        await peer.propose("new")
        await hands.let_lock_run_out("dies")
        await hands.compact()
        await link.open()
        assert await shows(cut_off, dead_operators=1, locks_held=2, healthy=1)
        assert (await scrape(cut_off)).get("expiries_heard_total", event="OPERATOR_DEAD") == 0
        await peer.cancel("dies")
        assert await shows(cut_off, dead_operators=0)


async def test_etcds_calls_and_failures_are_told(etcd: str, settings: Settings) -> None:
    async with linked(etcd) as link, another(link.url, settings) as metrics:
        assert await comes(metrics, lambda told: told.get("etcd_call_duration_seconds_count", call="Range") > 0)
        assert (await scrape(metrics)).get("healthy") == 1
        await link.close()
        assert await comes(
            metrics,
            lambda told: (
                told.get("etcd_errors_total", call="Range", code="UNAVAILABLE") > 0
                and told.get("healthy") == 0
                and told.get("etcd_watch_interrupted_seconds") > 0
            ),
        )


async def test_a_lock_that_etcd_kept_for_too_long_is_counted_by_whoever_ended_it(
    peer: Peer, clock: TestClock, metrics: str
) -> None:
    await peer.propose(lock_for_seconds=30)
    clock.pass_seconds(60)
    assert await shows(metrics, stretched_locks_ended_total=1, locks_held=0)


async def silent(metrics: str, count: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connections on which nothing is asked."""
    host, _, port = metrics.rpartition(":")
    return [await asyncio.open_connection(host, int(port)) for _ in range(count)]


async def is_cut_off(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(20):
        try:
            return await reader.read(-1) == b""
        except ConnectionError:
            return True


async def test_who_says_nothing_keeps_nobody_waiting_and_is_cut_off(
    address: str, metrics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert address
    monkeypatch.setattr(metrics_http, "_REQUEST_SECONDS", 2.0)
    many = await silent(metrics, metrics_http.MAX_CONNECTIONS - 1)
    assert (await http_get(metrics))[0] == 200
    for reader, _ in many:
        assert await is_cut_off(reader)
    for _, writer in many:
        writer.close()


async def test_who_does_not_read_keeps_nobody_waiting(address: str, metrics: str) -> None:
    assert address
    ((reader, writer),) = await silent(metrics, 1)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert (await http_get(metrics))[0] == 200
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_beyond_the_last_place_there_is_none_until_somebody_leaves(
    address: str, metrics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert address
    monkeypatch.setattr(metrics_http, "_REQUEST_SECONDS", 50.0)
    many = await silent(metrics, metrics_http.MAX_CONNECTIONS)
    many += await silent(metrics, 1)
    assert await is_cut_off(many[-1][0])
    for _, writer in many:
        writer.close()

    async def is_told() -> bool:
        try:
            return (await http_get(metrics))[0] == 200
        except (ConnectionError, IndexError):
            return False

    assert await soon(is_told)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/", "GET", 404), ("/metrics", "POST", 405), ("/metrics?x=y", "GET", 200), ("/metrics", "HEAD", 200)],
)
async def test_only_metrics_are_there(address: str, metrics: str, path: str, method: str, status: int) -> None:
    assert address
    got, body = await http_get(metrics, path, method)
    assert got == status
    assert bool(body) is (method != "HEAD")


@pytest.mark.parametrize("data", [b"\r\n\r\n", b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"x" * 20_000])
async def test_nonsense_is_answered_or_cut_off(address: str, metrics: str, data: bytes) -> None:
    assert address
    host, _, port = metrics.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            assert (await reader.read(-1)).startswith((b"", b"HTTP/1.1 404"))
    writer.close()
    assert (await http_get(metrics))[0] == 200


async def test_a_port_in_use_is_wrong_settings(etcd: str, settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SettingsError, match=f"--metrics-listen: cannot listen on {listen}"):
            async with running(replace(settings, metrics_listen=listen), [etcd]):
                pass


async def test_names_and_kinds_are_those_of_prometheus(peer: Peer, metrics: str) -> None:
    await peer.propose()
    assert await shows(metrics, locks_held=1)
    scraped = await scrape(metrics)
    own = {name: kind for name, kind in scraped.kinds.items() if name.startswith("operation_service_")}
    for name, kind in own.items():
        assert name.endswith("_seconds") or "seconds" not in name
        assert kind in {"counter", "gauge", "histogram"}
        if kind == "counter":
            assert f"{name}_total" in scraped.names
    # Of what every replica tells alike the sum would be nonsense.
    for name in ("locks_held", "dead_operators", "expiries_heard"):
        assert "take max" in scraped.told[f"operation_service_{name}"]


async def test_without_the_flag_nothing_is_counted(
    etcd: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("something was counted")

    monkeypatch.setattr(Spread, "note", fail)
    async with running(replace(settings, metrics_listen=None), [etcd]) as service, connected(service.address) as peer:
        await peer.propose()
        await peer.complete()
