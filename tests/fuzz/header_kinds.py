"""Bad headers around right messages."""

from collections.abc import Callable
from random import Random

from fuzz import frames
from fuzz.frames import Header
from fuzz.lane import Kind, Lane
from fuzz.targets import METHODS, right_request

Headers = list[Header]


def _kind(name: str, spoil: Callable[[Headers, Random], Headers], weight: float = 1.5) -> Kind:
    async def send(lane: Lane, rng: Random) -> str:
        method = rng.choice(METHODS)
        headers = spoil(frames.request_headers(method.path), rng)
        return await lane.request(headers, frames.message(right_request(method, rng).SerializeToString()))

    return Kind(f"headers: {name}", send, weight)


def _replaced(headers: Headers, name: bytes, *values: bytes) -> Headers:
    """The headers with other values of one, in its place."""
    out: Headers = []
    for header in headers:
        out += [(name, value) for value in values] if header[0] == name else [header]
    return out


def _one_of(name: bytes, *values: bytes) -> Callable[[Headers, Random], Headers]:
    return lambda headers, rng: _replaced(headers, name, rng.choice(values))


def _added(name: bytes, *values: bytes) -> Callable[[Headers, Random], Headers]:
    def add(headers: Headers, rng: Random) -> Headers:
        return [*headers, *((name, rng.choice(values)) for _ in range(rng.choice([1, 1, 1, 2])))]

    return add


def _missing(headers: Headers, rng: Random) -> Headers:
    gone = {rng.choice(headers)[0] for _ in range(rng.choice([1, 1, 2]))}
    return [header for header in headers if header[0] not in gone]


def _twice(headers: Headers, rng: Random) -> Headers:
    again = rng.choice(headers)
    at = rng.randrange(len(headers) + 1)
    return [*headers[:at], (again[0], rng.choice([again[1], b"other", b""])), *headers[at:]]


def _shuffled(headers: Headers, rng: Random) -> Headers:
    return rng.sample(headers, len(headers))


def _names(headers: Headers, rng: Random) -> Headers:
    name = rng.choice(
        [b"X-Capital", b"", b"a b", b"a\nb", b"a\0b", b"\xff", "ä".encode(), b":unknown", b":", b"x" * 9000]
    )
    return [*headers, (name, b"value")]


def _values(headers: Headers, rng: Random) -> Headers:
    value = rng.choice(
        [b"\r\nx: y", b"\0", b"\xff\xfe", "ä".encode(), b"", b" ", b"\x7f", b"x" * 6000, rng.randbytes(40)]
    )
    return [*headers, (rng.choice([b"x-odd", b"user-agent", b"authorization", b"cookie", b"n0stack-odd"]), value)]


def _connection_specific(headers: Headers, rng: Random) -> Headers:
    odd = [(b"connection", b"close"), (b"upgrade", b"h2c"), (b"transfer-encoding", b"chunked"), (b"keep-alive", b"1")]
    odd += [(b"host", b"other"), (b"content-length", rng.choice([b"0", b"1", b"-1", b"x", b"99999999999999999999"]))]
    odd += [(b"grpc-status", b"13"), (b"grpc-message", b"%ff"), (b":status", b"200"), (b"grpc-retry-pushback-ms", b"x")]
    odd += [(b"grpc-previous-rpc-attempts", b"x"), (b"lb-token", b"\xff"), (b"grpc-accept-encoding", b"\xff,,,")]
    return [*headers, rng.choice(odd)]


def _large(headers: Headers, rng: Random) -> Headers:
    size = rng.choice([7_000, 9_000, 17_000, 70_000, 300_000, 1_500_000])
    return [*headers, (rng.choice([b"x-large", b"n0stack-fencing-token", b"x-large-bin"]), b"7" * size)]


def _many(headers: Headers, rng: Random) -> Headers:
    count = rng.choice([50, 1000, 5000, 20_000])
    return [*headers, *((b"x-%d" % (number if rng.random() < 0.9 else 0), b"1") for number in range(count))]


_TIMEOUTS = [b"", b"0S", b"1n", b"1u", b"-1S", b"x", b"1", b"S", b"1X", b"99999999H", b"999999999H", b"1.5S", b" 1S"]
_TIMEOUTS += [b"1S ", b"1s", b"\xff", b"9" * 5000 + b"S", b"00000001m"]
_FENCING = [b"", b"-1", b"0", b"18446744073709551615", b"18446744073709551616", b"1e3", b"0x10", b" 7", b"7 ", b"+7"]
_FENCING += ["\u0667".encode(), b"\xff", b"9" * 4000, b"7,7", b"nan", b"1_000", b"\xb2", "²".encode()]
_CONTENT_TYPES = [b"", b"text/html", b"application/json", b"application/grpcx", b"application/grpc+json"]
_CONTENT_TYPES += [b"application/grpc;x", b"APPLICATION/GRPC", b"application/grpc-web", b"\xff", b"x" * 5000]
_BINARY = [b"!!!", b"=", b"A", b"AAAA=A", b"\xff", b"%%%", b"AA A", b"A" * 4001, b",", b"AAAA,!!!", b"\0", b"AAAA===="]
_METHODS = [b"GET", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS", b"PRI", b"post", b"", b"\xff", b"POST ", b"X" * 3000]

KINDS = [
    _kind("method", _one_of(b":method", *_METHODS)),
    _kind("content-type", _one_of(b"content-type", *_CONTENT_TYPES)),
    _kind("te", _one_of(b"te", b"", b"gzip", b"trailers, deflate", b"\xff")),
    _kind("scheme", _one_of(b":scheme", b"", b"https", b"ftp", b"\xff", b"x" * 500)),
    _kind("authority", _one_of(b":authority", b"", b"\xff", b"a b", b"@", b"x" * 3000, b"[::1", b"a:99999999")),
    _kind("grpc-timeout", _one_of(b"grpc-timeout", *_TIMEOUTS), 3),
    _kind("grpc-encoding", _added(b"grpc-encoding", b"x", b"", b"gzip", b"identity", b"\xff", b"gzip, x")),
    _kind("grpc-tags-bin", _added(b"grpc-tags-bin", *_BINARY)),
    _kind("binary metadata", _added(b"x-odd-bin", *_BINARY)),
    _kind("grpc-trace-bin", _added(b"grpc-trace-bin", *_BINARY)),
    _kind("fencing token", _added(b"n0stack-fencing-token", *_FENCING), 6),
    _kind("fencing token, binary", _added(b"n0stack-fencing-token-bin", *_BINARY, b"Nw")),
    _kind("missing", _missing, 2),
    _kind("twice", _twice, 2),
    _kind("any order", _shuffled),
    _kind("odd names", _names, 2),
    _kind("odd values", _values, 3),
    _kind("of HTTP/1.1, or of answers", _connection_specific, 2),
    _kind("large", _large, 0.7),
    _kind("many", _many, 0.2),
]
