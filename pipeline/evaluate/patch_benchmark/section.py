"""The patch section: how well classes of patches are told apart by each model's embeddings.

Every model is probed in three ways on the same folds (or the split that comes with the data): a linear probe, its
nearest neighbours, and prototypes of a few examples. All are scored on the same patches and resamples of groups.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import Progress
from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.benchmark import Embeddings
from pipeline.evaluate.bootstrap import (
    GroupResamples,
    bound_note,
    class_mean_draws,
    difference,
    few_groups_note,
    interval,
)
from pipeline.evaluate.bootstrap_notes import resample_notes
from pipeline.evaluate.cka import Cka, cka_table, cka_with
from pipeline.evaluate.folds import Fold, given_split, group_folds
from pipeline.evaluate.patch_benchmark.data import PatchSet
from pipeline.evaluate.patch_benchmark.options import PatchOptions
from pipeline.evaluate.patch_benchmark.score import (
    KNN,
    LINEAR,
    PATCH_METRICS,
    PatchBench,
    ScoredModel,
    calibration_table,
    center_tables,
    composition_table,
    count_names,
    few_shot_tables,
    probe_differences,
    probe_tables,
)
from pipeline.evaluate.probes.calibration import calibration_of
from pipeline.evaluate.probes.few_shot import draw_examples, few_shot
from pipeline.evaluate.probes.linear_probe import knn_probe, linear_probe, probe_task
from pipeline.evaluate.probes.probe_report import PROBE_DATA, curve_data, curve_tables
from pipeline.evaluate.probes.probe_scores import probe_draws
from pipeline.evaluate.probes.protocols import linear_in_words, probe_protocol, protocol_in_words
from pipeline.features.cache import require_finite
from pipeline.report.content import Exclusion, Score, Section

KEY = "patches"


def patch_section(
    bench: PatchBench, embeddings: Embeddings, reference: str, exclusions: Sequence[Exclusion] = ()
) -> Section:
    """Probe models by label, whose `embeddings` (N, D) are of the bench's patches.

    Args:
        reference: label of the model that the others are compared with.
        exclusions: images that were left out of the set before.

    Raises:
        BenchmarkError: embeddings are not finite or zero.
    """
    patch_set = bench.patch_set
    for label, values in embeddings.items():
        assert len(values) == len(patch_set), f"{label}: {len(values)} embeddings of {len(patch_set)} patches"
        require_finite(label, values, "the patches")
    models = []
    with Progress("patch benchmark", len(embeddings), "models") as progress:
        for label, values in embeddings.items():
            models.append(score_model(label, values, bench))
            progress.step()
    choices = {model.label: model.probed[LINEAR].choices for model in models}
    ckas = cka_with(embeddings, reference, bench.groups, len(bench.resamples), bench.seed)
    return Section(
        key=KEY,
        title=f"Patch benchmark: {patch_set.name}",
        what=_what(bench),
        basis=_basis(bench),
        tables=[
            *probe_tables(models, bench),
            *curve_tables(choices, bench.task.protocol),
            *probe_differences(models, reference),
            calibration_table(models, bench),
            *cka_table(ckas, reference, bench.unit),
            *few_shot_tables(models, reference, bench),
            *center_tables(models, bench),
            composition_table(bench),
        ],
        scores=patch_scores(models, ckas, bench, reference),
        settings=_settings(bench, models, reference),
        source={"file": str(patch_set.source), "sha256 of names, classes, groups and splits": patch_set.hash()},
        exclusions=[*patch_set.exclusions, *exclusions],
        notes=_notes(models, bench),
        data={"spread_of_few_shot_draws": _spreads(models), PROBE_DATA: curve_data(choices, bench.task.protocol)},
    )


def patch_bench(patch_set: PatchSet, options: PatchOptions) -> PatchBench:
    """Folds, few-shot examples and resamples.

    Raises:
        BenchmarkError: the classes and groups allow none.
    """
    groups = patch_set.groups_or_own()
    seed = options.seed
    protocol = probe_protocol(options.protocol, "balanced_accuracy", options.probe_c)
    folds = _folds(patch_set, groups, options.folds, seed)
    task = probe_task(patch_set.labels, groups, folds, seed, protocol)
    return PatchBench(
        patch_set=patch_set,
        groups=groups,
        task=task,
        examples=draw_examples(task, options.draws, seed),
        scored=task.scored,
        resamples=GroupResamples(groups[task.scored], options.resamples, seed),
        knn=options.knn,
        draws=options.draws,
        seed=seed,
    )


def _folds(patch_set: PatchSet, groups: NDArray[np.str_], num_folds: int, seed: int) -> list[Fold]:
    """The set's own split, else folds by group.

    Raises:
        BenchmarkError: see `folds`.
    """
    if patch_set.splits is not None:
        return given_split(patch_set.labels, groups, patch_set.splits, str(patch_set.source))
    try:
        return group_folds(patch_set.labels, groups, num_folds, seed)
    except BenchmarkError as error:
        raise BenchmarkError(f"{patch_set.source}: {error}") from None


def score_model(label: str, embeddings: NDArray[np.float32], bench: PatchBench) -> ScoredModel:
    """All probes of one model.

    Raises:
        BenchmarkError: an embedding is zero; names the model.
    """
    task, scored = bench.task, bench.scored
    truth = task.truth[scored]
    try:
        probed = {LINEAR: linear_probe(embeddings, task), KNN: knn_probe(embeddings, task, bench.knn)}
        draws = {name: probe_draws(task, result, scored, bench.resamples) for name, result in probed.items()}
        calibration = {
            name: calibration_of(result, task, bench.resamples, is_scaled=name == LINEAR)
            for name, result in probed.items()
        }
    except BenchmarkError as error:
        raise BenchmarkError(f"{label}: {error}") from None
    few = {result.shots: result for result in few_shot(embeddings, task, bench.examples)}
    few_draws = {shots: class_mean_draws(truth, f.right[scored], bench.resamples) for shots, f in few.items()}
    return ScoredModel(label, probed, draws, few, few_draws, calibration)


def patch_scores(
    models: Sequence[ScoredModel], ckas: Mapping[str, Cka], bench: PatchBench, reference: str
) -> list[Score]:
    """Balanced accuracy of the linear probe; then what the paper's tables have: accuracy of kNN, AUROC of the linear
    probe, and CKA with the reference.
    """
    num_classes = len(np.unique(bench.task.truth[bench.scored]))
    shown = ((LINEAR, "balanced_accuracy", 1 / num_classes), (KNN, "accuracy", None), (LINEAR, "auroc", 0.5))
    scores = []
    for probe, metric, chance in shown:
        draws = {model.label: model.draws[probe][metric] for model in models}
        others = [label for label in draws if label != reference]
        scores.append(
            Score(
                name=f"{bench.patch_set.name}, {PATCH_METRICS[metric][0]} ({probe})",
                values={label: interval(of_model) for label, of_model in draws.items()},
                chance=chance,
                differences={label: difference(draws[label], draws[reference]) for label in others},
            )
        )
    alike = {label: interval(cka.debiased) for label, cka in ckas.items() if np.isfinite(cka.debiased.value)}
    return [*scores, *([Score(f"{bench.patch_set.name}, CKA with {reference}", alike)] if alike else [])]


def _what(bench: PatchBench) -> str:
    """What is measured, for the section's head."""
    num_folds = len(bench.task.folds)
    kept = "" if bench.patch_set.groups is None else f" that never share a {bench.unit[:-1]}"
    how = f"in {num_folds} folds{kept}" if num_folds > 1 else "on the test part of the given split"
    return (
        f"{len(bench.task.classes)} classes of patches are told apart from each model's embeddings, {how}. The linear "
        f"probe is {linear_in_words(bench.task.protocol)}; kNN lets the {bench.knn} "
        f"nearest training patches (cosine) vote{_votes(bench)}; few-shot takes the class whose mean "
        f"of a few examples is nearest. Intervals: 95 %, from a bootstrap over {bench.unit}, the same draws for all "
        f"models; they do not cover the spread of training again. {protocol_in_words(bench.task.protocol)}"
    )


