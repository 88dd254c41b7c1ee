"""Who calls, and what they may do: asked once for each call, in one place, and of watches for as long as they last.

Without a policy, token keys and a CA for callers everybody may do all, and nothing is asked.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import grpc

from operation_service.access_files import AccessFiles
from operation_service.background import Work
from operation_service.bounds import Bound, Bounds
from operation_service.denied import Denied
from operation_service.errors import (
    BearerTokenExpiredError,
    BearerTokenInvalidError,
    IdentityRequiredError,
    OperationError,
    RoleRequiredError,
    UnauthenticatedError,
)
from operation_service.grants import EVERYTHING, Grants, Projects
from operation_service.identities import NOBODY, BadNameError, Identity, certificate_subject
from operation_service.roles import NEEDED, OF_ALL_PROJECTS, Role
from operation_service.settings import Settings, is_loopback
from operation_service.validation import is_project

Context = grpc.aio.ServicerContext[Any, Any]

_log = logging.getLogger(__name__)

_EVERY_SECONDS = 1.0
_WATCHES_AT_ONCE = 100
"""A few microseconds each, while calls wait."""
_AUTHORIZATION = "authorization"
_SCHEME = "bearer "


class Access:
    """What is known of who may do what, always from the newest good files.

    Args:
        settings: The service's.

    Attributes:
        is_open: Whether everybody may do all.

    Raises:
        SettingsError: A file is not good.
    """

    def __init__(self, settings: Settings) -> None:
        self._has_certificates = settings.tls is not None and settings.tls.client_ca is not None
        files = AccessFiles(settings.access)
        if files.tokens is not None and settings.tls is None and not is_loopback(settings.listen):
            _log.warning(
                "the tokens of callers come to %s without TLS, and whoever reads one on its way can use it: "
                "give --tls-cert and --tls-key",
                settings.listen,
            )
        self._policy, self._tokens = files.policy, files.tokens
        self.is_open = self._policy is None and self._tokens is None and not self._has_certificates
        self.denied = Denied()
        self._standing: set[Standing] = set()
        self._lost: dict[tuple[Projects, Grants], str | None] = {}
        self._bounds = Bounds()

    @property
    def works(self) -> Sequence[Work]:
        """Background work: each file for itself, so that one that does not answer holds up nothing else."""
        if self.is_open:
            return ()
        return (
            self._end_watches,
            self.denied.run,
            *(file.run for file in (self._policy, self._tokens) if file is not None),
        )

    async def _end_watches(self) -> None:
        """End the watches that may not go on, until cancelled; a few at once, since calls wait meanwhile.

        What changes meanwhile is not missed: a watch that begins does so by the policy of that moment, and one that was
        looked at before yet another policy came is looked at again a second later. Until then none of them tells
        anything that it may not: each looks for itself before it tells something (`Standing.check`).
        """
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            # Those who compare anything from now on do so with the policy in force.
            self._lost.clear()
            for place, standing in enumerate(tuple(self._standing)):
                compared = len(self._lost)
                if standing in self._standing:
                    try:
                        standing.look()
                    except Exception:  # noqa: BLE001, those behind it have to be looked at, too
                        _log.exception("it could not be found out whether a watch may go on")
                if len(self._lost) > compared or place % _WATCHES_AT_ONCE == 0:
                    await asyncio.sleep(0)

    def lost(self, began: Projects, grants: Grants) -> str | None:
        """Return a project that somebody may not read any more; None: there is none.

        Up to a thousand with a thousand: compared once, however many watches have begun with the same.

        Args:
            began: What could be read.
            grants: What somebody may do now.
        """
        pair = began, grants
        if pair not in self._lost:
            readable = grants.readable
            self._lost[pair] = None if readable is None else began.first_beyond(readable)
        return self._lost[pair]

    def identity(self, context: Context) -> Identity:
        """Return who calls.

        A token that is shown counts more than the certificate of the connection, and one that is not good lets nobody
        in, however good the certificate is.

        Raises:
            UnauthenticatedError: Nobody knows.
        """
        if self._tokens is not None:
            shown = [value for key, value in context.invocation_metadata() or () if key == _AUTHORIZATION]
            if shown:
                return self._tokens.meaning.identity(_bearer(shown))
        if not self._has_certificates:
            raise IdentityRequiredError
        try:
            subject = certificate_subject(context.auth_context())
        except BadNameError as error:
            raise IdentityRequiredError(str(error)) from None
        if subject is None:
            raise IdentityRequiredError
        return Identity(subject)

    def grants(self, identity: Identity) -> Grants:
        """Return what somebody may do, by the policy of this moment."""
        return EVERYTHING if self._policy is None else self._policy.meaning.grants(identity.subject)

    def outdated(self, identity: Identity) -> UnauthenticatedError | None:
        """Return why nobody vouches for somebody any more. None: it still holds."""
        if identity.expires_at and self._tokens is not None:
            if identity.expires_at <= time.time():
                return BearerTokenExpiredError()
            if not self._tokens.meaning.vouch_for(identity):
                return BearerTokenInvalidError("its key is not trusted any more")
        return None

    @contextlib.contextmanager
    def standing(self, rpc: str, identity: Identity, project: str) -> "Iterator[Standing]":
        """Let a call last for as long as who calls may read what it was begun with. Raises why, once that is over."""
        standing = Standing(self, rpc, identity, project)
        try:
            with self._bounds.within(math.inf) as bound:
                standing.bound = bound
                self._standing.add(standing)
                yield standing
        except TimeoutError:
            if standing.refusal is None:
                raise
            raise standing.refusal from None
        finally:
            self._standing.discard(standing)


class Standing:
    """A watch, which has to end when its caller may not go on with it.

    Attributes:
        bound: What ends it.
        refusal: Why it has to end.
        projects: Of which projects it tells. None: of all, or the one that was asked for.
    """

    def __init__(self, access: Access, rpc: str, identity: Identity, project: str) -> None:
        self._access = access
        self._rpc = rpc
        self._identity = identity
        self._project = project
        self._grants = access.grants(identity)
        self.projects = None if project else self._grants.readable
        self.bound: Bound | None = None
        self.refusal: OperationError | None = None

    def look(self) -> None:
        """End it, if it has to end."""
        if self.refusal is None and self._is_refused() and self.bound is not None:
            self.bound.end()

    def check(self) -> None:
        """Check that it may tell something.

        Raises:
            UnauthenticatedError: Nobody vouches for the caller any more.
            RoleRequiredError: The caller may not read any more what the watch began with.
        """
        if self._is_refused() and self.refusal is not None:
            raise self.refusal

    def _is_refused(self) -> bool:
        if self.refusal is None:
            self.refusal = self._access.outdated(self._identity) or self._missing()
            if self.refusal is not None:
                self._access.denied.tell(self._rpc, self._identity.subject, self.refusal)
        return self.refusal is not None

    def _missing(self) -> RoleRequiredError | None:
        grants = self._access.grants(self._identity)
        if grants is self._grants:
            return None
        self._grants = grants
        lost: str | None = None
        if self._project:
            lost = None if Role.READ in grants.on(self._project) else self._project
        elif self.projects is not None:
            lost = self._access.lost(self.projects, grants)
        elif (readable := grants.readable) is not None:
            return RoleRequiredError(Role.READ, "", self._identity.subject, has_some_left=bool(readable))
        return None if lost is None else RoleRequiredError(Role.READ, lost, self._identity.subject)


class Permit:
    """That a call may be carried out, for whom, and what it may be told.

    Args:
        access: By which it was given.
        rpc: The call's name.
        identity: Who calls.
    """

    __slots__ = ("_access", "_identity", "_rpc")

    def __init__(self, access: Access, rpc: str, identity: Identity) -> None:
        self._access = access
        self._rpc = rpc
        self._identity = identity

    @property
    def subject(self) -> str:
        """Who calls. Empty: nobody asked."""
        return self._identity.subject

    def shows_tokens(self, project: str) -> bool:
        """Whether the caller may see the peer tokens of a project: whoever may only read could pose as the peer."""
        roles = self._access.grants(self._identity).on(project)
        return Role.OPERATE in roles or Role.WRITE in roles

    def readable(self) -> Collection[str] | None:
        """Return the projects that the caller may read, in the order of their keys. None: all."""
        return self._access.grants(self._identity).readable

    def standing(self, project: str) -> "contextlib.AbstractContextManager[Standing]":
        """Return a block in which a watch of a project (empty: of all) may go on; see `Access.standing`."""
        return self._access.standing(self._rpc, self._identity, project)


class Door:
    """Where the calls of one RPC come in.

    Args:
        access: What is known of who may do what.
        rpc: The RPC's name.
    """

    def __init__(self, access: Access, rpc: str) -> None:
        self._access = access
        self._rpc = rpc
        self._role = NEEDED[rpc]
        self._is_of_all = rpc in OF_ALL_PROJECTS
        self._open = Permit(access, rpc, NOBODY)

    def caller(self, context: Context) -> Identity | OperationError:
        """Return who calls, before the request is read; or why nobody knows, or that they may do nothing at all.

        Whoever may do nothing need not be waited for: to call and then send no request would keep a place.
        """
        if self._access.is_open:
            return NOBODY
        try:
            identity = self._access.identity(context)
        except UnauthenticatedError as error:
            # It would be held by the frames that its own traceback holds, and the call with them.
            error.__traceback__ = None
            self._access.denied.tell(self._rpc, context.peer(), error)
            return error
        if self._access.grants(identity).is_nothing:
            refusal = RoleRequiredError(self._role, "", identity.subject)
            self._access.denied.tell(self._rpc, identity.subject, refusal)
            return refusal
        return identity

    def permit(self, caller: Identity, request: Any) -> Permit:  # noqa: ANN401, each RPC has a type of its own
        """Return the permit of a call, before anything else of its request is looked at.

        What names no project is nobody's to refuse: the validation says what is wrong with it, and that is all.

        Args:
            caller: Who calls.
            request: What for.

        Raises:
            RoleRequiredError: The caller may not do this.
        """
        if self._access.is_open:
            return self._open
        grants, project = self._access.grants(caller), request.project
        is_refused = (
            self._role not in grants.on(project) and is_project(project)
            if project
            else self._is_of_all and grants.is_nothing
        )
        if is_refused:
            error = RoleRequiredError(self._role, project, caller.subject)
            self._access.denied.tell(self._rpc, caller.subject, error, request)
            raise error
        return Permit(self._access, self._rpc, caller)


def _bearer(shown: list[Any]) -> str:
    """Return the token of a call.

    Raises:
        BearerTokenInvalidError: There is none, or more than one: which of them would be meant?
    """
    if len(shown) > 1:
        raise BearerTokenInvalidError("there is more than one")
    text = shown[0]
    # What is not ASCII comes as bytes.
    if not isinstance(text, str) or text[: len(_SCHEME)].lower() != _SCHEME:
        raise BearerTokenInvalidError("it must be Bearer and a token")
    return text[len(_SCHEME) :].strip()
