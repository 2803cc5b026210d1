"""The patch part of an evaluation: how well classes of patches are told apart from each model's embeddings.

Every model is probed in three ways on the same folds (or the split that the data bring): a linear probe, its nearest
neighbours, and prototypes of a few examples. All are scored on the same patches and the same resamples of groups.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config import EvaluateConfig
from pipeline.embedding_cache import require_finite
from pipeline.errors import BenchmarkError
from pipeline.few_shot import Examples, FewShot, draw_examples, few_shot
from pipeline.folds import Fold, given_split, group_folds
from pipeline.intervals import (
    Draws,
    GroupResamples,
    class_mean_draws,
    classification_draws,
    difference,
    interval,
)
from pipeline.patch_sets import PatchSet
from pipeline.probes import STRENGTHS, Probed, ProbeTask, knn_probe, linear_probe, probe_task
from pipeline.report import Cell, Column, Exclusion, Interval, Score, Section, Table
from pipeline.runlog import Progress

KEY = "patches"
LINEAR, KNN = "linear probe", "kNN"
"""The probes, as the tables name them."""
METRICS = {
    "balanced_accuracy": ("balanced accuracy", "Mean over the classes of the share of their patches that is recognised; "
                          "one over the number of classes is a guess."),
    "macro_f1": ("macro F1", "Mean over the classes of the harmonic mean of precision and recall."),
    "auroc": ("AUROC", "Area under the ROC curve: the chance that a patch of a class gets a larger probability of it "
              "than a patch of another class in the same fold; 0.5 is a guess. With more than two classes their mean."),
}  # fmt: skip
"""Key of `classification_draws`, the column's name and what it is."""
GROUP_WORDS = {"case_id": "cases", "case": "cases", "slide_id": "slides", "group": "groups", "": "patches"}
"""What the groups of a column are called."""
PAIRED_NOTE = (
    "Paired: both are scored on the same patches and resamples. An interval that covers 0 shows no difference."
)
FEW_GROUPS = 10
"""Percentile intervals from fewer groups are narrower than they say, and a note says so. Our choice."""

Embeddings = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Bench:
    """What all models are scored on, alike: rows that are scored, and resamples of these."""

    patch_set: PatchSet
    groups: NDArray[np.str_]
    task: ProbeTask
    examples: Examples
    scored: NDArray[np.int64]
    resamples: GroupResamples

    @property
    def unit(self) -> str:
        """What is resampled, in the plural."""
        return GROUP_WORDS[self.patch_set.group_column]


@dataclass(frozen=True, eq=False)
class ScoredModel:
    """One model: what the probes said and how good that is; few-shot by the number of examples a class."""

    label: str
    probed: dict[str, Probed]
    draws: dict[str, dict[str, Draws]]
    few: dict[int, FewShot]
    few_draws: dict[int, Draws]


def patch_section(
    patch_set: PatchSet,
    embeddings: Embeddings,
    config: EvaluateConfig,
    reference: str,
    exclusions: Sequence[Exclusion] = (),
) -> Section:
    """Probe models by label, whose `embeddings` (N, D) are of the set's patches.

    Args:
        reference: label of the model that the others are compared with.
        exclusions: images that were left out of the set before.

    Raises:
        BenchmarkError: embeddings hold what is no number or are zero, or the set's classes and groups allow no folds.
    """
    for label, values in embeddings.items():
        assert len(values) == len(patch_set), f"{label}: {len(values)} embeddings of {len(patch_set)} patches"
        require_finite(label, values, "the patches")
    bench = prepare(patch_set, config)
    models = []
    with Progress("patch benchmark", len(embeddings), "models") as progress:
        for label, values in embeddings.items():
            models.append(score_model(label, values, bench, config))
            progress.step()
    linear = {model.label: interval(model.draws[LINEAR]["balanced_accuracy"]) for model in models}
    num_classes = len(np.unique(bench.task.truth[bench.scored]))
    return Section(
        key=KEY,
        title=f"Patch benchmark: {patch_set.name}",
        what=_what(bench, config),
        basis=_basis(bench),
        tables=[
            *_probe_tables(models, config),
            *_difference_tables(models, reference),
            *_few_shot_tables(models, reference, bench),
            *_center_tables(models, bench, config),
            _composition_table(bench),
        ],
        scores=[Score(f"{patch_set.name}, balanced accuracy ({LINEAR})", linear, chance=1 / num_classes)],
        settings=_settings(config, bench, models, reference),
        source={"file": str(patch_set.source), "sha256 of names, classes, groups and splits": patch_set.hash()},
        exclusions=exclusions,
        notes=_notes(models, bench),
        data={"spread_of_few_shot_draws": _spreads(models)},
    )


