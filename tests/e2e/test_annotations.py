"""The protos have google.api.http options, and whoever imports or describes the service gets along with them."""

import sys

import pytest
from e2e.support_e2e import GRPCURL, SERVICE, Serve, grpcurl, run

STUBS = "n0stack.operation.v1alpha.operation_service_pb2_grpc"


@pytest.mark.parametrize(
    "modules", ["etcd3.etcdrpc, google.api.annotations_pb2", "google.api.annotations_pb2, etcd3.etcdrpc"]
)
async def test_the_options_and_etcds_stubs_are_imported_into_one_process(modules: str) -> None:
    for order in (f"{modules}, {STUBS}", f"{STUBS}, {modules}"):
        done = await run(sys.executable, "-W", "error", "-c", f"import {order}")
        assert (done.code, done.err) == (0, "")


async def test_grpcurl_lists_describes_and_calls_by_reflection(serve: Serve) -> None:
    address = (await serve()).address
    listed = await run(GRPCURL, "-plaintext", address, "list")
    assert SERVICE in listed.out.split()

    described = await run(GRPCURL, "-plaintext", address, "describe", f"{SERVICE}.ProposeOperation")
    assert "google.api.http" in described.out
    assert "/api/operation/v1alpha/projects/{project}/operations/{name=*/**}:propose" in described.out

    called = await grpcurl(
        address,
        "ProposeOperation",
        '{"project": "demo", "name": "web-1", "proposing_peer_token": "a", "lock_for_seconds": 60}',
    )
    assert (called.code, called.err) == (0, "")
    assert '"lockedUntil"' in called.out
