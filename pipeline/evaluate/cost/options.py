"""Options of the cost benchmark."""

from typing import ClassVar, Literal

from pipeline.config.base import Config, option


class CostOptions(Config):
    """Whether and how models are timed."""

    panels: ClassVar[dict[str, str]] = {"cost": "Cost"}

    cost: bool = option(True, description="Measure parameters, FLOPs, time and memory.")
    cost_batch_sizes: list[int] = option([1, 32], description="Batch sizes to time; repeat for several.")
    cost_precisions: list[Literal["float32", "bfloat16", "float16"]] | None = option(
        None, description="Precisions to time; repeat for several [--precision]."
    )
    cost_rounds: int = option(7, ge=1, description="Timing rounds, each with every model once; medians are shown.")


OPTIONS = CostOptions