def _votes(bench: PatchBench) -> str:
    """How votes of kNN weigh, in words."""
    return ", votes of rarer classes weighing more" if bench.task.protocol.is_balanced else ""


def _basis(bench: PatchBench) -> dict[str, int]:
    """What the numbers rest on; with a given split, of each side."""
    patch_set, has_groups = bench.patch_set, bench.patch_set.groups is not None
    basis = {"patches": len(patch_set)}
    for words in ("slides", "cases", "patients", "groups"):
        if words in patch_set.within:
            basis[words] = count_names(patch_set.within[words])
        elif has_groups and words == bench.unit:
            basis[words] = len(np.unique(bench.groups))
    if patch_set.centers is not None:
        basis["centres"] = count_names(patch_set.centers)
    basis["classes"] = len(bench.task.classes)
    if patch_set.splits is not None:
        fold = bench.task.folds[0]
        sides = {"to train on": fold.train, "to choose settings by": fold.val, "scored": fold.test}
        for words, rows in sides.items():
            if len(rows):
                basis[f"patches {words}"] = len(rows)
                if has_groups:
                    basis[f"{bench.unit} {words}"] = len(np.unique(bench.groups[rows]))
                basis |= {f"{what} {words}": count_names(names[rows]) for what, names in patch_set.within.items()}
    return basis


