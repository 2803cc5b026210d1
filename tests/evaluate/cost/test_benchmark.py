"""The cost benchmark: what asks for it, what it refuses, and what it hands to its section."""

import pytest

from pipeline.base.errors import ConfigError
from pipeline.config.tools import EvaluateConfig
from pipeline.evaluate.cost.benchmark import CostBenchmark


def test_a_batch_of_nothing_is_refused_before_anything_is_built() -> None:
    with pytest.raises(ConfigError, match=r"--cost-batch-sizes \[0, 4\]: give sizes of at least 1"):
        CostBenchmark.look(EvaluateConfig(models=["big"], cost_batch_sizes=[4, 0]))
