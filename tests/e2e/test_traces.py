"""Traces of a real process, as a collector receives them and etcd sees them."""

import asyncio
import re
import secrets
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from e2e.support_e2e import ROOT, Serve, until, until_true
from links import linked
from otlp import Receiver, attributes, receiving
from support import Peer, connected, refused

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import ProposeOperationRequest

SERVICE = "n0stack.operation.v1alpha.OperationService"
TXN = "etcdserverpb.KV/Txn"
KIND_SERVER, KIND_CLIENT = 2, 3
STATUS_UNSET, STATUS_ERROR = 0, 2


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def variables(collector: Receiver, **more: str) -> dict[str, Any]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"} | more


def proposal(name: str, token: str = "a-secret-token") -> ProposeOperationRequest:
    return ProposeOperationRequest(
        project="demo", name=name, proposing_peer_token=token, lock_for_seconds=60, log_message="a-secret-message"
    )


async def propose(peer: Peer, name: str, trace_id: str, span_id: str) -> None:
    """Propose as a caller does that is traced itself."""
    metadata = (("traceparent", f"00-{trace_id}-{span_id}-01"),)
    await peer.stub.ProposeOperation(proposal(name), timeout=20, metadata=metadata)


async def test_a_call_continues_its_callers_trace_down_to_etcd(serve: Serve, etcd: str, collector: Receiver) -> None:
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    async with linked(etcd) as link:
        link.asked = bytearray()
        server = await serve(
            *("--etcd-endpoints", link.url, "--key-prefix", f"/{trace_id}/"),
            **variables(collector, OTEL_SERVICE_NAME="locks"),
        )
        async with connected(server.address) as peer:
            await propose(peer, "web-1", trace_id, span_id)
        await until_true(lambda: bool(collector.named(f"{SERVICE}/ProposeOperation")))
        asked = bytes(link.asked)
    assert collector.resource["service.name"] == "locks"
    (span,) = collector.named(f"{SERVICE}/ProposeOperation")
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.kind) == (trace_id, span_id, KIND_SERVER)
    assert attributes(span) == {
        "rpc.system": "grpc",
        "rpc.service": SERVICE,
        "rpc.method": "ProposeOperation",
        "rpc.grpc.status_code": 0,
        "n0stack.project": "demo",
        "n0stack.name": "web-1",
    }
    (commit,) = [each for each in collector.below(span) if each.name == "commit"]
    (txn,) = collector.below(commit)
    assert (txn.name, txn.kind) == (TXN, KIND_CLIENT)
    told = attributes(txn)
    assert told["server.address"] == "127.0.0.1"
    assert told["rpc.grpc.status_code"] == 0
    # Each call of etcd that has a span tells etcd of it, and no other call does.
    sent = set(re.findall(rb"traceparent.(00-[0-9a-f]{32}-[0-9a-f]{16}-01)", asked, re.DOTALL))
    etcds = [each for each in collector.spans if each.kind == KIND_CLIENT]
    assert sent == {f"00-{trace_id}-{each.span_id.hex()}-01".encode() for each in etcds}
    assert b"secret" not in b"".join(each.SerializeToString() for each in collector.spans)


async def test_a_call_of_nobody_who_is_traced_begins_a_trace(serve: Serve, etcd: str, collector: Receiver) -> None:
    server = await serve("--etcd-endpoints", etcd, **variables(collector))
    async with connected(server.address) as peer:
        await peer.stub.ProposeOperation(proposal(secrets.token_hex(4)), timeout=20)
        garbage = (("traceparent", "00-nonsense"),)
        await peer.stub.ProposeOperation(proposal(secrets.token_hex(4)), timeout=20, metadata=garbage)
    await until_true(lambda: len(collector.named(f"{SERVICE}/ProposeOperation")) == 2)
    first, second = collector.named(f"{SERVICE}/ProposeOperation")
    assert first.trace_id != second.trace_id
    assert not first.parent_span_id
    assert not second.parent_span_id
    assert collector.resource["service.name"] == "n0stack-operation-service"


