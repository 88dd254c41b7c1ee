"""A client's side of HTTP/2: what it sends, what it makes of what it is sent, and what it does not put up with."""

import struct
from dataclasses import dataclass, field
from typing import Any

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from operation_service import http2
from operation_service.http2 import Http2, ProtocolError, literal

DATA, HEADERS, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY, ACK = 0x1, 0x4, 0x8, 0x20, 0x1
BLOCK = literal(b"x", b"y")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 3], "big")
        stream = int.from_bytes(data[at + 5 : at + 9], "big")
        found.append((data[at + 3], data[at + 4], stream, data[at + 9 : at + 9 + size]))
        at += 9 + size
    return found


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


@dataclass
class Heard:
    """Notes what a stream is told."""

    headers: list[dict[str, str]] = field(default_factory=list)
    data: bytes = b""
    is_ended: bool = False
    failures: list[tuple[str, bool]] = field(default_factory=list)

    def headers_received(self, headers: dict[str, str]) -> None:
        self.headers.append(headers)

    def data_received(self, data: bytes) -> None:
        self.data += data

    def ended(self) -> None:
        self.is_ended = True

    def failed(self, why: str, *, is_untouched: bool) -> None:
        self.failures.append((why, is_untouched))


class Wire:
    """What a connection has sent, frame by frame, beginning after its preface."""

    def __init__(self) -> None:
        self.sent = b""
        self.http2 = Http2(self.write)
        self.beginning, self.sent = self.sent, b""

    def write(self, data: bytes) -> None:
        self.sent += data

    def take(self) -> list[tuple[int, int, int, bytes]]:
        sent, self.sent = self.sent, b""
        return frames(sent)


@pytest.fixture
def wire() -> Wire:
    return Wire()


def begin(wire: Wire, data: bytes = b"question", *, is_last: bool = True) -> tuple[int, Heard]:
    heard = Heard()
    return wire.http2.begin(BLOCK, data, heard, is_last=is_last), heard


def encoder() -> Encoder:
    """Return what a server encodes with whose header table was set to 0."""
    encoder = Encoder()
    encoder.header_table_size = 0
    return encoder


def answer(stream: int) -> bytes:
    encodes = encoder()
    first = encodes.encode([(":status", "200")])
    last = encodes.encode([("grpc-status", "0")])
    return (
        frame(HEADERS, END_HEADERS, stream, first)
        + frame(DATA, 0, stream, b"ans")
        + frame(DATA, 0, stream, b"wer")
        + frame(HEADERS, END_HEADERS | END_STREAM, stream, last)
    )


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 254, 255, 256, 5_000])
def test_headers_of_any_length_are_written_so_that_they_can_be_read(size: int) -> None:
    block = literal(b"name", b"v" * size) + literal(b"n" * size, b"value")
    decoded: list[Any] = list(Decoder().decode(block))
    assert decoded == [("name", "v" * size), ("n" * size, "value")]


