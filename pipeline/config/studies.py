"""Options of the studies, which train many students: `g2l ablate` and `g2l curve`. Both take the options of
`train-student` as well, as the base of every run.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pipeline.config.base import Config, OneOf, option

SCORES = {
    "r2-linear": "R2 of the best linear map",
    "neighbour-overlap": "neighbour overlap at 10",
    "retrieval": "retrieval, top-1",
    "cosine": "cosine of the best linear map",
}
"""Held-out scores that do not depend on the loss that was trained, and their names in tables. All compare the student's
embedding with the teacher's; the linear map is fitted alike for every student, so none uses the student's projector.
"""
CURVE_AXES = {"slides": "slides", "patches": "patches a slide", "epochs": "epochs"}
"""What a learning curve goes over, and its name in tables."""

HeldOutScore = Annotated[str, OneOf(SCORES.keys)]


class AblateConfig(Config):
    """Options of `g2l ablate`, besides the stores and the options of `train-student`."""

    panels: ClassVar[dict[str, str]] = {"vary": "The grid", "score": "Scores and comparisons"}

    vary: list[str] | None = option(
        None,
        description="NAME=VALUE,VALUE: an option of train-student and its values; repeat for a grid. Items of a list "
        "are joined by +. NAME may be recipe, for all that it sets in training, or store; several STORE.zarr are the "
        "same as --vary store=....",
        decides="nothing",
    )
    seeds: int = option(5, ge=1, description="Runs of each setting: seeds --seed, --seed + 1, ....", decides="nothing")
    score: HeldOutScore = option(
        "r2-linear", description="Held-out score; none depends on the loss that was trained.", decides="nothing"
    )
    reference: str | None = option(
        None,
        description="NAME=VALUE,NAME=VALUE: the setting to compare with [the first value of each --vary].",
        decides="nothing",
    )
    compare: Literal["all", "reference"] = option(
        "all",
        description="Pairs to test: all, or each setting with the reference only; fewer pairs need less correction.",
        decides="nothing",
    )
    level: float = option(
        0.05, gt=0, lt=0.5, description="Chance of any wrong 'shown' in the whole table.", decides="nothing"
    )
    evaluate: Path | None = option(
        None,
        description="TOML file with an [evaluate] table: evaluate every student too, and add its scores [none].",
        decides="nothing",
    )
    score_rows: int = option(4096, ge=3, description="Maximum number of held-out patches that are scored.")
    keep_checkpoints: bool = option(
        True,
        description="Keep the checkpoints of finished runs; each is several times as large as the student.",
        decides="nothing",
    )


class CurveConfig(Config):
    """Options of `g2l curve`, besides the store and the options of `train-student`."""

    panels: ClassVar[dict[str, str]] = {"over": "The curve", "score": "Scores"}

    over: list[Literal["slides", "patches", "epochs"]] = option(
        ["slides", "patches", "epochs"],
        min_length=1,
        description="What the curve goes over; repeat for several.",
        decides="nothing",
    )
    slides: str | None = option(
        None, description="Numbers of slides, such as 4,8,16 [five, each half of the next].", decides="nothing"
    )
    patches: str | None = option(
        None, description="Numbers of patches a slide [five, each half of the next].", decides="nothing"
    )
    epoch_counts: str | None = option(
        None, description="Numbers of epochs [five, each half of the next, up to --epochs].", decides="nothing"
    )
    equal: Literal["steps", "epochs"] = option(
        "steps",
        description="What runs on fewer rows have in common with the whole: steps (they see each row more often), or "
        "epochs (they make fewer steps).",
    )
    seeds: int = option(3, ge=1, description="Runs of each point: seeds --seed, --seed + 1, ....", decides="nothing")
    score: HeldOutScore = option("r2-linear", description="Held-out score.", decides="nothing")
    resamples: int = option(1000, ge=100, description="Bootstrap resamples of the extrapolation.", decides="nothing")
    score_rows: int = option(4096, ge=3, description="Maximum number of held-out patches that are scored.")
    keep_checkpoints: bool = option(
        True,
        description="Keep the checkpoints of finished runs; each is several times as large as the student.",
        decides="nothing",
    )
