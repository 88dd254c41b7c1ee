"""Compressed requests: understood, bounded, and never taken for what they are not."""

import gzip
import zlib

import pytest

from n0stack.operation.v1alpha import operation_service_pb2 as pb
from operation_service.compression import MAX_BYTES, DecompressionError, decompressed


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zlib.compress])
@pytest.mark.parametrize("data", [b"", b"x", b"\x0a\x01a", bytes(MAX_BYTES)], ids=len)
def test_what_was_compressed_comes_out_as_it_was(compress: "type[bytes]", data: bytes) -> None:
    assert decompressed(compress(data)) == data


@pytest.mark.parametrize("size", [MAX_BYTES + 1, 100 * MAX_BYTES])
@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_a_bomb_is_refused_before_it_is_out(compress: "type[bytes]", size: int) -> None:
    with pytest.raises(DecompressionError, match="larger than"):
        decompressed(compress(bytes(size)))


@pytest.mark.parametrize(
    "data", [b"\x1f\x8b", b"\x1f\x8bxxxx", gzip.compress(b"abc", mtime=0)[:-1], gzip.compress(b"abc", mtime=0) + b"x"]
)
def test_what_begins_like_gzip_and_is_not_is_refused(data: bytes) -> None:
    with pytest.raises(DecompressionError, match="no valid gzip"):
        decompressed(data)


@pytest.mark.parametrize("data", [b"\x78\x9c", b"\x78\x9cxxxx", zlib.compress(b"abc")[:-1], zlib.compress(b"a") + b"x"])
def test_what_begins_like_zlib_and_is_not_stays_as_it_is(data: bytes) -> None:
    assert decompressed(data) == data


def test_a_request_that_begins_like_zlib_stays_as_it_is() -> None:
    for revision in range(5_000):
        data = pb.WatchOperationsRequest(start_revision=revision).SerializeToString()
        assert decompressed(data) == data