class TestWhatItSends:
    def test_it_begins_with_the_preface_no_header_table_no_push_and_large_windows(self, wire: Wire) -> None:
        assert wire.beginning.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        (kind, _, _, said), (grown, *_) = frames(wire.beginning[24:])
        assert (kind, grown) == (SETTINGS, WINDOW)
        assert dict(struct.iter_unpack(">HI", said)) == {1: 0, 2: 0, 4: http2.LONGEST_UNREAD}

    def test_a_question_is_its_headers_and_its_data_and_ends_the_stream(self, wire: Wire) -> None:
        first, _ = begin(wire)
        second, _ = begin(wire)
        assert (first, second) == (1, 3)
        assert wire.take()[:2] == [(HEADERS, END_HEADERS, 1, BLOCK), (DATA, END_STREAM, 1, b"question")]

    def test_a_stream_that_sends_on_is_not_ended(self, wire: Wire) -> None:
        begin(wire, is_last=False)
        assert wire.take()[1] == (DATA, 0, 1, b"question")

    def test_data_are_cut_into_frames_that_the_server_takes(self, wire: Wire) -> None:
        begin(wire, b"x" * 40_000)
        assert [(len(data), flags) for _, flags, _, data in wire.take()[1:]] == [(16_384, 0), (16_384, 0), (7_232, 1)]

    def test_they_wait_until_the_windows_have_room(self, wire: Wire) -> None:
        begin(wire, b"x" * 100_000)
        assert sum(len(data) for kind, _, _, data in wire.take() if kind == DATA) == 65_535
        wire.http2.receive(frame(WINDOW, 0, 1, number(100_000)))
        assert not wire.take()
        wire.http2.receive(frame(WINDOW, 0, 0, number(10)))
        assert wire.take() == [(DATA, 0, 1, b"x" * 10)]
        wire.http2.receive(frame(WINDOW, 0, 0, number(100_000)))
        rest = wire.take()
        assert sum(len(data) for *_, data in rest) == 100_000 - 65_535 - 10
        assert [flags for _, flags, *_ in rest][-1] == END_STREAM

    def test_the_window_of_streams_that_are_open_grows_and_shrinks_with_the_servers_settings(self, wire: Wire) -> None:
        wire.http2.receive(settings((4, 10)))
        begin(wire, b"x" * 30)
        wire.take()
        wire.http2.receive(settings((4, 5)))
        assert wire.take() == [(SETTINGS, ACK, 0, b"")]
        wire.http2.receive(settings((4, 20)))
        assert wire.take() == [(SETTINGS, ACK, 0, b""), (DATA, 0, 1, b"x" * 10)]

    def test_nothing_more_is_sent_of_what_nobody_waits_for(self, wire: Wire) -> None:
        stream, heard = begin(wire, b"x" * 100_000)
        wire.take()
        wire.http2.reset(stream)
        wire.http2.reset(stream)
        wire.http2.receive(frame(WINDOW, 0, 0, number(100_000)) + answer(stream))
        assert wire.take() == [(RESET, 0, stream, number(8))]
        assert heard == Heard()
        assert wire.http2.is_idle

    def test_a_server_that_answers_before_it_has_heard_all_is_told_no_more(self, wire: Wire) -> None:
        stream, heard = begin(wire, b"x" * 100_000)
        wire.take()
        wire.http2.receive(answer(stream))
        assert (heard.is_ended, wire.take()) == (True, [(RESET, 0, stream, number(0))])

    def test_a_ping_is_answered(self, wire: Wire) -> None:
        wire.http2.receive(frame(PING, 0, 0, b"12345678") + frame(PING, ACK, 0, b"12345678"))
        assert wire.take() == [(PING, ACK, 0, b"12345678")]

    def test_what_is_to_be_said_to_some_frames_is_written_at_once_when_all_are_taken(self, wire: Wire) -> None:
        """A ping comes before the answer, and who waits for that need not wait for a system call."""
        stream, heard = begin(wire)
        writes: list[tuple[bytes, bool]] = []
        wire.http2._write = lambda data: writes.append((data, heard.is_ended))  # noqa: SLF001
        ping = frame(PING, 0, 0, b"12345678")
        wire.http2.receive(ping + settings() + answer(stream) + ping)
        assert [(len(frames(data)), is_ended) for data, is_ended in writes] == [(3, True)]

    def test_when_the_ids_run_out_no_stream_can_be_begun(self, wire: Wire) -> None:
        wire.http2._next_stream = 2**31 - 3  # noqa: SLF001
        begin(wire)
        assert not wire.http2.takes_streams


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "LONGEST_UNREAD", 100_000)
    monkeypatch.setattr(http2, "_OUR_CONNECTION_WINDOW", 200_000)


@pytest.mark.usefixtures("small_windows")
class TestTheRoomForWhatComes:
    def test_of_an_answer_it_is_given_at_once(self, wire: Wire) -> None:
        stream, _ = begin(wire)
        wire.take()
        for _ in range(9):
            wire.http2.receive(frame(DATA, 0, stream, bytes(10_000)))
        assert wire.take() == [(WINDOW, 0, stream, number(50_000))]

    def test_of_a_stream_it_is_given_when_that_was_read(self, wire: Wire) -> None:
        stream, _ = begin(wire, is_last=False)
        wire.take()
        for _ in range(9):
            wire.http2.receive(frame(DATA, 0, stream, bytes(10_000)))
        assert not wire.take()
        wire.http2.taken(stream, 40_000)
        assert not wire.take()
        wire.http2.taken(stream, 20_000)
        assert wire.take() == [(WINDOW, 0, stream, number(60_000))]

    def test_that_of_the_connection_does_not_wait_for_anybody(self, wire: Wire) -> None:
        """Of all streams together, those included that nobody waits for any more."""
        for _ in range(10):
            wire.http2.receive(frame(DATA, 0, 99, bytes(10_000)))
        assert wire.take() == [(WINDOW, 0, 0, number(100_000))]


