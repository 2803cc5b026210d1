"""The slide section: how well labels of cases, such as TP53 status, are predicted from feature files.

For each feature set three predictors are trained on the same folds: attention MIL, and logistic regression and kNN on
the mean of a case's patches. Cases are scored by the fold that did not see them, and all feature sets on the same
cases.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pipeline.disk.files import sha256_file
from pipeline.evaluate.bootstrap import (
    READ_DIFFERENCES,
    Draws,
    GroupResamples,
    bound_note,
    difference,
    few_groups_note,
    interval,
)
from pipeline.evaluate.bootstrap_notes import resample_notes
from pipeline.evaluate.probes import attention_mil as mil
from pipeline.evaluate.probes.calibration import Calibration, calibration_of
from pipeline.evaluate.probes.calibration_report import calibration_cells, calibration_columns, calibration_note
from pipeline.evaluate.probes.linear_probe import Probed, ProbeTask, probe_task
from pipeline.evaluate.probes.probe_report import PROBE_DATA, curve_data, curve_tables
from pipeline.evaluate.probes.probe_scores import probe_draws
from pipeline.evaluate.probes.protocols import linear_in_words, probe_protocol, protocol_in_words
from pipeline.evaluate.slide_benchmark.bags import MOST_NAMED, Bag, SlideSet
from pipeline.evaluate.slide_benchmark.options import SlideOptions
from pipeline.evaluate.slide_benchmark.score import (
    Survey,
    SurveyedSlides,
    attention_mil,
    mean_neighbours,
    mean_pool,
    slide_folds,
)
from pipeline.report.content import Cell, Column, Interval, ReportModel, Score, Section, Table

KEY = "slides"
MIL, MEAN, NEIGHBOURS = "attention MIL", "mean embedding", "kNN of the mean"
"""The predictors, as the tables name them."""
METRICS = {
    "auroc": (
        "AUROC",
        "Area under the ROC curve: the chance that a case of a class gets a larger probability of it "
        "than a case of another class in the same fold; 0.5 is a guess. With more than two classes their mean.",
    ),
    "balanced_accuracy": (
        "balanced accuracy",
        "Mean over the classes of the share of their cases that is recognised; "
        "one over the number of classes is a guess.",
    ),
    "accuracy": (
        "accuracy",
        "Share of the cases that are recognised, so that frequent classes count more; the share of the most frequent "
        "class is a guess.",
    ),
    "macro_f1": ("macro F1", "Mean over the classes of the harmonic mean of precision and recall."),
}
"""Key of `probe_draws`, the column's name and what it is."""


@dataclass(frozen=True)
class Prediction:
    """The predictions of one predictor from one feature set, and their scores."""

    model: str
    predictor: str
    probed: Probed
    draws: Mapping[str, Draws]
    calibration: Calibration

    def intervals(self) -> list[Interval]:
        """By the order of `METRICS`."""
        return [interval(self.draws[key]) for key in METRICS]


@dataclass(frozen=True, eq=False)
class SlideBench:
    """What all feature sets are scored on, alike.

    Attributes:
        surveyed: bags and feature sets.
        task: classes and folds.
        resamples: of the cases of the scored bags.
        epochs: of attention MIL.
        knn: neighbours of kNN.
        seed: of folds, resamples and training.
    """

    surveyed: SurveyedSlides
    task: ProbeTask
    resamples: GroupResamples
    epochs: int
    knn: int
    seed: int


def slide_bench(surveyed: SurveyedSlides, options: SlideOptions) -> SlideBench:
    """Folds and resamples.

    Raises:
        BenchmarkError: the classes and cases allow none.
    """
    slide_set = surveyed.slide_set
    protocol = probe_protocol(options.protocol, "auroc", options.probe_c)
    folds = slide_folds(slide_set, options.folds, options.seed)
    task = probe_task(slide_set.labels, slide_set.cases, folds, options.seed, protocol)
    resamples = GroupResamples(slide_set.cases[task.scored], options.resamples, options.seed)
    epochs = options.mil_epochs or mil.default_epochs(folds)
    return SlideBench(surveyed, task, resamples, epochs, options.knn, options.seed)


