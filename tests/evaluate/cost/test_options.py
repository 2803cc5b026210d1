"""Options of the cost benchmark."""

import pytest

from pipeline.base.errors import ConfigError
from pipeline.evaluate.cost.options import CostOptions


def test_models_are_timed_unless_that_is_switched_off() -> None:
    assert CostOptions().cost
    assert CostOptions().cost_batch_sizes == [1, 32]


def test_precisions_are_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"cost_precisions: .*did you mean float16"):
        CostOptions.build({"cost_precisions": ["float61"]})
    with pytest.raises(ConfigError, match="cost_rounds: "):
        CostOptions.build({"cost_rounds": 0})