def prepare(patch_set: PatchSet, config: EvaluateConfig) -> Bench:
    """Folds, few-shot examples and resamples.

    Raises:
        BenchmarkError: the classes and groups allow none.
    """
    groups = patch_set.groups_or_own()
    task = probe_task(patch_set.labels, groups, _folds(patch_set, groups, config), config.seed)
    scored = task.scored
    resamples = GroupResamples(groups[scored], config.resamples, config.seed)
    return Bench(patch_set, groups, task, draw_examples(task, config.draws, config.seed), scored, resamples)


def _folds(patch_set: PatchSet, groups: NDArray[np.str_], config: EvaluateConfig) -> list[Fold]:
    """The set's own split, else folds by group.

    Raises:
        BenchmarkError: see `folds`.
    """
    if patch_set.splits is not None:
        return given_split(patch_set.labels, groups, patch_set.splits, str(patch_set.source))
    try:
        return group_folds(patch_set.labels, groups, config.folds, config.seed)
    except BenchmarkError as error:
        raise BenchmarkError(f"{patch_set.source}: {error}") from None


def score_model(label: str, embeddings: NDArray[np.float32], bench: Bench, config: EvaluateConfig) -> ScoredModel:
    """All probes of one model.

    Raises:
        BenchmarkError: an embedding is zero; names the model.
    """
    task, scored = bench.task, bench.scored
    truth = task.truth[scored]
    try:
        probed = {LINEAR: linear_probe(embeddings, task), KNN: knn_probe(embeddings, task, config.knn)}
        draws = {
            name: classification_draws(truth, found.probabilities[scored], bench.resamples, task.parts[scored])
            for name, found in probed.items()
        }
    except BenchmarkError as error:
        raise BenchmarkError(f"{label}: {error}") from None
    few = {found.shots: found for found in few_shot(embeddings, task, bench.examples)}
    few_draws = {shots: class_mean_draws(truth, f.right[scored], bench.resamples) for shots, f in few.items()}
    return ScoredModel(label, probed, draws, few, few_draws)


def _what(bench: Bench, config: EvaluateConfig) -> str:
    """What is measured, for the section's head."""
    num_folds = len(bench.task.folds)
    kept = "" if bench.patch_set.groups is None else f" that never share a {bench.unit[:-1]}"
    how = f"in {num_folds} folds{kept}" if num_folds > 1 else "on the test part of the given split"
    return (
        f"{len(bench.task.classes)} classes of patches are told apart from each model's embeddings, {how}. The linear "
        "probe is a logistic regression on standardised features, whose regularisation is chosen within the training "
        f"part; kNN lets the {config.knn} nearest training patches (cosine) vote; few-shot takes the class whose mean "
        f"of a few examples is nearest. Intervals: 95 %, from a bootstrap over {bench.unit}, the same draws for all "
        "models; they do not cover the spread of training again."
    )


