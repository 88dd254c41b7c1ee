"""Who the service is to etcd: a token for a user and a password, got when it is needed, and renewed.

etcd keeps tokens in memory and forgets them: after some minutes without use, with a restart, and whenever its users,
roles or `auth` change. A call with such a token was not carried out, so it is sent again with a new one. One token does
for all members: it is told to all of them before the answer, and a member that lags waits for it.

- If the answer to Authenticate never comes: it takes no longer than an attempt; the call fails as one that was not
  carried out, and goes to another member.
- If many calls find the token invalid at once: one asks for a new one, and all wait for that.
- If the password is wrong: it is not tried again before a pause, unless the file says something else by then.
- If the password's file does not answer: the password that was read before goes on.

The password and the token stand in no log and in no error.
"""

import asyncio
import logging
from collections.abc import Awaitable

from etcd3 import etcdrpc
from google.protobuf.message import Message
from grpc import StatusCode

from operation_service.etcd_reasons import NOT_ENABLED, WANT_A_USER, wants_a_token
from operation_service.grpc_calls import RpcError
from operation_service.grpc_client import Answer, Channel, HeaderedCall
from operation_service.kept_files import KeptFiles

_log = logging.getLogger(__name__)

_REFUSED = "authentication failed"
_SECONDS = 1.0
"""As long as an attempt: a member that is silent keeps those that go to another one no longer."""
_LOOK_SECONDS = 0.25
"""For a look at the password: a file that does not answer leaves the attempt time enough."""
_RENEWALS = 2
"""Within one call: what changes etcd's users may do so again."""
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 10.0
"""After a refusal. To look at a password takes etcd some 70 ms of a core, each time."""


class EtcdLogin:
    """The token of one user, for the channels to all members.

    Args:
        user: The user's name.
        password: The user's password, from a file that is looked at anew for each token.
    """

    def __init__(self, user: str, password: KeptFiles[str]) -> None:
        self._user = user
        self._password = password
        self._channels: list[Channel] = []
        self._tokens_got = 0
        self._renewing: asyncio.Task[RpcError | None] | None = None
        self._refused = ""
        self._refused_until = 0.0
        self._pause = _FIRST_PAUSE_SECONDS
        self._has_said_not_enabled = False

    def join(self, channel: Channel) -> None:
        """Let the calls of a channel carry the token."""
        self._channels.append(channel)

    def guarded(self, rpc: HeaderedCall[Answer], channel: Channel) -> HeaderedCall[Answer]:
        """Return a method of a channel that is called again, within its time, with a new token if need be."""

        async def call(request: Message, seconds: float, headers: bytes) -> Answer:
            loop = asyncio.get_running_loop()
            until = loop.time() + seconds
            if not self._tokens_got:
                await self._renew(0, channel, seconds)
            renewals = 0
            while True:
                tokens_got = self._tokens_got
                try:
                    return await rpc(request, timeout=max(0.0, until - loop.time()), headers=headers)
                except RpcError as error:
                    if not self._helps_against(error) or renewals == _RENEWALS:
                        raise
                renewals += 1
                await self._renew(tokens_got, channel, until - loop.time())

        def begun(request: Message, *, timeout: float, headers: bytes = b"") -> Awaitable[Answer]:
            return call(request, timeout, headers)

        return begun

    def _helps_against(self, error: RpcError) -> bool:
        """Whether a call was not carried out, and may be with another token."""
        # To etcd, whoever has a certificate and no token is the user of the certificate's name.
        is_nobody = self._has_said_not_enabled and any(text in error.details for text in WANT_A_USER)
        return wants_a_token(error.details) or is_nobody

    async def close(self) -> None:
        """End what is under way."""
        if self._renewing is not None:
            self._renewing.cancel()

    async def _renew(self, tokens_got: int, channel: Channel, seconds: float) -> None:
        """Wait for another token than the one that a call was made with.

        Raises:
            RpcError: There is none now; the call was not carried out.
        """
        if self._tokens_got != tokens_got:
            return
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._authenticate(channel))
            self._renewing.add_done_callback(self._has_renewed)
        done, _ = await asyncio.wait({self._renewing}, timeout=max(0.0, seconds))
        for renewing in done:
            error = None if renewing.cancelled() else renewing.result()
            if error is not None:
                # Each gets an error of its own: what raises one adds to its traceback.
                raise RpcError(error.code, error.details, is_untouched=True)
            return
        raise RpcError(StatusCode.DEADLINE_EXCEEDED, "no token in time", is_untouched=True)

    def _has_renewed(self, _done: "asyncio.Task[RpcError | None]") -> None:
        self._renewing = None

    async def _authenticate(self, channel: Channel) -> RpcError | None:
        """Get a token, and give it to all channels. Returns why there is none."""
        now = asyncio.get_running_loop().time()
        if self._password.meaning == self._refused and now < self._refused_until:
            return RpcError(StatusCode.UNAUTHENTICATED, _REFUSED)
        await self._password.look(_LOOK_SECONDS)
        password = self._password.meaning
        # With a token that is not valid etcd refuses even this.
        authenticate = channel.unary_that_carries_nothing(
            "/etcdserverpb.Auth/Authenticate", etcdrpc.AuthenticateResponse
        )
        request = etcdrpc.AuthenticateRequest(name=self._user, password=password)
        try:
            answer = await authenticate(request, timeout=_SECONDS)
        except RpcError as error:
            if NOT_ENABLED in error.details:
                self._go_without()
                return None
            if _REFUSED not in error.details:
                return RpcError(error.code, error.details)
            self._pause = (
                min(2 * self._pause, _LONGEST_PAUSE_SECONDS) if password == self._refused else _FIRST_PAUSE_SECONDS
            )
            self._refused, self._refused_until = password, now + self._pause
            return RpcError(StatusCode.UNAUTHENTICATED, error.details)
        self._refused = ""
        self._has_said_not_enabled = False
        self._take(answer.token)
        return None

    def _go_without(self) -> None:
        """Go on as nobody: so a user can be given to the service before etcd's `auth enable`, without an outage."""
        if not self._has_said_not_enabled:
            _log.warning(
                "etcd has no authentication enabled: --etcd-user is not used now, and whoever reaches etcd may do "
                "anything there; the service uses it once `etcdctl auth enable` was done"
            )
        self._has_said_not_enabled = True
        self._take("")

    def _take(self, token: str) -> None:
        self._tokens_got += 1
        for channel in self._channels:
            channel.carry((("token", token),) if token else ())