def slide_section(bench: SlideBench, reference: str | None, device: torch.device) -> Section:
    """Train and score the predictors on every feature set. `reference` is the label of the one that the others are
    compared with; `None`: the first.

    Raises:
        BenchmarkError: training diverged, or a feature file is no longer as it was.
    """
    slide_set, surveys, task = bench.surveyed.slide_set, bench.surveyed.surveys, bench.task
    labels = [label for label, _ in bench.surveyed.features]
    compared = reference if reference in labels else labels[0]
    predictions = predict(bench, device)
    choices = {p.model: p.probed.choices for p in predictions if p.predictor == MEAN}
    return Section(
        key=KEY,
        title=f"Slide benchmark: {slide_set.label}",
        what=_what(slide_set, task),
        basis=_basis(slide_set, surveys[compared], task),
        tables=[
            _score_table(predictions, slide_set, task),
            *_difference_tables(predictions, compared),
            _calibration_table(predictions, task),
            *(replace(table, title=f"{MEAN}, by C") for table in curve_tables(choices, task.protocol)),
            *_center_tables(predictions, bench),
            _composition_table(slide_set),
            _feature_table(slide_set, surveys),
        ],
        scores=_scores(predictions, slide_set.label, compared),
        settings=_settings(bench, predictions, compared),
        source=_source(slide_set, bench.surveyed.features, surveys),
        exclusions=slide_set.exclusions,
        notes=[*slide_set.notes, *task.notes, *_notes(slide_set, task, predictions)],
        data={"predictions": _records(slide_set, task, predictions), PROBE_DATA: curve_data(choices, task.protocol)},
    )


def predict(bench: SlideBench, device: torch.device) -> list[Prediction]:
    """All predictors on every feature set, scored on the same resamples of cases."""
    slide_set, task = bench.surveyed.slide_set, bench.task
    predictions = []
    for model, surveyed in bench.surveyed.surveys.items():
        by_predictor = {
            MIL: attention_mil(slide_set, model, surveyed, task, bench.epochs, bench.seed, device),
            MEAN: mean_pool(slide_set, surveyed, task),
            NEIGHBOURS: mean_neighbours(slide_set, surveyed, task, bench.knn),
        }
        for predictor, probed in by_predictor.items():
            draws = probe_draws(task, probed, task.scored, bench.resamples)
            calibration = calibration_of(probed, task, bench.resamples, is_scaled=predictor != NEIGHBOURS)
            predictions.append(Prediction(model, predictor, probed, draws, calibration))
    return predictions


def _what(slide_set: SlideSet, task: ProbeTask) -> str:
    """What is measured, for the section's head."""
    how = f"in {len(task.folds)} folds that never share a case" if len(task.folds) > 1 else "by the split of the CSV"
    return (
        f"{slide_set.label} of each {slide_set.unit} ({', '.join(task.classes)}) is predicted from the embeddings of "
        f"its patches, {how}. Attention MIL (Ilse et al., 2018) learns which patches count; the mean embedding with "
        f"a linear probe or kNN takes all alike. The linear probe is {linear_in_words(task.protocol)}. All feature "
        "sets are scored on the same cases. Intervals: 95 %, from a bootstrap over cases; they do not cover the spread "
        f"of training again. {protocol_in_words(task.protocol)} {MIL[0].upper()}{MIL[1:]} and kNN are G2L's under "
        "every protocol."
    )


def _basis(slide_set: SlideSet, surveyed: Survey, task: ProbeTask) -> dict[str, int]:
    """What the numbers rest on; patches are those of one feature set, others may have cut theirs differently."""
    counts = {
        "patches": sum(surveyed.moments[slide].count for slide in slide_set.slides),
        "slides": len(slide_set.slides),
        "cases": len(set(slide_set.cases.tolist())),
        "centres": len({center for bag in slide_set.bags for center in bag.centers}),
    }
    if len(task.folds) == 1:
        fold = task.folds[0]
        for words, rows in {"to train on": fold.train, "to choose by": fold.val, "scored": fold.test}.items():
            side = [slide_set.bags[row] for row in rows]
            if side:
                slides = [slide for bag in side for slide in bag.slides]
                counts[f"patches {words}"] = sum(surveyed.moments[slide].count for slide in slides)
                counts[f"slides {words}"] = len(slides)
                counts[f"cases {words}"] = len({bag.case_id for bag in side})
    return counts


def _score_table(predictions: Sequence[Prediction], slide_set: SlideSet, task: ProbeTask) -> Table:
    """One line a feature set and predictor."""
    rows: list[list[Cell]] = [[p.model, p.predictor, *p.intervals()] for p in predictions]
    columns = [Column(name, what, better="higher") for name, what in METRICS.values()]
    note = (
        f"{MIL} and logistic regression weigh cases so that all classes count alike."
        if task.protocol.regression_is_balanced
        else f"{MIL} weighs cases so that all classes count alike, logistic regression does not: compare the two by "
        "AUROC, and the other metrics among feature sets."
    )
    what = (
        f"{MIL}: learns which patches count. {MEAN}: the linear probe on the mean of them. {NEIGHBOURS}: votes of the "
        "cases whose means are nearest."
    )
    return Table(f"{slide_set.label}, predicted", [*_heads(what), *columns], rows, note)


