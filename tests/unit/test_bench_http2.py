"""What the load generator writes is HTTP/2, and it finds the statuses in what servers write."""

import hpack
import pytest

from benchmarks.http2 import UNKNOWN, header_block, status_of
from benchmarks.watchers import Messages


def test_a_header_block_says_what_a_grpc_call_needs() -> None:
    block = header_block("/package.Service/Method", "127.0.0.1:50051")
    assert dict(hpack.Decoder().decode(block, raw=True)) == {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": b"/package.Service/Method",
        b":authority": b"127.0.0.1:50051",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }


@pytest.mark.parametrize("huffman", [False, True])
@pytest.mark.parametrize("status", range(17))
def test_a_status_is_found_among_other_trailers(status: int, huffman: bool) -> None:
    name = hpack.Encoder().encode([("grpc-status", "0")], huffman=huffman)[2:-2]
    block = b"\x00\x01a\x01b" + name_literal(name, huffman=huffman) + b"%c%d" % (len(str(status)), status)
    assert status_of(b"before" + block + b"after", 6, 6 + len(block)) == status


def name_literal(name: bytes, *, huffman: bool) -> bytes:
    return bytes([0, len(name) | 0x80 * huffman]) + name


def test_no_status_is_unknown_and_not_good() -> None:
    assert status_of(b"\x00\x01a\x01b", 0, 5) == UNKNOWN


def test_a_status_in_another_frame_is_not_taken_for_this_ones() -> None:
    block = b"\x00\x0bgrpc-status\x010"
    assert status_of(b"....." + block, 0, 5) == UNKNOWN


def prefixed(message: bytes) -> bytes:
    return b"\x00" + len(message).to_bytes(4, "big") + message


@pytest.mark.parametrize("piece", [1, 2, 7, 100])
def test_messages_of_a_stream_are_put_together_from_pieces(piece: int) -> None:
    sent = [b"first", b"", b"x" * 50]
    data = b"".join(map(prefixed, sent))
    messages = Messages()
    received = [message for begin in range(0, len(data), piece) for message in messages.of(data[begin : begin + piece])]
    assert received == sent
