"""The benchmarks of `g2l evaluate`, a line a benchmark.

Each is a room of two or more modules: its `options` name its options `OPTIONS`, and its `benchmark` names its class
`BENCHMARK` (docs/architecture.md, "A new benchmark"). The rooms are named here, not imported: the command's help needs
the options only, and the classes load torch. `evaluate.benchmark.load_benchmark` loads these.
"""

from importlib import import_module

from pipeline.config.base import Config

BENCHMARKS: tuple[str, ...] = (
    "pipeline.evaluate.fidelity",
    "pipeline.evaluate.patch_benchmark",
    "pipeline.evaluate.slide_benchmark",
    "pipeline.evaluate.robustness",
    "pipeline.evaluate.cost",
)
"""All benchmarks, in the order of the help and of the report."""


def options_of(room: str) -> type[Config]:
    """The class of a benchmark's options."""
    options: type[Config] = import_module(f"{room}.options").OPTIONS
    return options