async def test_a_refusal_has_its_code_and_reason_and_is_no_fault_of_the_service(
    serve: Serve, etcd: str, collector: Receiver
) -> None:
    server = await serve("--etcd-endpoints", etcd, **variables(collector))
    name = secrets.token_hex(4)
    async with connected(server.address) as peer:
        await peer.call("ProposeOperation", proposal(name))
        assert (await refused(peer.call("ProposeOperation", proposal(name, "another")))).reason == "LOCKED"
        bad = proposal(name)
        bad.project = "-" * 1_000
        assert (await refused(peer.call("ProposeOperation", bad))).reason == "INVALID_ARGUMENT"
    await until_true(lambda: len(collector.named(f"{SERVICE}/ProposeOperation")) == 3)
    _, locked, invalid = collector.named(f"{SERVICE}/ProposeOperation")
    assert attributes(locked)["n0stack.reason"] == "LOCKED"
    assert attributes(locked)["rpc.grpc.status_code"] == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert locked.status.code == STATUS_UNSET
    # A refusal is confirmed by a read.
    assert [each.name for each in collector.below(locked)][-1] == "read"
    assert attributes(invalid)["rpc.grpc.status_code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert attributes(invalid)["n0stack.project"] == "-" * 256


async def test_an_etcd_that_is_gone_is_a_fault(serve: Serve, etcd: str, collector: Receiver) -> None:
    async with linked(etcd) as link:
        server = await serve("--etcd-endpoints", link.url, **variables(collector))
        await link.close()
        async with connected(server.address) as peer:
            peer.timeout = 2
            assert (await refused(peer.call("ProposeOperation", proposal("x")))).code is grpc.StatusCode.UNAVAILABLE
        await until_true(lambda: bool(collector.named(f"{SERVICE}/ProposeOperation")))
    (span,) = collector.named(f"{SERVICE}/ProposeOperation")
    assert span.status.code == STATUS_ERROR
    assert attributes(span)["n0stack.reason"] == "ETCD_UNAVAILABLE"


async def test_who_shares_a_transaction_is_linked_to_it(serve: Serve, etcd: str, collector: Receiver) -> None:
    server = await serve("--etcd-endpoints", etcd, "--key-prefix", f"/{secrets.token_hex(8)}/", **variables(collector))
    async with connected(server.address) as peer:
        await asyncio.gather(
            *(propose(peer, f"web-{place}", secrets.token_hex(16), secrets.token_hex(8)) for place in range(40))
        )
    await until_true(lambda: len(collector.named(f"{SERVICE}/ProposeOperation")) == 40)
    commits = {each.span_id: each for each in collector.named("commit")}
    assert len(commits) == 40
    carried: list[bytes] = []
    for txn in collector.named(TXN):
        if txn.parent_span_id not in commits:
            continue
        first = commits[txn.parent_span_id]
        assert txn.trace_id == first.trace_id
        others = [commits[link.span_id] for link in txn.links]
        # From each of the others one finds the way, too.
        assert all((link.trace_id, link.span_id) == (first.trace_id, first.span_id) for o in others for link in o.links)
        assert all(len(other.links) == 1 for other in others)
        carried += [first.span_id, *(other.span_id for other in others)]
    assert sorted(carried) == sorted(commits)
    assert any(txn.links for txn in collector.named(TXN))


async def test_a_watchs_span_ends_when_the_watch_stands(serve: Serve, etcd: str, collector: Receiver) -> None:
    server = await serve("--etcd-endpoints", etcd, "--key-prefix", f"/{secrets.token_hex(8)}/", **variables(collector))
    async with connected(server.address) as peer:
        watch = peer.stub.WatchOperations(pb.WatchOperationsRequest(project="demo"), timeout=50)
        await watch.initial_metadata()
        await until_true(lambda: bool(collector.named(f"{SERVICE}/WatchOperations")))
        (span,) = collector.named(f"{SERVICE}/WatchOperations")
        assert attributes(span)["n0stack.project"] == "demo"
        await peer.stub.ProposeOperation(proposal("x"), timeout=20)
        assert (await watch.read()).operation.name == "x"
        await until_true(lambda: bool(collector.named(f"{SERVICE}/ProposeOperation")))
        watch.cancel()
    ended = time.time_ns()
    # What the watch reads and tells after its begin belongs to nobody's trace.
    assert all(each.end_time_unix_nano <= span.end_time_unix_nano < ended for each in collector.below(span))
    assert len(collector.named(f"{SERVICE}/WatchOperations")) == 1


async def test_what_is_not_sampled_is_not_sent(serve: Serve, etcd: str, collector: Receiver) -> None:
    more = {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}
    server = await serve("--etcd-endpoints", etcd, **variables(collector, **more))
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    async with connected(server.address) as peer:
        await peer.stub.ProposeOperation(proposal(secrets.token_hex(4)), timeout=20)
        # A caller that is sampled is followed all the same.
        await propose(peer, secrets.token_hex(4), trace_id, span_id)
    await until_true(lambda: bool(collector.spans))
    assert await server.stop() == 0
    assert {each.trace_id.hex() for each in collector.spans} == {trace_id}


async def test_of_callers_that_are_not_traced_the_share_that_was_asked_for_is_traced_as_a_whole(
    serve: Serve, etcd: str, collector: Receiver
) -> None:
    more = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}
    server = await serve("--etcd-endpoints", etcd, **variables(collector, **more))
    async with connected(server.address) as peer:
        for _ in range(12):
            await asyncio.gather(*(peer.named("x").propose(f"web-{place}", project="demo") for place in range(50)))
    assert await server.stop() == 0
    calls = collector.named(f"{SERVICE}/ProposeOperation")
    # 300, and these bounds are off by chance once in a billion times.
    assert 225 < len(calls) < 375
    # The very trace that was chosen has begun: its id says so, whoever looks at it.
    assert all(int.from_bytes(each.trace_id[8:]) < 1 << 63 for each in calls)
    assert all([below.name for below in collector.below(each)].count("commit") == 1 for each in calls)