def _difference_tables(predictions: Sequence[Prediction], compared: str) -> list[Table]:
    """Each feature set less the reference, on the same resamples; none if there is one set."""
    reference = {p.predictor: p.draws for p in predictions if p.model == compared}
    rows: list[list[Cell]] = [
        [p.model, p.predictor, *(difference(p.draws[key], reference[p.predictor][key]) for key in METRICS)]
        for p in predictions
        if p.model != compared
    ]
    columns = [*_heads(), *(Column(name) for name, _ in METRICS.values())]
    note = f"Value less that of {compared}, paired: both are scored on the same resampled cases. {READ_DIFFERENCES}"
    return [Table(f"Difference from {compared}", columns, rows, note)] if rows else []


def _calibration_table(predictions: Sequence[Prediction], task: ProbeTask) -> Table:
    """How far the predictors' confidence is from the share that is right, before and after temperature scaling."""
    rows: list[list[Cell]] = [[p.model, p.predictor, *calibration_cells(p.calibration)] for p in predictions]
    return Table("Calibration", [*_heads(), *calibration_columns()], rows, calibration_note(task))


def _center_tables(predictions: Sequence[Prediction], bench: SlideBench) -> list[Table]:
    """AUROC within each centre that has all classes; none if there are fewer than two centres. What is of several
    centres is in no row.
    """
    slide_set, task = bench.surveyed.slide_set, bench.task
    bags = [slide_set.bags[row] for row in task.scored]
    centers = np.array([bag.center if len(bag.centers) == 1 else "" for bag in bags], dtype=np.str_)
    names = sorted(set(centers.tolist()) - {""})
    rows: list[list[Cell]] = []
    for name in names:
        inside = task.scored[centers == name]
        cases = slide_set.cases[inside]
        if len(np.unique(task.truth[inside])) < len(task.classes):
            continue
        case_resamples = GroupResamples(cases, len(bench.resamples), bench.seed)
        for p in predictions:
            draws = probe_draws(task, p.probed, inside, case_resamples)
            rows.append([name, p.model, p.predictor, len(np.unique(cases)), interval(draws["auroc"])])
    columns = [
        Column("centre"),
        *_heads(),
        Column("cases", "Scored cases of the centre.", digits=0),
        Column("AUROC", "Within the centre: how well its own cases are told apart.", better="higher"),
    ]
    shown = len({str(row[0]) for row in rows})
    notes = (
        [f"{len(names) - shown} of {len(names)} centres lack a class and have no AUROC."] if shown < len(names) else []
    )
    if several := sum(len(bag.centers) > 1 for bag in bags):
        notes.append(f"{several:,} of {len(bags):,} {slide_set.unit}s are of several centres and in no row.")
    return [Table("AUROC by centre", columns, rows, " ".join(notes))] if len(names) > 1 and rows else []


def _composition_table(slide_set: SlideSet) -> Table:
    """Cases and slides by class and centre."""
    parts: dict[tuple[str, str], list[Bag]] = {}
    for bag in slide_set.bags:
        parts.setdefault((bag.label, bag.center), []).append(bag)
    rows: list[list[Cell]] = [
        [label, center or None, len({bag.case_id for bag in bags}), sum(len(bag.slides) for bag in bags)]
        for (label, center), bags in sorted(parts.items())
    ]
    columns = [Column(slide_set.label), Column("centre"), Column("cases", digits=0), Column("slides", digits=0)]
    return Table("Cases and slides", columns, rows)


def _feature_table(slide_set: SlideSet, surveys: Mapping[str, Survey]) -> Table:
    """What each feature set holds."""
    rows: list[list[Cell]] = []
    for model, surveyed in surveys.items():
        counts = [surveyed.moments[slide].count for slide in slide_set.slides]
        rows.append([model, surveyed.encoder, surveyed.width, sum(counts), float(np.median(counts)), min(counts)])
    columns = [
        Column("features"),
        Column("encoder", "As the files name it."),
        Column("width", "Numbers an embedding.", digits=0),
        Column("patches", "Of all slides that are used.", digits=0),
        Column("median", "Patches of the middle slide.", digits=0),
        Column("fewest", "Patches of the slide with the fewest.", digits=0),
    ]
    return Table("Feature sets", columns, rows)


def feature_sets(surveyed: SurveyedSlides) -> tuple[ReportModel, ...]:
    """What each feature set is, for a report without models: its folder, and the encoder as the files name it (`None`
    if they do not); `sha256` is over the files of the slides that are used.
    """
    slides = surveyed.slide_set.slides
    sets = []
    for label, folder in surveyed.features:
        survey = surveyed.surveys[label]
        record = {
            "features": os.path.basename(os.path.realpath(folder)),
            "encoder": survey.encoder,
            "width": survey.width,
            "slides": len(slides),
            "sha256": survey.hash_of(slides),
        }
        sets.append(ReportModel(label, "", record, num_params=0))
    return tuple(sets)


