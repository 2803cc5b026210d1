"""Options of the studies: names of scores, bounds, and none in common with those of training."""

from typing import Any

import pytest
from support.options import assert_refused

from pipeline.config.base import Config
from pipeline.config.stages import TrainConfig
from pipeline.config.studies import CURVE_AXES, SCORES, AblateConfig, CurveConfig


@pytest.mark.parametrize("config", [AblateConfig, CurveConfig])
def test_no_option_means_two_things(config: type[Config]) -> None:
    assert not config.model_fields.keys() & TrainConfig.model_fields.keys()


def test_every_axis_and_score_can_be_asked_for() -> None:
    assert CurveConfig(over=list(CURVE_AXES)).over == list(CURVE_AXES)
    assert [AblateConfig(score=name).score for name in SCORES] == list(SCORES)


@pytest.mark.parametrize(
    ("config", "values", "words"),
    [
        (AblateConfig, {"score": "r2-liner"}, "did you mean r2-linear"),
        (AblateConfig, {"level": 0.6}, "level: "),
        (AblateConfig, {"seeds": 0}, "seeds: "),
        (CurveConfig, {"over": ["slide"]}, "did you mean slides"),
        (CurveConfig, {"over": []}, "over: "),
        (CurveConfig, {"equal": "rows"}, "equal: "),
    ],
)
def test_wrong_values_are_refused_by_name(config: type[Config], values: dict[str, Any], words: str) -> None:
    assert_refused(config, values, words)
