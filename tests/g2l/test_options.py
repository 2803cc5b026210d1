"""The types of options are those of the configurations."""

from support.option_types import PATH, source


def test_the_types_are_made_of_the_configurations() -> None:
    assert PATH.read_text() == source(), "an option has changed: run python tests/support/option_types.py"