def _basis(bench: Bench) -> dict[str, int]:
    """What the numbers rest on; with a given split, of each side."""
    patch_set, has_groups = bench.patch_set, bench.patch_set.groups is not None
    basis = {"patches": len(patch_set)}
    if has_groups:
        basis[bench.unit] = len(np.unique(bench.groups))
    if patch_set.centers is not None:
        basis["centres"] = len(np.unique(patch_set.centers))
    basis["classes"] = len(bench.task.classes)
    if patch_set.splits is not None:
        fold = bench.task.folds[0]
        sides = {"to train on": fold.train, "to choose settings by": fold.val, "scored": fold.test}
        for words, rows in sides.items():
            if len(rows):
                basis[f"patches {words}"] = len(rows)
                if has_groups:
                    basis[f"{bench.unit} {words}"] = len(np.unique(bench.groups[rows]))
    return basis


def _probe_tables(models: Sequence[ScoredModel], config: EvaluateConfig) -> list[Table]:
    """The metrics of each model, a table a probe."""
    columns = [Column("model"), *(Column(name, what, better="higher") for name, what in METRICS.values())]
    rows: dict[str, list[list[Cell]]] = {
        probe: [[model.label, *(interval(model.draws[probe][key]) for key in METRICS)] for model in models]
        for probe in (LINEAR, KNN)
    }
    strength = Column(
        "C", f"Inverse strength of the regularisation that was chosen, of {len(STRENGTHS)} from {STRENGTHS[0]:g} to "
        f"{STRENGTHS[-1]:g}: once if all folds agree, else of each fold."
    )  # fmt: skip
    linear = [[*row, _strengths(model)] for row, model in zip(rows[LINEAR], models, strict=True)]
    return [
        Table("Linear probe", [*columns, strength], linear),
        Table(f"kNN, {config.knn} neighbours", columns, rows[KNN]),
    ]


def _strengths(model: ScoredModel) -> str:
    """The chosen strengths in words."""
    chosen = model.probed[LINEAR].strengths
    return f"{chosen[0]:g}" if len(set(chosen)) == 1 else ", ".join(f"{strength:g}" for strength in chosen)


def _difference_tables(models: Sequence[ScoredModel], reference: str) -> list[Table]:
    """Each model less the reference, on the same resamples; none if there is one model."""
    base = next(model for model in models if model.label == reference)
    rows: list[list[Cell]] = [
        [model.label, probe, *(difference(model.draws[probe][key], base.draws[probe][key]) for key in METRICS)]
        for model in models
        if model is not base
        for probe in (LINEAR, KNN)
    ]
    columns = [
        Column("model"),
        Column("probe"),
        *(
            Column(name, f"That of the model less that of {reference}.", better="higher")
            for name, _ in METRICS.values()
        ),
    ]
    return [Table(f"Difference from {reference}", columns, rows, PAIRED_NOTE)] if rows else []


def _few_shot_tables(models: Sequence[ScoredModel], reference: str, bench: Bench) -> list[Table]:
    """Balanced accuracy by the number of examples, and differences from the reference."""
    shots = bench.examples.shots
    if not shots:
        return []
    base = next(model for model in models if model.label == reference)

    def rows(cell: Callable[[ScoredModel, int], Interval], chosen: Sequence[ScoredModel]) -> list[list[Cell]]:
        return [[model.label, *(cell(model, count) for count in shots)] for model in chosen]

    columns = [
        Column("model"),
        *(Column(f"{count} a class", f"Balanced accuracy with {count} example{'s' * (count > 1)} of each class.",
                 better="higher") for count in shots),
    ]  # fmt: skip
    num_draws = len(bench.examples.rows[0])
    note = (
        f"Mean over {num_draws} draw{'s' * (num_draws > 1)} of examples from the training part, the same for all models. "
        f"Intervals are over {bench.unit}, with the draws held fixed; the spread of single draws is in report.json."
    )
    tables = [Table("Few-shot prototypes", columns, rows(lambda m, n: interval(m.few_draws[n]), models), note)]
    others = [model for model in models if model is not base]
    if others:
        cells = rows(lambda m, n: difference(m.few_draws[n], base.few_draws[n]), others)
        tables.append(Table(f"Few-shot prototypes, difference from {reference}", columns, cells, PAIRED_NOTE))
    return tables


