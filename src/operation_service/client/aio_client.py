"""The client for asyncio."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import Operation
from operation_service.client import requests, rpcs
from operation_service.client.acquiring import Wanted
from operation_service.client.aio import AsyncChannel, AsyncSteps, AsyncStream
from operation_service.client.aio_hold import AsyncEntry, AsyncHold
from operation_service.client.bearer import Token
from operation_service.client.changed import Changed
from operation_service.client.claims import Claim
from operation_service.client.clock import Clock, boottime
from operation_service.client.connection import Target
from operation_service.client.cursor import Cursor
from operation_service.client.errors import OperationServiceError
from operation_service.client.flows import Open, exchange
from operation_service.client.session import Session
from operation_service.client.tenure import LostCallback
from operation_service.client.terms import Terms
from operation_service.client.tls import Tls


class AsyncClient:
    """Calls the operation service from one event loop.

    Every method raises an OperationServiceError of the kind that says what went wrong; a ValueError or TypeError for
    arguments that no message can carry. Calls are repeated, for as long
    as `timeout` allows, when the service or its etcd cannot be reached, is overloaded, or others came first: reads,
    create, propose and complete always, as doing them twice is as doing them once; append and cancel only when the
    error says that nothing was changed.

    Args:
        target: Where the service is, as gRPC takes it: "HOST:PORT", "dns:///NAME:PORT", or "ipv4:A:PORT,B:PORT" for
            several replicas.
        tls: How this client and the service know each other. Files that are replaced are read again, for new
            connections. None: without TLS.
        bearer_token: The token by which the service knows who calls, or a function that returns it, such as a
            `TokenFile`. It is asked for each attempt at a call, and must not take long. None: none.
        allow_plaintext_token: Whether the token may be sent without TLS to other machines.
        credentials: gRPC's channel credentials, in place of `tls`.
        options: gRPC's channel options, besides those that this client sets, and over them.
        peer_token: What identifies this peer to the service. None: a token that is made once for the process. Whoever
            gives one has to see to it that no other process has the same: two peers with one token share each lock.
        timeout: How long a call may take in all, in seconds, repeats included.
        clock: Returns seconds; by it locks are measured.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        tls: Tls | None = None,
        bearer_token: Token | None = None,
        allow_plaintext_token: bool = False,
        credentials: grpc.ChannelCredentials | None = None,
        options: Sequence[tuple[str, Any]] = (),
        peer_token: str | None = None,
        timeout: float = 10.0,
        clock: Clock = boottime,
    ) -> None:
        self._session = Session(peer_token, timeout, clock)
        self._channel = AsyncChannel(
            Target(
                target,
                credentials,
                options,
                tls=tls,
                bearer_token=bearer_token,
                allow_plaintext_token=allow_plaintext_token,
            )
        )
        self._entries: set[AsyncEntry] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. Operations that are held yet are completed as failed: nobody would renew them."""
        self._session.is_closing = True
        for entry in list(self._entries):
            await entry.give_up()
        await self._channel.close()

    @property
    def peer_token(self) -> str:
        """What identifies this peer to the service."""
        return self._session.token

    def hold(
        self,
        project: str,
        name: str,
        *,
        lock_for: int = 30,
        disable_cancel: bool = False,
        wait: float | None = 0.0,
        log_message: str = "",
        on_lost: LostCallback | None = None,
    ) -> AsyncHold:
        """Hold a resource for as long as an `async with` block lasts.

        The lock is taken when the block begins, renewed in the background at each third of its time, and given back
        when the block ends: the operation succeeded; or it failed, with the text of the exception that ended it.

        Args:
            project: The project of the resource.
            name: The name of the resource within its project.
            lock_for: For how many seconds to lock the resource, from each renewal on: as long as others have to wait
                should this process die.
            disable_cancel: Whether nobody may cancel the operation.
            wait: For how many seconds to wait for a resource that is locked, or for a service that is not there. None:
                for ever.
            log_message: The first line of the log.
            on_lost: Called once with the LockLostError when the lock is lost; a function, not a coroutine function.

        Returns:
            What `async with` takes; it gives an AsyncHeldOperation. Entering it raises LockedError if the resource did
            not become free in time; leaving it raises LockLostError if the lock was lost.
        """
        if inspect.iscoroutinefunction(on_lost):
            raise TypeError("on_lost must be a plain function: nobody awaits it")
        if on_lost is not None and not callable(on_lost):
            raise TypeError(f"on_lost must be a function, not {on_lost!r}")
        terms = Terms(project, name, lock_for, disable_cancel)
        wanted = Wanted(terms, wait, log_message)
        return AsyncHold(lambda: AsyncEntry(wanted, self._session, self._channel, on_lost, self._entries))

    async def create(
        self,
        project: str,
        name: str,
        *,
        operation_request: Message | None = None,
        log_message: str = "",
        lock_for: int = 0,
        disable_cancel: bool = False,
    ) -> Changed:
        """Record a request to operate.

        Args:
            project: The project of the resource.
            name: The name of the resource within its project.
            operation_request: What is to be carried out; a message of any type, an Any as it is.
            log_message: A line to add to the log.
            lock_for: For how many seconds to lock the resource too. 0: do not lock it.
            disable_cancel: Whether nobody may cancel the operation while it is locked.
        """
        terms = Terms(project, name, lock_for, disable_cancel)
        request = requests.create(self.peer_token, terms, operation_request, log_message)
        return await AsyncSteps(self._channel).run(requests.change(self._session, rpcs.CREATE, request, None))

    async def propose(
        self,
        project: str,
        name: str,
        *,
        lock_for: int,
        disable_cancel: bool = False,
        log_message: str = "",
        fencing_token: int | None = None,
    ) -> Changed:
        """Take the lock, or renew it; `hold` does both, and more.

        Args:
            project: The project of the resource.
            name: The name of the resource within its project.
            lock_for: For how many seconds, from now on.
            disable_cancel: Whether nobody may cancel the operation while it is locked.
            log_message: A line to add to the log.
            fencing_token: The lock that is to be renewed, so that this never takes a new one. None: whichever.

        Raises:
            HeldHereError: A hold of this process has the resource, and no fencing token is given: this would change
                the hold's lock, and it would not know.
        """
        terms = Terms(project, name, lock_for, disable_cancel)
        if fencing_token is None:
            Claim(terms.resource, self._session).check_free()
        request = requests.propose(self.peer_token, terms, log_message)
        return await AsyncSteps(self._channel).run(requests.change(self._session, rpcs.PROPOSE, request, fencing_token))

    async def append(self, project: str, name: str, log_message: str, *, fencing_token: int | None = None) -> Changed:
        """Add a line to the log of the operation that this peer holds."""
        request = requests.append(self.peer_token, project, name, log_message)
        return await AsyncSteps(self._channel).run(requests.change(self._session, rpcs.APPEND, request, fencing_token))

    async def complete(
        self,
        project: str,
        name: str,
        *,
        error: Status | None = None,
        log_message: str = "",
        fencing_token: int | None = None,
    ) -> Changed:
        """End the operation that this peer holds; an error says how it failed."""
        request = requests.complete(self.peer_token, project, name, error=error, log_message=log_message)
        return await AsyncSteps(self._channel).run(
            requests.change(self._session, rpcs.COMPLETE, request, fencing_token)
        )

    async def cancel(
        self, project: str, name: str, *, log_message: str = "", fencing_token: int | None = None
    ) -> Changed:
        """Cancel an operation that nobody holds, or that this peer holds."""
        request = requests.cancel(self.peer_token, project, name, log_message)
        return await AsyncSteps(self._channel).run(requests.change(self._session, rpcs.CANCEL, request, fencing_token))

    async def get(self, project: str, name: str) -> pb.OperationRecord:
        """Return the current operation of a resource."""
        request = pb.GetOperationRequest(project=project, name=name)
        return (await AsyncSteps(self._channel).run(exchange(rpcs.GET, request, self._session.patience()))).message

    async def list(
        self,
        project: str = "",
        name_prefix: str = "",
        states: Sequence[pb.OperationState.ValueType] = (),
        page_size: int = 0,
    ) -> AsyncIterator[pb.OperationRecord]:
        """Yield the current operations, as of one moment, in the order of the bytes of "project/name".

        Args:
            project: Only of this project. Empty: of all.
            name_prefix: Only of resources whose names begin like this.
            states: Only those in one of these states. Empty: all.
            page_size: How many to ask for at once. 0: as many as the service finds good.
        """
        request = pb.ListOperationsRequest(project=project, name_prefix=name_prefix, states=states, page_size=page_size)
        while True:
            page = (await AsyncSteps(self._channel).run(exchange(rpcs.LIST, request, self._session.patience()))).message
            for each in page.operations:
                yield each
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def logs(self, project: str, name: str, page_size: int = 0) -> AsyncIterator[Operation.Log]:
        """Yield all the logs of a resource's current operation, as of one moment, oldest first."""
        request = pb.ListOperationLogsRequest(project=project, name=name, page_size=page_size)
        while True:
            page = (await AsyncSteps(self._channel).run(exchange(rpcs.LOGS, request, self._session.patience()))).message
            for each in page.logs:
                yield each
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def watch(
        self, project: str = "", name_prefix: str = "", start_revision: int = 0
    ) -> AsyncIterator[pb.WatchOperationsResponse]:
        """Yield every change, expiries included, until the iterator is closed.

        It goes on by itself after an interruption, however long; what was committed together with the last change that
        it told may then be told again. One that had nothing to tell yet begins anew, with what is there by then. It
        ends with RevisionCompactedError if etcd has compacted away what it missed meanwhile.

        Args:
            project: Only of this project. Empty: of all.
            name_prefix: Only of resources whose names begin like this.
            start_revision: From which revision on. 0: first the current operations, one message each.
        """
        request = pb.WatchOperationsRequest(project=project, name_prefix=name_prefix, start_revision=start_revision)
        cursor, stream = Cursor(request, self._session), AsyncStream(self._channel)
        try:
            while True:
                try:
                    await stream.open(Open(rpcs.WATCH, cursor.request(), None))
                    if stream.is_standing():
                        cursor.stands()
                    while True:
                        told: pb.WatchOperationsResponse = await stream.read()
                        cursor.saw(told)
                        yield told
                except OperationServiceError as error:
                    await asyncio.sleep(cursor.pause_after(error))
        finally:
            stream.drop()
