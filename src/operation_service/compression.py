"""Takes compressed requests apart.

gRPC's core would do it, but answers what cannot be decompressed with INTERNAL, which no caller may cause (CONTRACT
section 5), and hands on neither the flag nor the encoding when it is told to leave it. They show in the bytes: those of
gzip begin with a field that no protobuf has, those of zlib (HTTP's "deflate") end in a checksum.
"""

import zlib

MAX_BYTES = 1024 * 1024
"""Of a request when it is out: thrice the largest that can be valid."""

_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_ZLIB_METHOD = 8


class DecompressionError(Exception):
    """A request is compressed, and cannot be decompressed; says why."""


def decompressed(data: bytes) -> bytes:
    """Return the bytes of a request as they were before the caller compressed them, if it did.

    Raises:
        DecompressionError: They are not what they seem, or become too many.
    """
    if data.startswith(_GZIP):
        return _inflated(data, _GZIP_WINDOW)
    if _may_be_zlib(data):
        try:
            return _inflated(data, zlib.MAX_WBITS)
        except _NotCompressedError:
            # A message whose first field looks like that, as a WatchOperationsRequest with start_revision 25 does.
            return data
    return data


class _NotCompressedError(DecompressionError):
    pass


def _may_be_zlib(data: bytes) -> bool:
    return len(data) > 1 and data[0] & 0x0F == _ZLIB_METHOD and int.from_bytes(data[:2], "big") % 31 == 0


def _inflated(data: bytes, window: int) -> bytes:
    stream = zlib.decompressobj(window)
    try:
        # One more than allowed tells a request of exactly that size from a larger one.
        out = stream.decompress(data, MAX_BYTES + 1)
    except zlib.error:
        raise _NotCompressedError("the request is no valid gzip") from None
    if len(out) > MAX_BYTES:
        raise DecompressionError(f"the request is larger than {MAX_BYTES} bytes when it is decompressed")
    if not stream.eof or stream.unused_data:
        raise _NotCompressedError("the request is no valid gzip: it ends too early, or goes on after its end")
    return out
