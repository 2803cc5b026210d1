"""Options of `g2l evaluate`, and the benchmarks that they ask for."""

from typing import Any

from pipeline.evaluate.benchmark import Benchmark, load_benchmark
from pipeline.evaluate.options import benchmarks
from pipeline.evaluate.options.config import EvaluateConfig, evaluate_config
from stages.evaluate import look_at_inputs


def config(**options: Any) -> EvaluateConfig:
    """As the command makes them, of the benchmarks that are on the list now."""
    return evaluate_config().build({"models": ["a"]} | options)


def look(**options: Any) -> list[Benchmark[Any]]:
    """The benchmarks that the options ask for, with their inputs looked through."""
    of_call = config(**{"cost": False, "folds": 3, "resamples": 100} | options)
    rooms = benchmarks.BENCHMARKS
    return look_at_inputs({load_benchmark(room): of_call.part(benchmarks.options_of(room)) for room in rooms}, 1)
