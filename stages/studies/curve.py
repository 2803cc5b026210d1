"""Do I have enough slides? A student's held-out score over the number of slides, of patches a slide and of epochs.

Runs on nested subsets of the training rows (`pipeline.training.rows.subset`), scored on the same held-out rows; a
saturating power law says what twice as many would give, where the points support one (`pipeline.study.power_law`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.console import counted, say, table
from pipeline.base.errors import ConfigError
from pipeline.config.stages import TrainConfig
from pipeline.config.studies import CURVE_AXES, SCORES, CurveConfig
from pipeline.disk.locks import exclusive
from pipeline.disk.tables import write_records
from pipeline.sampling import TRAIN
from pipeline.store.store import Store, StoredTeacher
from pipeline.store.teachers import choose_teachers
from pipeline.study.compare import Scores, estimate_score
from pipeline.study.figures import CurveAxis, draw_learning_curves
from pipeline.study.folder import StudyFolder, base_record
from pipeline.study.points import Cohort, Point, numbers_of, points_of, settings_of, with_a_batch
from pipeline.study.power_law import extrapolate
from pipeline.study.yardstick import scores_by_case
from pipeline.training.rows.choice import rows_of_all
from pipeline.training.rows.subset import rank_training_slides
from stages.studies.runs import (
    Study,
    StudyRuns,
    build_yardstick,
    require_one_process,
    require_views,
    run_study,
    yardstick_note,
)

SET_BY_CURVE = ("train_slides", "train_patches_per_slide")
"""Options of `train-student` that the curve sets."""


@dataclass(frozen=True)
class LearningCurve:
    """Result of `g2l curve`: its report for the terminal, and whether some runs failed."""

    text: str
    is_partial: bool


def curve(
    store_path: Path, out: Path, options: CurveConfig, base: dict[str, Any], record: dict[str, Any]
) -> LearningCurve:
    """Train and score the points in the folder `out`, and extrapolate; the same command continues or extends it.

    Args:
        store_path: the store.
        base: values of options of `train-student`, as `TrainConfig.build` takes them.
        record: resolved options and paths, for `config.toml`.

    Raises:
        G2LError: an option or the store cannot be used, or `out` holds another study; finished runs are kept.
    """
    require_one_process()
    if given := [name for name in SET_BY_CURVE if base.get(name) is not None]:
        raise ConfigError(f"--{given[0].replace('_', '-')}: g2l curve varies it. Give --slides or --patches")
    store, folder = Store(store_path), StudyFolder(out)
    with exclusive(out, "g2l curve"):
        yardstick = build_yardstick(store, base, options.score_rows, folder)
        first = int(base.get("seed", 0))
        seeds = list(range(first, first + options.seeds))
        config = TrainConfig.build(base)
        teachers = choose_teachers(store, config.teacher, config.teacher_weight)
        cohorts = [cohort_of(teachers.stored, seed) for seed in seeds]
        points = plan_points(options, cohorts, base)
        require_views([store], base, settings_of(points))
        common = {"options": base_record(base), "yardstick": yardstick.record(), "equal": options.equal}
        folder.start("curve", common, record)
        study = Study(folder, base, [store], yardstick, seeds, options.keep_checkpoints)
        runs = run_study(study, settings_of(points))
        curves = [
            curve_axis(axis, [point for point in points if point.axis == axis], runs, seeds, options.score,
                       options.resamples)
            for axis in dict.fromkeys(point.axis for point in points)
        ]  # fmt: skip
        text = write_curves(folder, curves, SCORES[options.score])
    lost = f"{counted(len(runs.failed), 'run')} diverged; points without a run of every seed are left out"
    notes = [yardstick_note(yardstick.teacher), lost if runs.failed else ""]
    return LearningCurve("\n".join([text, *filter(None, notes)]), bool(runs.failed))


def cohort_of(teachers: Sequence[StoredTeacher], seed: int) -> Cohort:
    """The training patches of each slide that all teachers have embedded, in the order in which a seed takes slides."""
    plan = teachers[0].plan
    slides, counts = np.unique(plan.slide_of_row()[rows_of_all(teachers, TRAIN)], return_counts=True)
    of_slide = dict(zip(slides.tolist(), counts.tolist(), strict=True))
    return Cohort(tuple(of_slide[slide] for slide in rank_training_slides(slides.tolist(), plan, seed)))


def plan_points(options: CurveConfig, cohorts: Sequence[Cohort], base: dict[str, Any]) -> list[Point]:
    """The points of the axes that are asked for. Numbers that nobody gave are left out, with a note, where they have
    fewer rows than a batch.

    Raises:
        ConfigError: a number cannot be had.
    """
    config, whole = TrainConfig.build(base), cohorts[0]
    if not whole.patches:
        raise ConfigError("the store has no rows to train on")
    texts = {
        "slides": (options.slides, len(whole.patches)),
        "patches": (options.patches, max(whole.patches)),
        "epochs": (options.epoch_counts, config.epochs),
    }
    flags = {"slides": "--slides", "patches": "--patches", "epochs": "--epoch-counts"}
    axes: dict[str, list[int]] = {axis: numbers_of(*texts[axis], flags[axis]) for axis in dict.fromkeys(options.over)}
    for axis in [axis for axis in axes if texts[axis][0] is None]:
        kept = with_a_batch(axis, axes[axis], cohorts, config.batch_size)
        if small := [str(number) for number in axes[axis] if number not in kept]:
            say(
                f"note: the curve over {axis} leaves out {', '.join(small)}, which give fewer rows to train on than a "
                f"batch of {config.batch_size}; a smaller --batch-size would keep more"
            )
        axes[axis] = kept
    return points_of(
        axes, cohorts, epochs=config.epochs, batch_size=config.batch_size, equal_steps=options.equal == "steps"
    )


def curve_axis(
    axis: str, points: Sequence[Point], runs: StudyRuns, seeds: Sequence[int], score: str, resamples: int
) -> CurveAxis:
    """The scores of one axis, of points that have a run of every seed, and what is said beyond them.

    Raises:
        ConfigError: no point has.
    """
    scored: list[tuple[int, Scores]] = [
        (point.number, scores_by_case(runs.of(point.setting.label, seeds), score))
        for point in points
        if runs.complete_seeds(seeds, [point.setting.label]) == list(seeds)
    ]
    if not scored:
        raise ConfigError(f"over {axis}: no point has a run of every seed, as runs diverged. Choose a smaller --lr")
    return CurveAxis(
        CURVE_AXES[axis],
        [number for number, _ in scored],
        [estimate_score(scores) for _, scores in scored],
        [scores.by_seed.tolist() for _, scores in scored],
        extrapolate(scored, resamples=resamples, seed=0),
    )


def write_curves(folder: StudyFolder, curves: Sequence[CurveAxis], score: str) -> str:
    """Write the table and the figure; returns the report for the terminal."""
    records, parts = [], []
    for each in curves:
        rows = []
        for number, value, runs in zip(each.numbers, each.estimates, each.by_seed, strict=True):
            ends = [value.interval(over) for over in ("both", "seeds", "cases")]
            names = [f"{end}{suffix}" for suffix in ("", "_seeds", "_cases") for end in ("low", "high")]
            record = {"over": each.name, "number": number, "runs": len(runs), "value": f"{value.value:.6f}"}
            numbers = ["" if np.isnan(end) else f"{end:.6f}" for pair in ends for end in pair]
            records.append(record | dict(zip(names, numbers, strict=True)) | {"kind": "measured"})
            shown = ["" if np.isnan(low) else f"{low:z.4f} to {high:z.4f}" for low, high in (*ends[1:], ends[0])]
            rows.append((number, len(runs), f"{value.value:z.4f}", *shown))
        beyond = each.beyond
        if not beyond.why_not:
            numbers = [f"{end:.6f}" for end in (beyond.low, beyond.high)]
            record = {"over": each.name, "number": int(beyond.at), "runs": 0, "value": f"{beyond.score:.6f}"}
            records.append(record | dict(zip(names, [*numbers, *[""] * 4], strict=True)) | {"kind": "extrapolated"})
        head = (each.name, "runs", score, "95 % seeds", "95 % cases", "95 % both")
        parts += [table(rows, head, right=(0, 1, 2)), beyond.words(each.name, score), ""]
    write_records(folder.folder / "table.csv", records)
    draw_learning_curves(curves, score, folder.folder / "figure.png")
    return "\n".join([*parts, f"the table is {folder.folder / 'table.csv'}, the figure is figure.png"])
