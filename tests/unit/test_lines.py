"""Lines are written in their order, and nobody waits for who does not read them."""

import os
import threading

from operation_service.lines import Lines


def lost(count: int) -> bytes:
    return b"%d lost\n" % count


def test_lines_are_written_in_their_order() -> None:
    reading, writing = os.pipe()
    lines = Lines(writing, lost)
    expected = b"".join(b"line %d\n" % number for number in range(1_000))
    for number in range(1_000):
        lines.put(b"line %d\n" % number)
    assert lines.flush(10)
    assert os.read(reading, 1_000_000) == expected
    assert not lines.dropped
    os.close(reading)
    os.close(writing)


def test_who_does_not_read_stops_nobody_and_is_told_what_was_lost() -> None:
    reading, writing = os.pipe()
    lines = Lines(writing, lost, max_bytes=200_000)
    for _ in range(3_000):
        lines.put(b"x" * 99 + b"\n")
    assert lines.dropped > 0
    assert not lines.flush(0.01)
    received = bytearray()

    def told_lost() -> int:
        return sum(int(line.split()[0]) for line in received.splitlines() if line.endswith(b" lost"))

    def read() -> None:
        while told_lost() < lines.dropped:
            received.extend(os.read(reading, 65_536))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert lines.flush(10)
    # The next line, at the latest, brings the news that some are missing.
    lines.put(b"after\n")
    assert lines.flush(10)
    reader.join(10)
    assert not reader.is_alive()
    assert received.count(b"x" * 99 + b"\n") == 3_000 - lines.dropped
    assert told_lost() == lines.dropped
    os.close(reading)
    os.close(writing)


def test_a_file_that_does_not_wait_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    lines = Lines(writing, lost)
    data = b"y" * 500_000 + b"\n"
    lines.put(data)
    received = b""
    while len(received) < len(data):
        received += os.read(reading, 65_536)
    assert received == data
    assert lines.flush(10)
    os.close(reading)
    os.close(writing)


def test_a_reader_that_has_gone_is_no_reason_to_stop() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    lines = Lines(writing, lost)
    lines.put(b"nobody reads this\n")
    assert lines.flush(10)
    os.close(writing)
