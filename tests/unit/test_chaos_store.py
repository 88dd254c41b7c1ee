"""The store of a chaos run: it refuses what comes late."""

from chaos.store import Ask, Values


def test_a_value_is_empty_first() -> None:
    assert Values().answer(Ask(resource="r", fencing_token=1)).value == ()


def test_what_was_written_is_read() -> None:
    values = Values()
    values.answer(Ask(resource="r", fencing_token=1, value=("a",)))
    assert values.answer(Ask(resource="r", fencing_token=1)).value == ("a",)


def test_a_write_with_an_earlier_token_is_refused_and_changes_nothing() -> None:
    values = Values()
    values.answer(Ask(resource="r", fencing_token=2, value=("b",)))
    assert values.answer(Ask(resource="r", fencing_token=1, value=("a",))).is_refused
    assert values.value("r") == ("b",)


def test_a_read_with_an_earlier_token_is_refused() -> None:
    values = Values()
    values.answer(Ask(resource="r", fencing_token=2, value=("b",)))
    assert values.answer(Ask(resource="r", fencing_token=1)).is_refused


def test_a_read_raises_the_token_so_that_a_former_holder_cannot_write_behind_it() -> None:
    values = Values()
    values.answer(Ask(resource="r", fencing_token=2))
    assert values.answer(Ask(resource="r", fencing_token=1, value=("a",))).is_refused


def test_each_resource_has_tokens_of_its_own() -> None:
    values = Values()
    values.answer(Ask(resource="r", fencing_token=2))
    assert not values.answer(Ask(resource="s", fencing_token=1)).is_refused
