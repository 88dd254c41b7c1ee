"""What ends is started again: soon, and ever later when it keeps ending."""

from operation_service.backoff import Backoff, how_it_ended


def test_what_keeps_ending_is_started_again_ever_later_up_to_some_seconds() -> None:
    pauses = Backoff()
    assert [pauses.pause_after(0.0) for _ in range(9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


def test_what_has_run_for_a_minute_is_started_again_soon() -> None:
    pauses = Backoff()
    assert [pauses.pause_after(seconds) for seconds in (0, 59.9, 0, 60.0, 0, 3_600, 3_600)] == [
        *(0.1, 0.2, 0.4),
        *(0.1, 0.2),
        *(0.1, 0.1),
    ]


def test_an_end_is_said_as_people_say_it() -> None:
    assert how_it_ended(-9) == "by signal 9"
    assert how_it_ended(0) == "with exit code 0"
    assert how_it_ended(1) == "with exit code 1"