async def test_the_last_spans_are_sent_at_the_stop(serve: Serve, etcd: str, collector: Receiver) -> None:
    server = await serve("--etcd-endpoints", etcd, **variables(collector, OTEL_BSP_SCHEDULE_DELAY="600000"))
    async with connected(server.address) as peer:
        await peer.stub.ProposeOperation(proposal(secrets.token_hex(4)), timeout=20)
    assert not collector.spans
    assert await server.stop() == 0
    assert len(collector.named(f"{SERVICE}/ProposeOperation")) == 1


async def test_a_collector_that_does_not_answer_does_not_hold_the_stop(
    serve: Serve, etcd: str, collector: Receiver
) -> None:
    collector.answers.clear()
    server = await serve("--etcd-endpoints", etcd, **variables(collector))
    async with connected(server.address) as peer:
        await peer.stub.ProposeOperation(proposal(secrets.token_hex(4)), timeout=20)
        assert await server.stop() == 0
    assert "the last spans are lost" in server.log
    collector.answers.set()


async def test_what_cannot_be_had_is_said_in_a_line_and_the_service_serves(
    serve: Serve, etcd: str, collector: Receiver
) -> None:
    server = await serve("--etcd-endpoints", etcd, **variables(collector, OTEL_EXPORTER_OTLP_PROTOCOL="grpc"))

    async def is_told() -> bool:
        return "calls are not traced: OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in server.log

    await until(is_told)


async def test_without_the_variables_nothing_of_opentelemetry_is_imported(serve: Serve, etcd: str) -> None:
    server = await serve("--etcd-endpoints", etcd, PYTHONVERBOSE="1")
    assert "import 'grpc" in server.log
    for package in ("opentelemetry", "prometheus_client", "requests"):
        assert f"import '{package}" not in server.log


async def test_what_the_page_sets_traces_a_hundredth(serve: Serve, etcd: str, collector: Receiver) -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    (block,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    given = dict(re.findall(r"(OTEL_\w+)=(\S+)", block))
    assert given.pop("OTEL_EXPORTER_OTLP_ENDPOINT").startswith("http://")
    server = await serve("--etcd-endpoints", etcd, **variables(collector, **given))
    async with connected(server.address) as peer:
        # The trace's id decides: of these some 20 are traced, and none is once in a billion times.
        for _ in range(20):
            await asyncio.gather(*(peer.named("x").propose(f"web-{place}", project="demo") for place in range(100)))
    assert await server.stop() == 0
    assert 1 <= len(collector.named(f"{SERVICE}/ProposeOperation")) < 100
