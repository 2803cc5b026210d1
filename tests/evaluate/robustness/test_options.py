"""Options of the robustness benchmark."""

import pytest

from pipeline.base.errors import ConfigError
from pipeline.evaluate.robustness.options import RobustnessOptions


def test_k_is_one_or_more_or_chosen() -> None:
    assert RobustnessOptions().ri_k is None
    assert RobustnessOptions().margins
    with pytest.raises(ConfigError, match="ri_k: "):
        RobustnessOptions.build({"ri_k": 0})
