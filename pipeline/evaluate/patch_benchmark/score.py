"""The tables of a patch benchmark: what the probes of each model scored, and what the scores rest on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.bootstrap import READ_DIFFERENCES, Draws, GroupResamples, class_mean_draws, difference, interval
from pipeline.evaluate.groups import GROUP_WORDS
from pipeline.evaluate.patch_benchmark.data import PatchSet
from pipeline.evaluate.probes.calibration import Calibration
from pipeline.evaluate.probes.calibration_report import calibration_cells, calibration_columns, calibration_note
from pipeline.evaluate.probes.few_shot import Examples, FewShot
from pipeline.evaluate.probes.linear_probe import Probed, ProbeTask
from pipeline.evaluate.probes.probe_report import strength_column, strengths_in_words
from pipeline.report.content import Cell, Column, Interval, Table

LINEAR, KNN = "linear probe", "kNN"
"""The probes, as the tables name them."""
PATCH_METRICS = {
    "balanced_accuracy": (
        "balanced accuracy",
        "Mean over the classes of the share of their patches that is recognised; one over the number of classes is a "
        "guess.",
    ),
    "accuracy": (
        "accuracy",
        "Share of the patches that are recognised, so that frequent classes count more; the share of the most frequent "
        "class is a guess.",
    ),
    "macro_f1": ("macro F1", "Mean over the classes of the harmonic mean of precision and recall."),
    "auroc": (
        "AUROC",
        "Area under the ROC curve: the chance that a patch of a class gets a larger probability of it than a patch of "
        "another class in the same fold; 0.5 is a guess. With more than two classes their mean.",
    ),
}
"""Key of `classification_draws`, the column's name and what it is."""
PAIRED_NOTE = (
    "Value less that of {reference}, paired: both are scored on the same patches and resamples. " + READ_DIFFERENCES
)
"""Below tables of differences."""


@dataclass(frozen=True, eq=False)
class PatchBench:
    """What all models are scored on, alike.

    Attributes:
        patch_set: the patches, N of them.
        groups: what each patch is kept together with, (N,).
        task: classes and folds.
        examples: of the few-shot probe.
        scored: the rows that are scored.
        resamples: of the groups of the scored rows.
        knn: neighbours of the kNN probe.
        draws: of few-shot examples.
        seed: of folds, draws and resamples.
    """

    patch_set: PatchSet
    groups: NDArray[np.str_]
    task: ProbeTask
    examples: Examples
    scored: NDArray[np.int64]
    resamples: GroupResamples
    knn: int
    draws: int
    seed: int

    @property
    def unit(self) -> str:
        """What is resampled, in the plural."""
        return GROUP_WORDS[self.patch_set.group_column]


@dataclass(frozen=True, eq=False)
class ScoredModel:
    """The probes of one model with their scores and calibration; few-shot by the number of examples a class."""

    label: str
    probed: dict[str, Probed]
    draws: dict[str, dict[str, Draws]]
    few: dict[int, FewShot]
    few_draws: dict[int, Draws]
    calibration: dict[str, Calibration] = field(default_factory=dict)


def probe_tables(models: Sequence[ScoredModel], bench: PatchBench) -> list[Table]:
    """The metrics of each model, a table a probe; the first says what they are."""
    columns = [Column("model"), *(Column(name, what, better="higher") for name, what in PATCH_METRICS.values())]
    rows: dict[str, list[list[Cell]]] = {
        probe: [[model.label, *(interval(model.draws[probe][key]) for key in PATCH_METRICS)] for model in models]
        for probe in (LINEAR, KNN)
    }
    chosen = [strengths_in_words(model.probed[LINEAR].choices) for model in models]
    linear = [[*row, words] for row, words in zip(rows[LINEAR], chosen, strict=True)]
    return [
        Table("Linear probe", [*columns, strength_column(bench.task.protocol)], linear),
        Table(f"kNN, {bench.knn} neighbours", [replace(column, what="") for column in columns], rows[KNN]),
    ]


def calibration_table(models: Sequence[ScoredModel], bench: PatchBench) -> Table:
    """How far the probes' confidence is from the share that is right, before and after temperature scaling."""
    rows: list[list[Cell]] = [
        [model.label, probe, *calibration_cells(model.calibration[probe])]
        for model in models
        for probe in (LINEAR, KNN)
    ]
    return Table(
        "Calibration of the probes",
        [Column("model"), Column("probe"), *calibration_columns()],
        rows,
        calibration_note(bench.task),
    )