def _spreads(models: Sequence[ScoredModel]) -> dict[str, dict[str, float]]:
    """Standard deviation over draws of the few-shot balanced accuracy, by model and examples a class."""
    return {m.label: {str(shots): float(np.std(f.by_draw)) for shots, f in m.few.items()} for m in models}


def _settings(bench: PatchBench, models: Sequence[ScoredModel], reference: str) -> dict[str, object]:
    """What the numbers depend on."""
    return {
        "folds": len(bench.task.folds) if bench.patch_set.splits is None else "the given split",
        "group column": bench.patch_set.group_column or "none",
        "knn": bench.knn,
        "draws": bench.draws,
        "resamples": len(bench.resamples),
        "seed": bench.seed,
        "reference": reference,
        "linear_probe": bench.task.protocol.record(),
        "regularisation_by_fold": {model.label: list(model.probed[LINEAR].strengths) for model in models},
    }


def _notes(models: Sequence[ScoredModel], bench: PatchBench) -> list[str]:
    """What a reader must know about how the scores came about."""
    num_groups = bench.resamples.num_groups
    estimates = {}
    for model in models:
        for probe, by_metric in model.draws.items():
            estimates[f"{model.label}, {probe}"] = [interval(draws) for draws in by_metric.values()]
        estimates[f"{model.label}, few-shot"] = [interval(draws) for draws in model.few_draws.values()]
    notes = [*bench.patch_set.notes()]
    notes += filter(None, [few_groups_note(num_groups, bench.unit), bound_note(estimates)])
    notes += [*bench.task.notes, *bench.examples.notes]
    by_model = [(f"{m.label}, {name}", probed.notes) for m in models for name, probed in m.probed.items()]
    notes += [f"{who}: {note}" for who, of_model in by_model for note in of_model]
    task, scored = bench.task, bench.scored
    scored_rows = (task.truth[scored], bench.groups[scored], task.parts[scored])
    notes += resample_notes(models[0].draws[LINEAR], *scored_rows, task.classes, bench.unit)
    missing = [name for i, name in enumerate(bench.task.classes) if not np.any(bench.task.truth[bench.scored] == i)]
    if missing:
        notes.append(f"No scored patch is of {', '.join(repr(name) for name in missing)}; the means leave these out.")
    return notes
