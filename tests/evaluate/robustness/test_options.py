"""Options of the robustness benchmark."""

import pytest

from pipeline.base.errors import ConfigError
from pipeline.evaluate.robustness.options import RobustnessOptions


def test_k_is_one_or_more_or_chosen() -> None:
    assert RobustnessOptions().ri_k is None
    assert RobustnessOptions().margins
    with pytest.raises(ConfigError, match="ri_k: "):
        RobustnessOptions.build({"ri_k": 0})


def test_a_sweep_is_off_and_records_of_earlier_versions_are_alike() -> None:
    assert RobustnessOptions().robustness_sweep is None
    assert not {"robustness_sweep", "sweep_repeats"} & RobustnessOptions().record().keys()
    record = RobustnessOptions.build({"robustness_sweep": "own"}).record()
    assert record["robustness_sweep"] == "own"
    for wrong in ({"robustness_sweep": "camelyon"}, {"sweep_repeats": 1}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))}: "):
            RobustnessOptions.build(wrong)
