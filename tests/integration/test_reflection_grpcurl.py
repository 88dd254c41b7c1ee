"""The real grpcurl against a server that echoes: what people see of the service without having its protos."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2_grpc
from grpc_status import rpc_status

from n0stack.operation.v1alpha import operation_service_pb2, operation_service_pb2_grpc
from n0stack.protobuf import operation_pb2
from operation_service.admission import Gate
from operation_service.delivery import Delivery
from operation_service.descriptor_sets import load
from operation_service.errors import OverloadedError
from operation_service.reflection import add_reflection

SERVICE = "n0stack.operation.v1alpha.OperationService"
GRPCURL = Path(sys.executable).with_name("grpcurl")
EXAMPLE = Path(__file__).parents[2] / "examples" / "virtual_machine.binpb"
SHUTDOWN = {
    "@type": "type.googleapis.com/n0stack.infra.v1alpha.ShutdownVirtualMachineRequest",
    "name": "web-1",
    "hard": True,
}

Grpcurl = Callable[..., Awaitable[tuple[int, str, str]]]
Context = grpc.aio.ServicerContext[operation_service_pb2.CreateOperationRequest, operation_pb2.Operation]


class Echo(operation_service_pb2_grpc.OperationServiceServicer):
    async def CreateOperation(  # noqa: N802 - the protocol's name
        self, request: operation_service_pb2.CreateOperationRequest, context: Context
    ) -> operation_pb2.Operation:
        if not request.name:
            info = error_details_pb2.ErrorInfo(reason="INVALID_ARGUMENT", domain="operation.n0stack")
            status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="name: it is empty")
            status.details.add().Pack(info)
            await context.abort_with_status(rpc_status.to_status(status))
        return operation_pb2.Operation(
            operation_request=request.operation_request,
            locked_until=Timestamp(seconds=0),
            is_disabled_cancel=request.is_disabled_cancel,
            proposing_peer_token=request.proposing_peer_token,
        )


async def serve(*descriptor_sets: Path) -> tuple[grpc.aio.Server, str]:
    server = grpc.aio.server()
    # The other methods stay what they are in the generated class: UNIMPLEMENTED.
    operation_service_pb2_grpc.add_OperationServiceServicer_to_server(Echo(), server)  # type: ignore[abstract]
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    add_reflection(
        server, load(descriptor_sets), [SERVICE, health.SERVICE_NAME], Delivery(), Gate(100, OverloadedError)
    )
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    return server, address


async def run(address: str, verb: str, *options: str) -> tuple[int, str, str]:
    command = [str(GRPCURL), "-plaintext", *options, address, *verb.split()]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@pytest.fixture
async def grpcurl() -> AsyncIterator[Grpcurl]:
    server, address = await serve(EXAMPLE)
    yield lambda verb, *options: run(address, verb, *options)
    await server.stop(None)


async def test_list(grpcurl: Grpcurl) -> None:
    assert await grpcurl("list") == (
        0,
        f"grpc.health.v1.Health\ngrpc.reflection.v1alpha.ServerReflection\n{SERVICE}\n",
        "",
    )
    code, methods, _ = await grpcurl(f"list {SERVICE}")
    assert (code, f"{SERVICE}.WatchOperations" in methods.splitlines()) == (0, True)


async def test_every_listed_service_can_be_described(grpcurl: Grpcurl) -> None:
    code, described, errors = await grpcurl("describe")
    assert (code, errors) == (0, "")
    assert described.count(" is a service:\n") == 3


async def test_describe_shows_the_comments(grpcurl: Grpcurl) -> None:
    code, service, _ = await grpcurl(f"describe {SERVICE}")
    assert code == 0
    assert "// OperationService hands out the right to operate on a resource" in service
    _, field, _ = await grpcurl("describe n0stack.protobuf.Operation.locked_until")
    assert "// Until this time no other operator may operate on the resource." in field


@pytest.mark.parametrize(
    "symbol",
    [
        f"{SERVICE}.CreateOperation",
        "n0stack.operation.v1alpha.OperationState",
        "n0stack.operation.v1alpha.OperationState.OPERATION_STATE_LOCKED",
        "n0stack.protobuf.Operation.Log",
        "n0stack.infra.v1alpha.ShutdownVirtualMachineRequest",
        "google.rpc.BadRequest",
    ],
)
async def test_every_kind_of_symbol_is_described(grpcurl: Grpcurl, symbol: str) -> None:
    code, described, errors = await grpcurl(f"describe {symbol}")
    assert (code, errors) == (0, "")
    assert described.startswith(f"{symbol} is a")


async def test_describe_shows_json_names(grpcurl: Grpcurl) -> None:
    _, described, _ = await grpcurl("describe n0stack.protobuf.Operation", "-msg-template")
    template = json.loads(described[described.index("Message template:") + len("Message template:") :])
    assert list(template) == ["operationRequest", "lockedUntil", "isDisabledCancel", "proposingPeerToken", "logs"]


async def test_an_any_of_a_known_type_is_read_and_written_as_json(grpcurl: Grpcurl) -> None:
    request = {"name": "virtual_machines/web-1", "operationRequest": SHUTDOWN, "proposingPeerToken": "t"}
    code, answered, errors = await grpcurl(f"{SERVICE}/CreateOperation", "-d", json.dumps(request))
    assert (code, errors) == (0, "")
    assert json.loads(answered) == {
        "operationRequest": SHUTDOWN,
        "lockedUntil": "1970-01-01T00:00:00Z",
        "proposingPeerToken": "t",
    }


async def test_an_any_of_an_unknown_type_cannot_be_sent() -> None:
    server, address = await serve()
    data = json.dumps({"name": "virtual_machines/web-1", "operationRequest": SHUTDOWN})
    code, answered, errors = await run(address, f"{SERVICE}/CreateOperation", "-d", data)
    await server.stop(None)
    assert (code != 0, answered) == (True, "")
    assert "ShutdownVirtualMachineRequest" in errors


async def test_error_details_are_shown_as_json(grpcurl: Grpcurl) -> None:
    code, _, errors = await grpcurl(f"{SERVICE}/CreateOperation", "-d", "{}")
    assert code == 64 + code_pb2.INVALID_ARGUMENT
    assert "type.googleapis.com/google.rpc.ErrorInfo" in errors
    assert "operation.n0stack" in errors


async def test_an_unknown_symbol_is_not_found(grpcurl: Grpcurl) -> None:
    code, _, errors = await grpcurl("describe no.Symbol")
    assert code != 0
    assert "Symbol not found: no.Symbol" in errors