class TestWhatItHears:
    def test_an_answer(self, wire: Wire) -> None:
        stream, heard = begin(wire)
        wire.http2.receive(answer(stream))
        assert heard == Heard([{":status": "200"}, {"grpc-status": "0"}], b"answer", is_ended=True)
        assert wire.http2.is_idle

    @given(cuts=st.sets(st.integers(1, 120)))
    def test_it_is_the_same_wherever_it_is_cut(self, cuts: set[int]) -> None:
        wire = Wire()
        (first, one), (second, two) = begin(wire), begin(wire)
        data = settings((4, 100)) + answer(second) + answer(first)
        at = 0
        for cut in [*sorted(cuts), len(data)]:
            wire.http2.receive(data[at:cut])
            at = max(at, cut)
        assert one == two == Heard([{":status": "200"}, {"grpc-status": "0"}], b"answer", is_ended=True)

    def test_padding_and_priority_are_left_out(self, wire: Wire) -> None:
        stream, heard = begin(wire)
        block = encoder().encode([(":status", "200")])
        wire.http2.receive(
            frame(HEADERS, END_HEADERS | PADDED | PRIORITY, stream, b"\x03" + bytes(5) + block + bytes(3))
            + frame(DATA, PADDED | END_STREAM, stream, b"\x02data\0\0")
        )
        assert heard == Heard([{":status": "200"}], b"data", is_ended=True)

    def test_headers_may_be_continued(self, wire: Wire) -> None:
        stream, heard = begin(wire)
        block = encoder().encode([("grpc-message", "long")])
        wire.http2.receive(
            frame(HEADERS, END_STREAM, stream, block[:4])
            + frame(CONTINUATION, 0, stream, block[4:9])
            + frame(CONTINUATION, END_HEADERS, stream, block[9:])
        )
        assert heard == Heard([{"grpc-message": "long"}], is_ended=True)

    @pytest.mark.parametrize("size", [1, 4_096])
    def test_a_server_that_keeps_a_table_all_the_same_is_not_understood(self, wire: Wire, size: int) -> None:
        """Equal blocks would not mean equal headers."""
        stream, _ = begin(wire)
        keeps = Encoder()
        keeps.header_table_size = size
        with pytest.raises(ProtocolError):
            wire.http2.receive(frame(HEADERS, END_HEADERS, stream, keeps.encode([("a", "b")])))

    def test_a_stream_that_the_server_refuses_is_untouched(self, wire: Wire) -> None:
        (refused, one), (ended, two) = begin(wire), begin(wire)
        wire.http2.receive(frame(RESET, 0, refused, number(7)) + frame(RESET, 0, ended, number(2)))
        assert [is_untouched for _, is_untouched in one.failures + two.failures] == [True, False]

    def test_when_the_server_goes_away_what_it_has_not_seen_is_untouched_and_the_rest_goes_on(self, wire: Wire) -> None:
        (seen, one), (_, two) = begin(wire), begin(wire)
        wire.http2.receive(frame(GOAWAY, 0, 0, number(seen) + number(0)))
        assert two.failures == [("the server goes away", True)]
        assert not wire.http2.takes_streams
        wire.http2.receive(answer(seen))
        assert one.is_ended

    def test_when_the_connection_is_lost_nobody_knows_what_was_seen(self, wire: Wire) -> None:
        _, heard = begin(wire)
        wire.http2.lost("gone")
        assert heard.failures == [("gone", False)]
        assert not wire.http2.takes_streams

    def test_it_is_ready_when_the_server_has_said_its_settings(self, wire: Wire) -> None:
        assert not wire.http2.is_ready
        wire.http2.receive(settings())
        assert wire.http2.is_ready

    def test_frames_of_kinds_to_come_are_left_out(self, wire: Wire) -> None:
        stream, heard = begin(wire)
        wire.http2.receive(frame(0xFA, 0xFF, stream, b"?") + answer(stream))
        assert heard.is_ended


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        frame(PUSH, END_HEADERS, 1, number(2) + BLOCK),
        frame(CONTINUATION, END_HEADERS, 1, BLOCK),
        frame(HEADERS, 0, 1, BLOCK) + frame(DATA, 0, 1, b""),
        frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, END_HEADERS, 3, BLOCK),
        frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff"),
        frame(HEADERS, END_HEADERS | PADDED, 1, b"\x09abc"),
        frame(DATA, PADDED, 1, b""),
        frame(WINDOW, 0, 0, b"\0"),
        frame(RESET, 0, 1, b""),
        frame(GOAWAY, 0, 0, b""),
        frame(DATA, 0, 1, bytes(16_385)),
        frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, 0, 1, bytes(16_384)) * 17,
    ],
    ids=[
        "HTTP/1.1", "push", "continuation of nothing", "not continued", "of another stream", "no headers", "padding",
        "no padding", "window", "reset", "goaway", "longer than allowed", "headers without an end",
    ],
)  # fmt: skip
def test_what_no_server_sends_ends_the_connection(wire: Wire, data: bytes) -> None:
    begin(wire)
    with pytest.raises(ProtocolError):
        wire.http2.receive(data)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=40)), max_size=10)
)
def test_whatever_comes_it_is_understood_or_it_is_a_protocol_error(some: list[tuple[int, int, int, bytes]]) -> None:
    wire = Wire()
    begin(wire)
    begin(wire, is_last=False)
    try:
        for each in some:
            wire.http2.receive(frame(*each))
    except ProtocolError:
        return
