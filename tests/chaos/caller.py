"""Makes calls of the service, over a replica that answers, and records what was asked and what was known afterwards."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import grpc
from chaos.history import Began, Call, Outcome, Recorder
from chaos.told import told_until
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.status_pb2 import Status
from support import Peer, Refusal, messages, refusal_of, state_name

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import Operation

CHANNEL_OPTIONS = (
    # Otherwise all channels of a process share their connections.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

_DEADLINE = (2.0, 5.0)
_WANDERS = 0.05
"""So many of the calls go to another replica for no reason."""
_REQUEST_TYPE = "type.googleapis.com/n0stack.infra.v1alpha.ShutdownVirtualMachineRequest"


@dataclass(frozen=True)
class Answer:
    """What came of a call.

    Attributes:
        call: As recorded.
        wait_seconds: After how long the service says that trying again makes sense. None: it did not say.
        record: What "get" answered, if there is an operation.
    """

    call: Call
    wait_seconds: float | None = None
    record: pb.OperationRecord | None = None

    @property
    def is_ok(self) -> bool:
        """Whether it was acknowledged."""
        return self.call.outcome is Outcome.OK


class Caller:
    """One task of a client: it makes one call at a time.

    Args:
        name: Of the task; what it does after a crash of its own is recorded under another one.
        replicas: Addresses.
        recorder: Where to.
        rng: Its choices.
    """

    def __init__(self, name: str, replicas: Sequence[str], recorder: Recorder, rng: random.Random) -> None:
        self._name = name
        self._recorder = recorder
        self._rng = rng
        self._addresses = list(replicas)
        self._channels = [grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) for address in replicas]
        self._peers = [Peer(channel) for channel in self._channels]
        self._replica = rng.randrange(len(replicas))
        self._lives = 0
        self._calls = 0
        self.client = ""
        self.token = ""
        self.forget()

    def forget(self) -> None:
        """Crash, and come back as a peer that knows nothing."""
        self._lives += 1
        self.client = f"{self._name}.{self._lives}"
        self.token = f"token-{self.client}"

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()

    def new_message(self) -> str:
        """Return a text that nobody else of this run uses."""
        self._calls += 1
        return f"{self.client}:{self._calls}"

    async def create(self, resource: str, *, lock_for_seconds: int, is_disabled_cancel: bool = False) -> Answer:
        """Ask for an operation with a request that no other one carries: none of these is a retry of another."""
        request = AnyMessage(type_url=_REQUEST_TYPE, value=f"{self.client}:{self._calls}".encode())
        return await self._change(
            "create",
            resource,
            lock_for_seconds=lock_for_seconds,
            is_disabled_cancel=is_disabled_cancel,
            operation_request=request,
        )

    async def propose(
        self, resource: str, *, lock_for_seconds: int, is_disabled_cancel: bool = False, fence: int = 0
    ) -> Answer:
        """Take the lock, or renew it."""
        return await self._change(
            "propose",
            resource,
            fence,
            lock_for_seconds=lock_for_seconds,
            is_disabled_cancel=is_disabled_cancel,
        )

    async def append(self, resource: str, *, fence: int = 0) -> Answer:
        """Add a line to the logs."""
        return await self._change("append", resource, fence)

    async def complete(self, resource: str, *, fence: int = 0, failed: bool = False) -> Answer:
        """End the operation."""
        more = {"error": Status(code=13, message="it broke")} if failed else {}
        return await self._change("complete", resource, fence, **more)

    async def cancel(self, resource: str, *, fence: int = 0) -> Answer:
        """Cancel the operation."""
        return await self._change("cancel", resource, fence)

    async def get(self, resource: str) -> Answer:
        """Read the operation."""
        peer, began = self._choose(), time.monotonic()
        facts: dict[str, Any] = {"client": self.client, "rpc": "get", "resource": resource, "began": began}
        try:
            record = await peer.get(resource)
        except grpc.aio.AioRpcError as error:
            return self._failed(facts, error)
        call = Call(
            **facts,
            ended=time.monotonic(),
            outcome=Outcome.OK,
            revision=record.revision,
            state=state_name(record.state),
            fencing_token=record.fencing_token,
            logs=tuple(messages(record.operation)),
        )
        self._recorder.add(call)
        return Answer(call, record=record)

    async def _change(self, rpc: str, resource: str, fence: int = 0, **fields: Any) -> Answer:
        peer, message = self._choose(), self.new_message()
        address = self._addresses[self._replica]
        facts: dict[str, Any] = {
            "client": self.client,
            "rpc": rpc,
            "resource": resource,
            "began": time.monotonic(),
            "token": self.token,
            "message": message,
            "lock_for_seconds": fields.get("lock_for_seconds", 0),
            "sent_fencing_token": fence,
        }
        self._recorder.add(Began(**facts))
        facts["is_disabled_cancel"] = fields.get("is_disabled_cancel", False)
        try:
            operation: Operation = await getattr(peer, rpc)(
                name=resource, fence=fence or None, log_message=message, **fields
            )
        except grpc.aio.AioRpcError as error:
            return self._failed(facts, error)
        ended = time.monotonic()
        said_until = _said_until(operation, facts["lock_for_seconds"])
        call = Call(
            **facts,
            ended=ended,
            outcome=Outcome.OK,
            replica=address,
            fencing_token=peer.fencing_token or 0,
            said_until=said_until,
            told_until=said_until
            and told_until(said_until, began=facts["began"], ended=ended, lock_for_seconds=facts["lock_for_seconds"]),
            logs=tuple(messages(operation)),
        )
        self._recorder.add(call)
        return Answer(call)

    def _choose(self) -> Peer:
        if self._rng.random() < _WANDERS:
            self._leave()
        peer = self._peers[self._replica]
        peer.token = self.token
        peer.timeout = self._rng.uniform(*_DEADLINE)
        return peer

    def _leave(self) -> None:
        self._replica = (self._replica + self._rng.randrange(1, len(self._peers))) % len(self._peers)

    def _failed(self, facts: dict[str, Any], error: grpc.aio.AioRpcError) -> Answer:
        refusal = told_refusal(error)
        if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
            self._leave()
        call = Call(
            **facts,
            ended=time.monotonic(),
            outcome=outcome_of(refusal),
            reason=refusal.reason if refusal else error.code().name,
        )
        self._recorder.add(call)
        return Answer(call, refusal.retry_seconds if refusal else None)


def told_refusal(error: grpc.aio.AioRpcError) -> Refusal | None:
    """Return what the service itself said; None where gRPC, or the way, made the error up."""
    trailers = dict(error.trailing_metadata() or ())
    return refusal_of(error) if "grpc-status-details-bin" in trailers else None


def outcome_of(refusal: Refusal | None) -> Outcome:
    """Tell whether an error says that nothing was changed."""
    if refusal is None or refusal.metadata.get("outcome") == "unknown" or refusal.reason == "UNFORESEEN":
        return Outcome.UNKNOWN
    return Outcome.REFUSED


def _said_until(operation: Operation, lock_for_seconds: int) -> float:
    """Return 0 for what shows no lock, and for what did not set its time: there the grant's own word counts."""
    if not operation.HasField("locked_until") or not lock_for_seconds:
        return 0.0
    return operation.locked_until.ToDatetime(UTC).timestamp() - (time.time() - time.monotonic())