def probe_differences(models: Sequence[ScoredModel], reference: str) -> list[Table]:
    """Each model less the reference, on the same resamples; none if there is one model."""
    base = next(model for model in models if model.label == reference)
    rows: list[list[Cell]] = [
        [model.label, probe, *(difference(model.draws[probe][key], base.draws[probe][key]) for key in PATCH_METRICS)]
        for model in models
        if model is not base
        for probe in (LINEAR, KNN)
    ]
    columns = [Column("model"), Column("probe"), *(Column(name) for name, _ in PATCH_METRICS.values())]
    note = PAIRED_NOTE.format(reference=reference)
    return [Table(f"Difference from {reference}", columns, rows, note)] if rows else []


def few_shot_tables(models: Sequence[ScoredModel], reference: str, bench: PatchBench) -> list[Table]:
    """Balanced accuracy by the number of examples, and differences from the reference."""
    shots = bench.examples.shots
    base = next(model for model in models if model.label == reference)

    def rows(cell: Callable[[ScoredModel, int], Interval], chosen: Sequence[ScoredModel]) -> list[list[Cell]]:
        return [[model.label, *(cell(model, count) for count in shots)] for model in chosen]

    columns = [Column("model"), *(Column(f"{count} a class", better="higher") for count in shots)]
    num_draws = len(bench.examples.rows[0])
    note = (
        "Balanced accuracy with so many examples of each class. "
        f"Mean over {num_draws} draw{'s' * (num_draws > 1)} of examples from the training part, the same for all "
        f"models. Intervals are over {bench.unit}, draws held fixed; report.json has the spread of single draws."
    )
    tables = [Table("Few-shot prototypes", columns, rows(lambda m, n: interval(m.few_draws[n]), models), note)]
    others = [model for model in models if model is not base]
    if others:
        cells = rows(lambda m, n: difference(m.few_draws[n], base.few_draws[n]), others)
        less = [Column(column.name) for column in columns]
        note = PAIRED_NOTE.format(reference=reference)
        tables.append(Table(f"Few-shot prototypes, difference from {reference}", less, cells, note))
    return tables


def count_names(names: NDArray[np.str_]) -> int:
    """Different ones, "" not counted."""
    return len(np.unique(names[names != ""]))


def center_tables(models: Sequence[ScoredModel], bench: PatchBench) -> list[Table]:
    """Balanced accuracy of the linear probe in each centre; none if there are fewer than two."""
    centers = bench.patch_set.centers
    if centers is None or count_names(centers[bench.scored]) < 2:
        return []
    rows: list[list[Cell]] = []
    for center in np.unique(centers[bench.scored]):
        if not center:
            continue
        inside = bench.scored[centers[bench.scored] == center]
        truth, groups = bench.task.truth[inside], bench.groups[inside]
        resamples = GroupResamples(groups, len(bench.resamples), bench.seed)
        counts = [len(inside), len(np.unique(groups)), len(np.unique(truth))]
        for model in models:
            runs = model.probed[LINEAR].each_run()
            hits = np.stack([run.probabilities[inside].argmax(1) == truth for run in runs])
            right: NDArray[np.float64] = hits.mean(0)
            rows.append([str(center), model.label, *counts, interval(class_mean_draws(truth, right, resamples))])
    columns = [
        Column("centre"),
        Column("model"),
        Column("scored patches", digits=0),
        Column(f"resampled {bench.unit}", "What the interval rests on.", digits=0),
        Column("classes", "Classes that the centre has; the mean is over these.", digits=0),
        Column("balanced accuracy"),
    ]
    note = "Centres differ in their classes and in how hard their patches are: compare models, not centres."
    return [Table("Linear probe by centre", columns, rows, note)]


def composition_table(bench: PatchBench) -> Table:
    """How many patches, groups and centres each class has, and patches of each side of a given split."""
    patch_set, truth = bench.patch_set, bench.task.truth
    columns = [Column("class"), Column("patches", digits=0)]
    counted: list[NDArray[np.str_]] = []
    if patch_set.groups is not None:
        columns.append(Column(bench.unit, "That have patches of the class.", digits=0))
        counted.append(patch_set.groups)
    if patch_set.centers is not None:
        columns.append(Column("centres", "That have patches of the class.", digits=0))
        counted.append(patch_set.centers)
    sides: list[NDArray[np.int64]] = []
    if patch_set.splits is not None:
        fold = bench.task.folds[0]
        sides = [fold.train, fold.val, fold.test]
        columns += [Column(f"of {name}", "Patches of the split.", digits=0) for name in ("train", "val", "test")]
    rows: list[list[Cell]] = []
    for index, name in enumerate(bench.task.classes):
        own = truth == index
        cells = [count_names(column[own]) for column in counted]
        rows.append([name, int(own.sum()), *cells, *(int(own[side].sum()) for side in sides)])
    return Table("Patches by class", columns, rows)