def _spreads(models: Sequence[ScoredModel]) -> dict[str, dict[str, float]]:
    """Standard deviation over draws of the few-shot balanced accuracy, by model and examples a class."""
    return {m.label: {str(shots): float(np.std(f.by_draw)) for shots, f in m.few.items()} for m in models}


def _center_tables(models: Sequence[ScoredModel], bench: Bench, config: EvaluateConfig) -> list[Table]:
    """Balanced accuracy of the linear probe in each centre; none if there are fewer than two."""
    centers = bench.patch_set.centers
    if centers is None or len(np.unique(centers[bench.scored])) < 2:
        return []
    rows: list[list[Cell]] = []
    for center in np.unique(centers[bench.scored]):
        inside = bench.scored[centers[bench.scored] == center]
        truth, groups = bench.task.truth[inside], bench.groups[inside]
        resamples = GroupResamples(groups, config.resamples, config.seed)
        counts = [len(inside), len(np.unique(groups)), len(np.unique(truth))]
        for model in models:
            right = (model.probed[LINEAR].probabilities[inside].argmax(1) == truth).astype(np.float64)
            rows.append([str(center), model.label, *counts, interval(class_mean_draws(truth, right, resamples))])
    columns = [
        Column("centre"),
        Column("model"),
        Column("scored patches", digits=0),
        Column(f"resampled {bench.unit}", "What the interval rests on.", digits=0),
        Column("classes", "Classes that the centre has; the mean is over these.", digits=0),
        Column("balanced accuracy", METRICS["balanced_accuracy"][1]),
    ]
    note = "Centres differ in their classes and in how hard their patches are: compare models, not centres."
    return [Table("Linear probe by centre", columns, rows, note)]


def _composition_table(bench: Bench) -> Table:
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
        cells = [len(np.unique(column[own])) for column in counted]
        rows.append([name, int(own.sum()), *cells, *(int(own[side].sum()) for side in sides)])
    return Table("Patches by class", columns, rows)


def _settings(config: EvaluateConfig, bench: Bench, models: Sequence[ScoredModel], reference: str) -> dict[str, object]:
    """What the numbers depend on."""
    return {
        "folds": len(bench.task.folds) if bench.patch_set.splits is None else "the given split",
        "group column": bench.patch_set.group_column or "none",
        "knn": config.knn,
        "draws": config.draws,
        "resamples": config.resamples,
        "seed": config.seed,
        "reference": reference,
        "regularisation_by_fold": {model.label: list(model.probed[LINEAR].strengths) for model in models},
    }


def _notes(models: Sequence[ScoredModel], bench: Bench) -> list[str]:
    """What a reader must know about how the scores came about."""
    notes = []
    num_groups = bench.resamples.num_groups
    if bench.patch_set.groups is None:
        notes.append(
            "The data do not say which patches belong together: folds and intervals take every patch for independent. "
            "If patches of one case are on both sides, all scores are too high and all intervals too narrow."
        )
    if num_groups < 2:
        notes.append(f"All scored patches are of one of the {bench.unit}: no interval can be given.")
    elif num_groups < FEW_GROUPS:
        notes.append(f"Intervals rest on {num_groups} {bench.unit} only, and are rather too narrow.")
    notes += [*bench.task.notes, *bench.examples.notes]
    by_model = [(f"{m.label}, {name}", found.notes) for m in models for name, found in m.probed.items()]
    notes += [f"{who}: {note}" for who, found in by_model for note in found]
    dropped = max(draws.num_dropped for draws in models[0].draws[LINEAR].values())
    if dropped and num_groups >= 2:
        notes.append(
            f"{dropped:,} of {len(bench.resamples):,} resamples lack a class; no interval counts them, and none is given "
            "where they are more than half."
        )
    missing = [name for i, name in enumerate(bench.task.classes) if not np.any(bench.task.truth[bench.scored] == i)]
    if missing:
        notes.append(f"No scored patch is of {', '.join(repr(name) for name in missing)}; the means leave these out.")
    return notes
