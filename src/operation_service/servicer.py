"""The nine RPCs: protobuf in, protobuf out. Checks the request, calls, renders; no rule lives here.

What is told of one operation is rendered as bytes, messages of many as messages.
"""

import contextlib
import functools
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import grpc
from msgspec.structs import replace

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from n0stack.protobuf.operation_pb2 import ProposeOperationRequest
from operation_service import render
from operation_service.access import Permit, Standing
from operation_service.clock import Deadline
from operation_service.delivery import Delivery, NotReadError
from operation_service.errors import CorruptRecordError, WatcherTooSlowError
from operation_service.listing import Listing
from operation_service.model import Append, Caller, Cancel, Command, Complete, Create, Propose, State, View
from operation_service.operations import Operations
from operation_service.scan import OperationsQuery
from operation_service.validation import FENCING_TOKEN_METADATA, Validator
from operation_service.watching import Watching, WatchQuery
from operation_service.workers import Workers

_log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

_DEFAULT_SECONDS = 10.0
"""For callers that set no deadline: no call may hang (CONTRACT section 5)."""
_MARGIN_SECONDS = 0.25
"""Kept of the caller's time, up to a fifth of it, so that an answer about etcd's silence still arrives."""

_PAGES_AT_ONCE = 8
"""A page may be 3 MiB, and takes several times that while it is read."""
_PATIENCE_SECONDS = 30.0
"""How long a watch waits for its caller to read: a caller that collects garbage, or is stopped by a debugger for a
moment, is waited for."""

_STATES: dict[int, State] = {number: state for state, number in render.STATES.items()}


