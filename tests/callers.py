"""Callers that show who they are."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from certificates import KeyPair
from google.protobuf.message import Message
from support import Peer

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import ProposeOperationRequest

Metadata = tuple[tuple[str, str], ...]

ALL_ROLES = ("read", "write", "operate")


class Caller(Peer):
    """A peer that shows something with each call."""

    def __init__(self, channel: grpc.aio.Channel, shown: Metadata = ()) -> None:
        super().__init__(channel)
        self.shown = shown

    async def call(self, rpc: str, request: Message, *, fence: object = None) -> Any:
        assert fence is None
        return await getattr(self.stub, rpc)(request, timeout=self.timeout, metadata=self.shown)

    def watch(self, **fields: Any) -> Any:
        request = pb.WatchOperationsRequest(**fields)
        return self.stub.WatchOperations(request, timeout=self.timeout, metadata=self.shown)


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


@contextlib.asynccontextmanager
async def over_mtls(address: str, ca: bytes, own: KeyPair | None, shown: Metadata = ()) -> AsyncIterator[Caller]:
    """A caller over a connection of its own, with a certificate if it has one."""
    credentials = grpc.ssl_channel_credentials(ca, *((own.key, own.cert) if own else ()))
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        yield Caller(channel, shown)


def binding(subject: str, *roles: str, projects: tuple[str, ...] = ("demo",)) -> str:
    """A table of a policy, as TOML."""
    subjects, named, given = (json.dumps(each) for each in ([subject], list(projects), list(roles)))
    return f"[[bindings]]\nsubjects = {subjects}\nroles = {given}\nprojects = {named}\n"


def write_policy(file: Path, *bindings: str) -> None:
    """As it should be done: put in place at once."""
    new = file.with_name("new")
    new.write_text("\n".join(bindings))
    new.replace(file)


def request_of(rpc: str, project: str = "demo", name: str = "networks/lan") -> Message:
    """A request that is all right, for any of the nine."""
    resource: dict[str, Any] = {"project": project, "name": name}
    changing: dict[str, Any] = resource | {"proposing_peer_token": "peer-a"}
    requests: dict[str, Message] = {
        "CreateOperation": pb.CreateOperationRequest(**changing),
        "ProposeOperation": ProposeOperationRequest(**changing, lock_for_seconds=30),
        "AppendOperationLog": pb.AppendOperationLogRequest(**changing, log_message="a step"),
        "CompleteOperation": pb.CompleteOperationRequest(**changing),
        "CancelOperation": pb.CancelOperationRequest(**changing),
        "GetOperation": pb.GetOperationRequest(**resource),
        "ListOperations": pb.ListOperationsRequest(project=project),
        "ListOperationLogs": pb.ListOperationLogsRequest(**resource),
        "WatchOperations": pb.WatchOperationsRequest(project=project),
    }
    return requests[rpc]
