"""The texts of several workers become one, in which each family is there once."""

from scraping import parsed

from operation_service.metrics_gathering import merged

TEXT = """# HELP a_total What a is.
# TYPE a_total counter
a_total{{worker="{0}"}} 1.0
# HELP b What b is.
# TYPE b histogram
b_bucket{{le="1",worker="{0}"}} 1.0
b_bucket{{le="+Inf",worker="{0}"}} 2.0
b_count{{worker="{0}"}} 2.0
b_sum{{worker="{0}"}} 2.0
"""


def test_what_has_one_name_stands_together() -> None:
    told = merged([TEXT.format(1).encode(), TEXT.format(2).encode()]).decode()
    assert told.count("# HELP") == told.count("# TYPE") == 2
    values = parsed(told).values
    assert {labels for name, labels in values if name == "a_total"} == {
        frozenset({("worker", "1")}),
        frozenset({("worker", "2")}),
    }
    assert len(values) == 10


def test_who_tells_nothing_is_left_out() -> None:
    assert merged([b"", TEXT.format(2).encode()]).decode() == TEXT.format(2)


def test_a_family_that_only_one_tells_is_there() -> None:
    other = "# HELP c What c is.\n# TYPE c gauge\nc 1.0\n"
    assert merged([TEXT.format(1).encode(), (TEXT.format(2) + other).encode()]).decode().endswith(other)
