"""What no gRPC library would send is refused like any other bad input, and ends nothing but its own call."""

import gc
import gzip
import logging
from collections.abc import AsyncIterator

import grpc
import pytest
from fuzz import frames
from fuzz.lane import Lane
from fuzz.targets import METHODS
from support import NAME, PROJECT, Peer, refused

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.errors import OperationError

GET = b"/n0stack.operation.v1alpha.OperationService/GetOperation"


@pytest.fixture
async def lane(address: str) -> AsyncIterator[Lane]:
    """A client that sends whatever it is told to."""
    lane = Lane(address)
    yield lane
    await lane.close()


async def test_a_path_that_is_not_utf_8_is_an_unknown_method_and_does_not_end_the_service(
    lane: Lane, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    await peer.propose()
    for path in (b"/\xff\xfe/\xc3\x28", b"\xff", GET + b"\x80", "/ä/ö".encode(), b"/", b""):
        assert await lane.request(frames.request_headers(path), frames.message(b"")) == "UNIMPLEMENTED"
    assert await peer.state() == "LOCKED"
    assert caplog.records == []


async def test_a_header_that_is_not_utf_8_is_no_traceback(lane: Lane, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for name, value in ((b"x-odd", b"\xff\xfe"), (b"n0stack-fencing-token", b"\xff")):
        headers = [*frames.request_headers(METHODS[1].path), (name, value)]
        told = await lane.request(headers, frames.message(b""))
        assert told == "INVALID_ARGUMENT"
    assert caplog.records == []


async def test_a_call_without_a_whole_request_is_answered(lane: Lane) -> None:
    for method in METHODS:
        right = frames.message(b"\x0a\x01a")
        for data in (None, b"", right[:3], right[:-1], frames.message(b"", length=7)):
            told = await lane.request(frames.request_headers(method.path), data)
            # A conversation without a question is one, too.
            assert told == ("OK" if "Reflection" in method.rpc else "INVALID_ARGUMENT"), (method.path, data)


async def test_what_cannot_be_decompressed_is_refused(lane: Lane) -> None:
    bomb = gzip.compress(bytes(50 * 2**20), compresslevel=1)
    for method in METHODS:
        for data in (
            b"\x1f\x8b",
            gzip.compress(b"x" * 100)[:-4],
            gzip.compress(b"") + b"x",
            b"\x1f\x8b\x08nonsense",
            bomb,
        ):
            headers = [*frames.request_headers(method.path), (b"grpc-encoding", b"gzip")]
            assert await lane.request(headers, frames.message(data, flag=1)) == "INVALID_ARGUMENT", method.path


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_requests_are_understood(address: str, compression: grpc.Compression) -> None:
    async with grpc.aio.insecure_channel(address, compression=compression) as channel:
        peer = Peer(channel)
        answer = await peer.propose(log_message="x" * 2000)
        assert answer.logs[0].message == "x" * 2000
        assert (await refused(peer.propose(project="", log_message="x" * 2000))).violations.keys() == {"project"}


async def test_a_caller_that_goes_away_in_the_middle_is_no_traceback(
    address: str, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(200):
        lane = Lane(address)
        connection = await lane.shared()
        for method in METHODS:
            stream = connection.new_stream()
            await connection.send(frames.header_frames(stream, frames.block(frames.request_headers(method.path))))
            await connection.send(frames.frame(0, frames.END_STREAM, stream, frames.message(b"\xff" * (number % 3))))
            if number % 2:
                await connection.send(frames.rst_stream(stream))
        await lane.close()
    await peer.propose()
    assert caplog.records == []


async def test_refused_calls_leave_nothing_for_the_garbage_collector(lane: Lane, peer: Peer) -> None:
    def left() -> int:
        return sum(isinstance(each, (grpc.aio.AbortError, OperationError)) for each in gc.get_objects())

    await peer.propose()
    refused_later = pb.AppendOperationLogRequest(
        project=PROJECT, name=NAME, log_message="x", proposing_peer_token="other"
    ).SerializeToString()
    gc.collect()
    before = left()
    gc.disable()
    try:
        for method in METHODS[:9]:
            for data in (b"\xff", b"", refused_later):
                await lane.request(frames.request_headers(method.path), frames.message(data))
            await lane.request(frames.request_headers(method.path), None)
        assert left() - before < 5
    finally:
        gc.enable()
