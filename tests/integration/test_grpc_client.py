"""The calls to etcd: what comes back, and what is known of a call that failed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from etcd3 import etcdrpc
from google.protobuf.wrappers_pb2 import BytesValue
from grpc import StatusCode
from links import Link, Mode, linked
from waiting import soon

from operation_service.grpc_calls import RpcError
from operation_service.grpc_client import Channel, UnaryCall
from operation_service.http2 import LONGEST_UNREAD, frame

_SETTINGS, _GO_AWAY = 4, 7

ECHO, HANG, REFUSE, COUNT = "/test.Echo/Echo", "/test.Echo/Hang", "/test.Echo/Refuse", "/test.Echo/Count"


class Server:
    """A gRPC server with gRPC's own code."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.server = grpc.aio.server(options=(("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)))
        self.metadata: dict[str, Any] = {}
        self.seconds = 0.0
        self.has_begun = asyncio.Event()
        self.was_cancelled = asyncio.Event()
        handlers: dict[str, Any] = {
            "Echo": grpc.unary_unary_rpc_method_handler(cast("Any", self.echo)),
            "Hang": grpc.unary_unary_rpc_method_handler(cast("Any", self.hang)),
            "Refuse": grpc.unary_unary_rpc_method_handler(cast("Any", self.refuse)),
            "Count": grpc.stream_stream_rpc_method_handler(cast("Any", self.count)),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
        self.port = (
            self.server.add_secure_port("127.0.0.1:0", credentials)
            if credentials
            else self.server.add_insecure_port("127.0.0.1:0")
        )

    async def echo(self, request: bytes, context: Any) -> bytes:
        self.metadata = dict(context.invocation_metadata())
        self.seconds = context.time_remaining()
        return request

    async def hang(self, _request: bytes, _context: Any) -> bytes:
        self.has_begun.set()
        try:
            return await asyncio.Event().wait() and b""
        except asyncio.CancelledError:
            self.was_cancelled.set()
            raise

    async def refuse(self, _request: bytes, context: Any) -> bytes:
        await context.abort(StatusCode.FAILED_PRECONDITION, "100 % nö")
        return b""

    async def count(self, requests: Any, context: Any) -> None:
        async for request in requests:
            size = int(BytesValue.FromString(request).value)
            for _ in range(3):
                await context.write(BytesValue(value=bytes(size)).SerializeToString())
            if not size:
                return


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.server.start()
    yield server
    await server.server.stop(None)


@pytest.fixture
async def link(server: Server) -> AsyncIterator[Link]:
    async with linked(f"http://127.0.0.1:{server.port}") as link:
        yield link


@pytest.fixture
async def channel(link: Link) -> AsyncIterator[Channel]:
    channel = Channel(link.url, (("hasleader", "true"),))
    yield channel
    await channel.close()


@pytest.fixture
def echo(channel: Channel) -> UnaryCall[BytesValue]:
    return channel.unary(ECHO, BytesValue)


async def failure(call: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await call
    return caught.value


class TestACall:
    @pytest.mark.parametrize("size", [0, 1, 16_384, 65_535, 3_000_000])
    async def test_is_answered_whatever_its_size(self, echo: UnaryCall[BytesValue], size: int) -> None:
        asked = BytesValue(value=bytes(range(256)) * (size // 256) + bytes(size % 256))
        assert await asyncio.gather(*(echo(asked, timeout=20) for _ in range(3))) == [asked] * 3

    async def test_carries_its_metadata_and_its_deadline(self, echo: UnaryCall[BytesValue], server: Server) -> None:
        await echo(BytesValue(), timeout=20)
        assert server.metadata["hasleader"] == "true"
        assert 10 < server.seconds <= 20.1

    async def test_fails_as_the_server_says(self, channel: Channel) -> None:
        error = await failure(channel.unary(REFUSE, BytesValue)(BytesValue(), timeout=20))
        assert (error.code, error.details, error.is_untouched) == (StatusCode.FAILED_PRECONDITION, "100 % nö", False)

    async def test_of_a_method_that_is_not_there(self, channel: Channel) -> None:
        error = await failure(channel.unary("/test.Echo/None", BytesValue)(BytesValue(), timeout=20))
        assert error.code is StatusCode.UNIMPLEMENTED

    async def test_whose_time_is_over_ends_on_both_sides(self, channel: Channel, server: Server) -> None:
        error = await failure(channel.unary(HANG, BytesValue)(BytesValue(), timeout=0.5))
        assert (error.code, error.is_untouched) == (StatusCode.DEADLINE_EXCEEDED, False)
        async with asyncio.timeout(10):
            await server.was_cancelled.wait()

    async def test_that_nobody_waits_for_any_more_ends_at_the_server(self, channel: Channel, server: Server) -> None:
        calling = asyncio.ensure_future(channel.unary(HANG, BytesValue)(BytesValue(), timeout=60))
        await server.has_begun.wait()
        calling.cancel()
        async with asyncio.timeout(10):
            await server.was_cancelled.wait()

    async def test_whose_answer_is_none_of_its_type_fails(self, channel: Channel) -> None:
        call = channel.unary(ECHO, etcdrpc.RangeResponse)
        error = await failure(call(BytesValue(value=b"\xff\xff"), timeout=20))
        assert error.code is StatusCode.INTERNAL
        assert not error.is_untouched


class TestTheConnection:
    async def test_that_cannot_be_made_leaves_the_server_untouched(self) -> None:
        channel = Channel("http://127.0.0.1:1")
        error = await failure(channel.unary(ECHO, BytesValue)(BytesValue(), timeout=20))
        assert (error.code, error.is_untouched) == (StatusCode.UNAVAILABLE, True)
        assert "failed to connect to 127.0.0.1:1" in error.details
        await channel.close()

    @pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
    async def test_nor_does_one_to_somebody_who_does_not_speak_http2(self, greeting: bytes) -> None:
        async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(greeting)
            await is_over.wait()
            writer.close()

        is_over = asyncio.Event()
        stranger = await asyncio.start_server(greet, "127.0.0.1", 0)
        channel = Channel(f"http://127.0.0.1:{stranger.sockets[0].getsockname()[1]}")
        errors = await asyncio.gather(
            *(failure(channel.unary(ECHO, BytesValue)(BytesValue(), timeout=20)) for _ in range(3))
        )
        assert {(error.code, error.is_untouched) for error in errors} == {(StatusCode.UNAVAILABLE, True)}
        await channel.close()
        is_over.set()
        stranger.close()

    @pytest.mark.parametrize("farewell", [frame(_GO_AWAY, 0, 0, bytes(8)), b""], ids=["goes away", "closes"])
    async def test_nor_does_one_to_a_server_that_leaves_as_soon_as_it_has_greeted(self, farewell: bytes) -> None:
        """Between the greeting and the first call the event loop turns: what it brings must not be missed."""

        async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(_SETTINGS, 0, 0, b"") + farewell)
            writer.close()

        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        channel = Channel(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        error = await failure(channel.unary(ECHO, BytesValue)(BytesValue(), timeout=20))
        assert (error.code, error.is_untouched) == (StatusCode.UNAVAILABLE, True)
        with pytest.raises(RpcError) as caught:
            async with asyncio.timeout(20):
                await (await channel.stream(ECHO, BytesValue())).read()
        assert caught.value.code is StatusCode.UNAVAILABLE
        await channel.close()
        server.close()

    async def test_that_breaks_tells_that_the_call_may_have_been_carried_out_and_is_made_anew(
        self, channel: Channel, server: Server, link: Link, echo: UnaryCall[BytesValue]
    ) -> None:
        calling = asyncio.ensure_future(channel.unary(HANG, BytesValue)(BytesValue(), timeout=60))
        await server.has_begun.wait()
        link.cut()
        error = await failure(calling)
        assert (error.code, error.is_untouched) == (StatusCode.UNAVAILABLE, False)
        assert await echo(BytesValue(value=b"x"), timeout=20) == BytesValue(value=b"x")

    async def test_of_a_server_that_goes_away_is_not_used_any_more(
        self, channel: Channel, server: Server, echo: UnaryCall[BytesValue]
    ) -> None:
        await echo(BytesValue(), timeout=20)
        stopping = asyncio.ensure_future(server.server.stop(10))

        async def has_gone() -> bool:
            return channel._connection is None or not channel._connection.http2.takes_streams  # noqa: SLF001

        assert await soon(has_gone)
        error = await failure(echo(BytesValue(), timeout=20))
        assert (error.code, error.is_untouched) == (StatusCode.UNAVAILABLE, True)
        await stopping

    async def test_on_which_nothing_comes_is_ended_when_asked_for(
        self, channel: Channel, link: Link, echo: UnaryCall[BytesValue]
    ) -> None:
        await echo(BytesValue(), timeout=20)
        loop = asyncio.get_running_loop()
        link.become(Mode.HOLD_ANSWERS)
        since = loop.time()
        calling = asyncio.ensure_future(echo(BytesValue(), timeout=60))
        await asyncio.sleep(0.05)
        channel.end_if_silent(since - 60)
        assert not calling.done()
        channel.end_if_silent(since)
        assert (await failure(calling)).details == "the server is silent"

    async def test_is_made_once_for_all_who_wait_and_by_nobody_after_the_end(self, channel: Channel) -> None:
        call = channel.unary(ECHO, BytesValue)
        await asyncio.gather(*(call(BytesValue(), timeout=20) for _ in range(20)))
        assert len(channel._connections) == 1  # noqa: SLF001
        calling = [asyncio.ensure_future(channel.unary(HANG, BytesValue)(BytesValue(), timeout=60)) for _ in range(2)]
        await asyncio.sleep(0)
        await channel.close()
        errors = [await failure(each) for each in [*calling, call(BytesValue(), timeout=20)]]
        assert [error.code for error in errors] == [StatusCode.UNAVAILABLE] * 3
        assert errors[-1].is_untouched
        assert not channel._connections  # noqa: SLF001

    async def test_that_is_being_made_at_the_end_leaves_nobody_waiting(self, link: Link) -> None:
        link.become(Mode.HOLD)
        channel = Channel(link.url)
        calling = asyncio.ensure_future(channel.unary(ECHO, BytesValue)(BytesValue(), timeout=60))
        await asyncio.sleep(0.05)
        await channel.close()
        assert (await failure(calling)).is_untouched


TLS = Path(__file__).parent / "tls"
"""For loopback, a certificate that is its own authority, good until 2126, and its key."""


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_server_with_tls_is_believed_if_the_system_knows_its_authority(
    monkeypatch: pytest.MonkeyPatch, *, is_known: bool
) -> None:
    keys = [((TLS / "key.pem").read_bytes(), (TLS / "certificate.pem").read_bytes())]
    server = Server(grpc.ssl_server_credentials(keys))
    await server.server.start()
    if is_known:
        monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "certificate.pem"))
    channel = Channel(f"https://127.0.0.1:{server.port}")
    calling = channel.unary(ECHO, BytesValue)(BytesValue(value=b"x" * 100_000), timeout=20)
    if is_known:
        assert len((await calling).value) == 100_000
    else:
        error = await failure(calling)
        assert error.is_untouched
        assert "certificate" in error.details
    await channel.close()
    await server.server.stop(None)


class TestAStream:
    async def test_is_read_message_by_message_to_its_end(self, channel: Channel) -> None:
        call = await channel.stream(COUNT, BytesValue(value=b"0"))
        assert [await call.read() for _ in range(5)] == [b"", b"", b"", None, None]

    @pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
    async def test_of_messages_of_any_size(self, channel: Channel, size: int) -> None:
        call = await channel.stream(COUNT, BytesValue(value=b"%d" % size))
        for _ in range(3):
            assert BytesValue.FromString(await call.read() or b"").value == bytes(size)
        call.cancel()
        assert (await failure(call.read())).code is StatusCode.CANCELLED

    async def test_of_a_message_that_is_longer_than_what_may_be_unread(self, channel: Channel) -> None:
        """etcd tells of a thousand revisions in one message, and each may have a hundred changes."""
        size = LONGEST_UNREAD + 20_000_000
        call = await channel.stream(COUNT, BytesValue(value=b"%d" % size))
        async with asyncio.timeout(50):
            assert len(await call.read() or b"") > size
        call.cancel()

    async def test_that_is_not_read_is_sent_no_more_than_may_be_unread(self, channel: Channel) -> None:
        call = await channel.stream(COUNT, BytesValue(value=b"%d" % (LONGEST_UNREAD // 2)))
        for _ in range(3):
            async with asyncio.timeout(50):
                assert len(await call.read() or b"") > LONGEST_UNREAD // 2
            assert call._unread <= LONGEST_UNREAD  # noqa: SLF001
        call.cancel()

    async def test_whose_connection_breaks_tells_who_reads(self, channel: Channel, link: Link) -> None:
        call = await channel.stream(COUNT, BytesValue(value=b"1"))
        for _ in range(3):
            await call.read()
        reading = asyncio.ensure_future(call.read())
        await asyncio.sleep(0)
        link.cut()
        assert (await failure(reading)).code is StatusCode.UNAVAILABLE

    async def test_of_a_method_that_is_not_there(self, channel: Channel) -> None:
        call = await channel.stream("/test.Echo/None", BytesValue())
        assert (await failure(call.read())).code is StatusCode.UNIMPLEMENTED
