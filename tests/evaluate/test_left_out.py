"""An error tells what had been left out for a fault before it; nothing is added to other errors."""

import pytest

from pipeline.base.errors import BenchmarkError, ConfigError, ManifestError
from pipeline.evaluate.left_out import MAX_NAMED, naming_left_out
from pipeline.report.content import Exclusion

FAULTS = [Exclusion(f"{i}.png", "no image") for i in range(MAX_NAMED + 2)]
RULE = Exclusion("x.png", "no label", by_rule=True)


def message(exclusions: list[Exclusion], error: Exception) -> str:
    with pytest.raises(type(error)) as raised, naming_left_out(exclusions):
        raise error
    return str(raised.value)


def test_what_failed_is_named() -> None:
    assert message([RULE, FAULTS[0]], BenchmarkError("one class")) == "one class. Left out before:\n  0.png: no image"
    words = message(FAULTS, ConfigError("one class"))
    assert (words.count("no image"), words.endswith("and 2 more")) == (MAX_NAMED, True)


def test_other_errors_and_rules_add_nothing() -> None:
    assert message([RULE], BenchmarkError("one class")) == "one class"
    assert message(FAULTS, ManifestError("wrong")) == "wrong"
    with naming_left_out(FAULTS):
        pass
