"""What a person does with etcdctl and grpcurl alone, when something has gone wrong."""

import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from e2e.support_e2e import DESCRIPTOR_SET, Serve, Server, etcdctl, grpcurl
from google.rpc.code_pb2 import PERMISSION_DENIED
from support import Peer, connected, event_name, refused, shutdown_request, state_name

from n0stack.operation.v1alpha import operation_service_pb2 as pb

PREFIX = "/break-glass/"
LOCK = f"{PREFIX}locks/project/virtual_machines/web-1"
RECORD = f"{PREFIX}records/project/virtual_machines/web-1"
GRPCURL_ERROR = 64
"""grpcurl's exit code for a call that failed: this plus the status."""


@pytest.fixture
async def server(etcd: str, serve: Serve) -> AsyncIterator[Server]:
    yield await serve("--etcd-endpoints", etcd, "--key-prefix", PREFIX, "--descriptor-set", DESCRIPTOR_SET)
    await etcdctl(etcd, "del", "--prefix", PREFIX)


@pytest.fixture
async def holder(server: Server) -> AsyncIterator[Peer]:
    async with connected(server.address) as peer:
        yield peer


async def test_a_person_can_read_all_keys_with_etcdctl(holder: Peer, etcd: str) -> None:
    await holder.create(log_message="asked for")
    await holder.propose(lock_for_seconds=600, is_disabled_cancel=True, log_message="working")
    await holder.propose("cancelled", lock_for_seconds=600)
    await holder.cancel("cancelled")
    lines = (await etcdctl(etcd, "get", "--prefix", PREFIX)).splitlines()
    values = {key: value for key, value in itertools.pairwise(lines) if key.startswith(PREFIX)}
    operation_id = json.loads(values[RECORD])["operation_id"]
    details = f"{PREFIX}details/project/virtual_machines/web-1#{operation_id}/"
    (cancelled,) = [key for key in values if key.startswith(f"{PREFIX}cancelled/project/cancelled#")]
    assert sorted(values) == [
        cancelled,
        f"{details}log/0000000001",
        f"{details}log/0000000002",
        f"{details}request",
        f"{PREFIX}layout",
        LOCK,
        f"{PREFIX}records/project/cancelled",
        RECORD,
    ]
    lock, record = json.loads(values[LOCK]), json.loads(values[RECORD])
    assert (lock["token"], lock["is_disabled_cancel"], lock["ttl_seconds"]) == (holder.token, True, 600)
    assert lock == record["lock"]
    assert (record["phase"], record["log_count"], record["last_log"]["message"]) == ("PROPOSED", 2, "working")
    assert json.loads(values[f"{details}log/0000000001"])["message"] == "asked for"
    assert json.loads(values[cancelled])["token"] == holder.token


@pytest.mark.parametrize(
    ("is_disabled_cancel", "state"), [(False, "EXPIRED"), (True, "OPERATOR_DEAD")], ids=["EXPIRED", "OPERATOR_DEAD"]
)
async def test_deleting_the_lock_key_is_the_same_as_the_lock_running_out(
    holder: Peer, etcd: str, is_disabled_cancel: bool, state: str
) -> None:
    await holder.create()
    await holder.propose(lock_for_seconds=3600, is_disabled_cancel=is_disabled_cancel, log_message="working")
    fencing_token = holder.fencing_token
    assert fencing_token
    watch = holder.watch()
    assert event_name((await watch.read()).event) == "LOCKED"

    assert await etcdctl(etcd, "del", LOCK) == "1\n"

    told = await watch.read()
    assert event_name(told.event) == state
    assert state_name(told.operation.state) == state
    assert await holder.state() == state
    listed = await holder.list(states=[pb.OperationState.Value(f"OPERATION_STATE_{state}")])
    assert [record.name for record in listed.operations] == ["virtual_machines/web-1"]
    # The holder learns it, whether it sends its fencing token or not.
    assert (await refused(holder.append())).reason == "NOT_LOCKED"
    assert (await refused(holder.propose(fence=fencing_token))).reason == "FENCING_TOKEN_MISMATCH"

    other = holder.named("another")
    operation = await other.propose(log_message="taking over")
    assert other.fencing_token
    assert other.fencing_token > fencing_token
    assert operation.operation_request == shutdown_request()
    assert [log.message for log in operation.logs] == ["working", "taking over"]
    assert (await refused(holder.append())).reason == "TOKEN_MISMATCH"
    assert event_name((await watch.read()).event) == "LOCKED"
    watch.cancel()