class OperationServicer:
    """Serves n0stack.operation.v1alpha.OperationService: a method for each rpc, bound by its name (`wire.handlers`).

    Args:
        operations: Changes, and the read of one.
        listing: Reads of many.
        watching: Watches.
        delivery: Writes what watches tell.
        max_lock_seconds: The greatest lock_for_seconds.
        on_watch_begun: Is called by each watch that stands.
    """

    def __init__(
        self,
        operations: Operations,
        listing: Listing,
        watching: Watching,
        delivery: Delivery,
        max_lock_seconds: int,
        *,
        on_watch_begun: Callable[[], None] | None = None,
    ) -> None:
        self._on_watch_begun = on_watch_begun
        self._operations = operations
        self._listing = listing
        self._watching = watching
        self._delivery = delivery
        self._pages = Workers(_PAGES_AT_ONCE)
        self._max_lock_seconds = max_lock_seconds

    async def CreateOperation(self, request: pb.CreateOperationRequest, context: Context, permit: Permit) -> bytes:
        """Record a request, and take the lock if asked to."""
        check = Validator()
        resource = check.resource(request.project, request.name)
        caller = _caller(check, request.proposing_peer_token, context, permit)
        check.log_message(request.log_message)
        data, digest = check.operation_request(request.operation_request)
        if request.lock_for_seconds:
            check.lock_for_seconds(request.lock_for_seconds, self._max_lock_seconds)
        elif request.is_disabled_cancel:
            check.wrong("is_disabled_cancel", "needs a lock: set lock_for_seconds too")
        check.finish()
        create = Create(
            resource=resource,
            caller=caller,
            request=data,
            request_digest=digest,
            log_message=request.log_message,
            lock_for_seconds=request.lock_for_seconds,
            is_disabled_cancel=request.is_disabled_cancel,
        )
        return await self._change(create, context)

    async def ProposeOperation(self, request: ProposeOperationRequest, context: Context, permit: Permit) -> bytes:
        """Take the lock, or renew it."""
        check = Validator()
        resource = check.resource(request.project, request.name)
        caller = _caller(check, request.proposing_peer_token, context, permit)
        check.log_message(request.log_message)
        check.lock_for_seconds(request.lock_for_seconds, self._max_lock_seconds)
        check.finish()
        propose = Propose(
            resource=resource,
            caller=caller,
            lock_for_seconds=request.lock_for_seconds,
            log_message=request.log_message,
            is_disabled_cancel=request.is_disabled_cancel,
        )
        return await self._change(propose, context)

    async def AppendOperationLog(
        self, request: pb.AppendOperationLogRequest, context: Context, permit: Permit
    ) -> bytes:
        """Add a log."""
        check = Validator()
        resource = check.resource(request.project, request.name)
        caller = _caller(check, request.proposing_peer_token, context, permit)
        check.log_message(request.log_message, is_required=True)
        check.finish()
        return await self._change(Append(resource, caller, request.log_message), context)

    async def CompleteOperation(self, request: pb.CompleteOperationRequest, context: Context, permit: Permit) -> bytes:
        """End the operation, as succeeded or failed."""
        check = Validator()
        resource = check.resource(request.project, request.name)
        caller = _caller(check, request.proposing_peer_token, context, permit)
        check.log_message(request.log_message)
        failure = check.error(request.error) if request.HasField("error") else None
        check.finish()
        return await self._change(Complete(resource, caller, request.log_message, failure), context)

    async def CancelOperation(self, request: pb.CancelOperationRequest, context: Context, permit: Permit) -> bytes:
        """End the operation, as cancelled."""
        check = Validator()
        resource = check.resource(request.project, request.name)
        caller = _caller(check, request.proposing_peer_token, context, permit)
        check.log_message(request.log_message)
        check.finish()
        return await self._change(Cancel(resource, caller, request.log_message), context)

    async def GetOperation(self, request: pb.GetOperationRequest, context: Context, permit: Permit) -> bytes:
        """Read one."""
        check = Validator()
        resource = check.resource(request.project, request.name)
        check.finish()
        view = await self._operations.get(resource, _deadline(context))
        return render.written_operation_record(view, shows_token=permit.shows_tokens(resource.project))

    async def ListOperations(
        self, request: pb.ListOperationsRequest, context: Context, permit: Permit
    ) -> pb.ListOperationsResponse:
        """Read a page of many."""
        check = Validator()
        check.filter(request.project, request.name_prefix)
        states = check.states(request.states, _STATES)
        page_size = check.page_size(request.page_size)
        check.finish()
        projects = None if request.project else permit.readable()
        query = OperationsQuery(request.project, request.name_prefix, states, projects)
        deadline = _deadline(context)
        async with self._pages.one(deadline):
            views, token = await self._listing.operations(query, page_size, request.page_token, deadline)
            records = (record for view in views if (record := _readable(view, permit)) is not None)
            return pb.ListOperationsResponse(operations=records, next_page_token=token)

    async def ListOperationLogs(
        self, request: pb.ListOperationLogsRequest, context: Context, _permit: Permit
    ) -> pb.ListOperationLogsResponse:
        """Read a page of logs."""
        check = Validator()
        resource = check.resource(request.project, request.name)
        page_size = check.page_size(request.page_size)
        check.finish()
        deadline = _deadline(context)
        async with self._pages.one(deadline):
            logs, token = await self._listing.logs(resource, page_size, request.page_token, deadline)
        return pb.ListOperationLogsResponse(logs=map(render.log_line, logs), next_page_token=token)

    async def WatchOperations(self, request: pb.WatchOperationsRequest, context: Context, permit: Permit) -> None:
        """Tell of changes until the caller ends the call, or does not read any more.

        No generator, which could not give up on a caller that does not read.
        """
        check = Validator()
        check.filter(request.project, request.name_prefix)
        check.start_revision(request.start_revision)
        check.finish()
        with permit.standing(request.project) as standing:
            query = WatchQuery(request.project, request.name_prefix, request.start_revision, standing.projects)
            await self._watch(query, context, permit, standing)

    async def _watch(self, query: WatchQuery, context: Context, permit: Permit, standing: Standing) -> None:
        current = await self._watching.begin(query, _deadline(context))
        # Tells the caller that its watch stands, which may otherwise have nothing to say for long.
        await context.send_initial_metadata(())
        if self._on_watch_begun is not None:
            self._on_watch_begun()
        async with contextlib.aclosing(self._watching.watch(query, current)) as watch:
            async for told in watch:
                standing.check()
                if (operation := _readable(told.view, permit)) is not None:
                    response = pb.WatchOperationsResponse(
                        event=render.EVENTS[told.event], operation=operation, revision=told.revision
                    )
                    try:
                        await self._delivery.write(context, response, _PATIENCE_SECONDS)
                    except NotReadError as error:
                        _log.warning("a watch of %s is given up: it is not read", _network_address(context.peer()))
                        # Whoever reads this has read, before it, what was not read in time.
                        raise WatcherTooSlowError(told.revision + 1) from error

    async def _change(self, command: Command, context: Context) -> bytes:
        view = await self._operations.change(command, _deadline(context))
        context.set_trailing_metadata(((FENCING_TOKEN_METADATA, str(view.record.fencing_token or 0)),))
        try:
            return render.written_operation(view)
        except CorruptRecordError as error:
            # The change was made; what else was spoilt by hand is no reason to say that it failed.
            _log.error("told without its request: %s", error)
            return render.written_operation(replace(view, request=None))


def _readable(view: View, permit: Permit) -> pb.OperationRecord | None:
    """Render one of many. What was spoilt by hand must not hide the others, nor end a watch ever again at one place."""
    try:
        return render.operation_record(view, shows_token=permit.shows_tokens(view.resource.project))
    except CorruptRecordError as error:
        _log.error("left out: %s", error)
        return None


def _caller(check: Validator, token: str, context: Context, permit: Permit) -> Caller:
    check.token(token)
    sent = [value for key, value in context.invocation_metadata() or () if key == FENCING_TOKEN_METADATA]
    return Caller(token, permit.subject or _network_address(context.peer()), check.fencing_token(sent))


@functools.lru_cache(maxsize=1_024)
def _network_address(peer: str) -> str:
    """Return a gRPC peer ("ipv4:192.0.2.1:51234", "ipv6:%5B2001:db8::1%5D:51234", "unix:") as people write it."""
    scheme, _, address = peer.partition(":")
    return unquote(address) if scheme in {"ipv4", "ipv6"} else peer


def _deadline(context: Context) -> Deadline:
    seconds = context.time_remaining()
    if seconds is None:
        return Deadline(_DEFAULT_SECONDS)
    return Deadline(seconds - min(_MARGIN_SECONDS, seconds / 5))