def _scores(predictions: Sequence[Prediction], label: str, compared: str) -> list[Score]:
    """The headline: AUROC of attention MIL; then its accuracy."""
    scores = []
    for metric, chance in (("auroc", 0.5), ("accuracy", None)):
        draws = {p.model: p.draws[metric] for p in predictions if p.predictor == MIL}
        values = {model: interval(of_model) for model, of_model in draws.items()}
        less = {model: difference(of_model, draws[compared]) for model, of_model in draws.items() if model != compared}
        name = f"{label}, {METRICS[metric][0]} ({MIL})"
        scores.append(Score(name, values, chance=chance, differences=less, reference=compared))
    return scores


def _heads(what: str = "") -> list[Column]:
    """The columns that say which features and which predictor; the first table says `what` the predictors are."""
    return [Column("features"), Column("predictor", what)]


def _settings(bench: SlideBench, predictions: Sequence[Prediction], compared: str) -> dict[str, object]:
    """What the numbers depend on."""
    slide_set = bench.surveyed.slide_set
    return {
        "label": slide_set.label,
        "folds": "the CSV's split" if slide_set.has_split else len(bench.task.folds),
        "seed": bench.seed,
        "resamples": len(bench.resamples),
        "reference": compared,
        "attention_mil": {
            "epochs": bench.epochs,
            "hidden": mil.HIDDEN,
            "attention": mil.ATTENTION,
            "dropout": mil.DROPOUT,
            "peak_lr": mil.PEAK_LR,
            "weight_decay": mil.WEIGHT_DECAY,
            "patches_a_step": mil.BAG_PATCHES,
        },
        "mean_embedding": bench.task.protocol.record(),
        "knn": bench.knn,
        "regularisation_by_fold": {p.model: list(p.probed.strengths) for p in predictions if p.predictor == MEAN},
    }


def _source(slide_set: SlideSet, features: Sequence[tuple[str, Path]], surveys: Mapping[str, Survey]) -> dict[str, str]:
    """Names and hashes of the label file and of the feature files that were used."""
    source = {"labels": slide_set.path.name, "labels sha256": sha256_file(slide_set.path)}
    for model, folder in features:
        source[f"features {model}"] = os.path.basename(os.path.realpath(folder))
        source[f"features {model} sha256"] = surveys[model].hash_of(slide_set.slides)
    return source


def _notes(slide_set: SlideSet, task: ProbeTask, predictions: Sequence[Prediction]) -> list[str]:
    """What a reader must know about how the scores came about."""
    notes = [f"{p.model}, {p.predictor}: {note}" for p in predictions for note in p.probed.notes]
    num_val = sum(len(fold.val) for fold in task.folds)
    if num_val and task.protocol.is_fixed:
        notes.append(
            f"{num_val} {slide_set.unit}s of the split val are not used: C is fixed, and {MIL} chooses nothing."
        )
    elif num_val:
        notes.append(
            f"{num_val} {slide_set.unit}s of the split val choose the regularisation only; {MIL} does not use them."
        )
    if slide_set.incomplete:
        notes.append(
            f"{len(slide_set.incomplete):,} of {len(slide_set.bags):,} cases are predicted without some of their "
            f"slides, which are among what is left out: {_listed(slide_set.incomplete)}."
        )
    num_cases = len(np.unique(slide_set.cases[task.scored]))
    estimates = {f"{p.model}, {p.predictor}": p.intervals() for p in predictions}
    notes += [note for note in (few_groups_note(num_cases, "cases"), bound_note(estimates)) if note]
    scored_rows = (task.truth[task.scored], slide_set.cases[task.scored], task.parts[task.scored])
    return notes + resample_notes(predictions[0].draws, *scored_rows, task.classes, "cases")


def _listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _records(
    slide_set: SlideSet, task: ProbeTask, predictions: Sequence[Prediction]
) -> list[dict[str, str | int | dict[str, list[float]]]]:
    """Every scored unit with the probabilities of all predictors, for the JSON."""
    return [
        {
            slide_set.unit: slide_set.bags[row].name,
            "case_id": slide_set.bags[row].case_id,
            "label": slide_set.bags[row].label,
            "fold": int(task.parts[row]),
            "probabilities": {f"{p.model}, {p.predictor}": p.probed.probabilities[row].tolist() for p in predictions},
        }
        for row in task.scored
    ]