async def test_a_record_that_was_deleted_by_hand_is_no_obstacle(holder: Peer, etcd: str) -> None:
    await holder.create()
    await holder.propose(lock_for_seconds=3600)
    await etcdctl(etcd, "del", LOCK)
    await etcdctl(etcd, "del", RECORD)
    assert (await refused(holder.get())).reason == "NOT_FOUND"
    operation = await holder.named("another").propose()
    assert not operation.HasField("operation_request")


async def test_a_value_that_was_spoilt_by_hand_is_told_as_such_and_spoils_nothing_else(holder: Peer, etcd: str) -> None:
    await holder.propose()
    await holder.propose("sound")
    await etcdctl(etcd, "put", RECORD, "spoilt")
    refusal = await refused(holder.get())
    assert refusal.reason == "CORRUPT_RECORD"
    assert refusal.metadata["key"] == RECORD
    assert await holder.state("sound") == "LOCKED"


async def test_grpcurl_shows_the_details_of_errors_as_json(server: Server, holder: Peer) -> None:
    await holder.propose(lock_for_seconds=600, log_message="working")
    request = {"project": "project", "name": "virtual_machines/web-1", "proposing_peer_token": "b"}
    refusal = await grpcurl(server.address, "ProposeOperation", json.dumps(request | {"lock_for_seconds": 1}))
    assert refusal.code == GRPCURL_ERROR + 9
    info, retry = details_of(refusal.err)
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert (info["domain"], info["reason"]) == ("operation.n0stack", "LOCKED")
    assert info["metadata"].keys() == {"project", "name", "holder", "locked_since", "locked_until", "last_log"}
    assert info["metadata"]["last_log"] == "working"
    assert retry["@type"] == "type.googleapis.com/google.rpc.RetryInfo"
    assert 590 < float(retry["retryDelay"].removesuffix("s")) <= 600

    mismatch = await grpcurl(server.address, "CancelOperation", json.dumps(request))
    assert mismatch.code == GRPCURL_ERROR + PERMISSION_DENIED
    (info,) = details_of(mismatch.err)
    assert info["reason"] == "TOKEN_MISMATCH"

    invalid = await grpcurl(server.address, "ProposeOperation", '{"project": "-"}')
    info, bad_request = details_of(invalid.err)
    assert info["reason"] == "INVALID_ARGUMENT"
    fields = {violation["field"] for violation in bad_request["fieldViolations"]}
    assert fields == {"project", "name", "proposing_peer_token", "lock_for_seconds"}


async def test_grpcurl_writes_and_reads_a_request_of_a_known_type(server: Server) -> None:
    shutdown = {
        "@type": "type.googleapis.com/n0stack.infra.v1alpha.ShutdownVirtualMachineRequest",
        "name": "web-1",
        "project": "project",
        "hard": True,
    }
    resource = {"project": "project", "name": "virtual_machines/web-1"}
    create = resource | {"proposing_peer_token": "a", "operation_request": shutdown}
    created = await grpcurl(server.address, "CreateOperation", json.dumps(create))
    assert created.code == 0, created.err
    shown = await grpcurl(server.address, "GetOperation", json.dumps(resource))
    assert json.loads(shown.out)["operation"]["operationRequest"] == shutdown


async def test_the_fencing_token_is_shown_and_taken_by_grpcurl(server: Server) -> None:
    request = {"project": "project", "name": "a", "proposing_peer_token": "a", "lock_for_seconds": 60}
    first = await grpcurl(server.address, "ProposeOperation", json.dumps(request), "-v")
    token = int(first.out.partition("n0stack-fencing-token: ")[2].split()[0])
    assert token > 0
    renewed = await grpcurl(
        server.address, "ProposeOperation", json.dumps(request), "-v", "-H", f"n0stack-fencing-token: {token}"
    )
    assert f"n0stack-fencing-token: {token}" in renewed.out.partition("Response trailers")[2]
    late = await grpcurl(
        server.address, "ProposeOperation", json.dumps(request), "-H", f"n0stack-fencing-token: {token + 1}"
    )
    (info,) = details_of(late.err)
    assert info["reason"] == "FENCING_TOKEN_MISMATCH"
    assert info["metadata"]["fencing_token"] == str(token)


def details_of(err: str) -> list[dict[str, Any]]:
    """The details that grpcurl has printed, each as JSON on a line of its own."""
    _, _, details = err.partition("Details:\n")
    return [json.loads(line.partition("{")[1] + line.partition("{")[2]) for line in details.splitlines()]


def test_the_keys_named_here_are_those_of_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for key in (
        "locks/PROJECT/NAME",
        "records/PROJECT/NAME",
        "details/PROJECT/NAME#ID/request",
        "cancelled/PROJECT/NAME#HASH",
    ):
        assert f"`{key}`" in readme
