"""Tables, scores and notes of robustness: of the index, its margins and the pairs of slides. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import counted
from pipeline.evaluate.bootstrap import (
    MIN_GROUPS,
    READ_DIFFERENCES,
    Draws,
    GroupResamples,
    bound_note,
    difference,
    few_groups_note,
    interval,
    ratio_draws,
)
from pipeline.evaluate.robustness.data import IndexRows
from pipeline.evaluate.robustness.index import COMPARED_K, UNSURE, Ints, RobustnessIndex, index_of_random_neighbours
from pipeline.evaluate.robustness.margins import Margins
from pipeline.evaluate.robustness.pairs import KINDS, TOP, PairedRobustness, PairSummary
from pipeline.report.content import Cell, Column, Interval, Score, Table


@dataclass(frozen=True, eq=False)
class ScoredIndex:
    """The index and margins of one model; `draws` are its resamples, `None` if the index does not exist."""

    label: str
    index: RobustnessIndex
    margins: Margins
    draws: Draws | None


def index_draws(same_class: Ints, same_center: Ints, resamples: GroupResamples) -> Draws:
    """The index with its resamples, from SO and OS of each patch (N,)."""
    return ratio_draws(same_class.astype(np.float64), (same_class + same_center).astype(np.float64), resamples)


def index_tables(
    rows: IndexRows, models: Sequence[ScoredIndex], reference: str, resamples: GroupResamples
) -> list[Table]:
    """The index with its difference from the reference, its margins, its curve, and its parts."""
    tables = [_headline_table(rows, models, reference)]
    if any(model.margins.counted for model in models):
        tables.append(_margin_table(models, resamples.num_groups))
    shared = [k for k in COMPARED_K if all(k in model.index.compared for model in models)]
    if len(shared) > 1:
        columns = [Column("model"), *(Column(f"k = {k}", better="higher") for k in shared)]
        cells: list[list[Cell]] = [
            [model.label, *(_number(model.index.compared[k].value) for k in shared)] for model in models
        ]
        note = (
            "The first table takes each model at the k that suits it; here all are compared at the same one. A dash: "
            f"no neighbour counts, or the order of equally near patches would move the index by more than {UNSURE:g}."
        )
        tables.append(Table("Robustness index at the same k", columns, cells, note))
        tables += _differences_at(shared, models, reference, resamples)
    for title, names in (("class", rows.classes), ("centre", rows.centers)):
        tables.append(_part_table(title, names, rows.slides, models, resamples))
    return tables


def _differences_at(
    shared: Sequence[int], models: Sequence[ScoredIndex], reference: str, resamples: GroupResamples
) -> list[Table]:
    """Of each model from the reference, both at the same k; none for a single model or where no difference exists."""
    others = [model for model in models if model.label != reference]
    base = next((model for model in models if model.label == reference), None)
    if base is None:
        return []
    cells: list[list[Cell]] = [[k, *(_difference_at(k, model, base, resamples) for model in others)] for k in shared]
    if not any(cell for row in cells for cell in row[1:]):
        return []
    columns = [Column("k", digits=0), *(Column(model.label) for model in others)]
    note = f"Index less that of {reference} with as many neighbours, paired on the same resamples of slides. "
    return [Table(f"Difference from {reference} at the same k", columns, cells, note + READ_DIFFERENCES)]


def _difference_at(k: int, model: ScoredIndex, base: ScoredIndex, resamples: GroupResamples) -> Interval | None:
    """Of a model's index from that of another at `k` neighbours; `None` where either has none."""
    ours, theirs = model.index.compared[k], base.index.compared[k]
    if np.isnan(ours.value) or np.isnan(theirs.value):
        return None
    first, second = (index_draws(each.same_class, each.same_center, resamples) for each in (ours, theirs))
    return difference(first, second)


def _headline_table(rows: IndexRows, models: Sequence[ScoredIndex], reference: str) -> Table:
    """One line a model."""
    of_reference = next((model.draws for model in models if model.label == reference), None)
    has_subsets = rows.subsets is not None and len(np.unique(rows.subsets)) > 1
    columns = [
        Column("model"),
        Column("index", "SO / (SO + OS) over all patches, 0 to 1; higher is more robust.", better="higher"),
        Column("difference", f"Of the index from that of {reference}, paired on the same resamples of slides."),
        Column(
            "k", "Number of neighbours: the one that tells the class best, or the one that was asked for.", digits=0
        ),
        Column(
            "balanced accuracy",
            "Of a majority vote of the k neighbours for the class, mean over subsets; 0 to 1.",
            better="higher",
        ),
        Column("support", "Share of patches with at least one neighbour that counts as SO or OS; 0 to 1."),
    ]
    if has_subsets:
        columns.append(Column("mean of subsets", "Mean of the indices of the single subsets, each of the same weight."))
    cells: list[list[Cell]] = []
    for model in models:
        index, less = model.index, None
        if model.draws is not None and of_reference is not None and model.label != reference:
            less = difference(model.draws, of_reference)
        row: list[Cell] = [
            model.label,
            interval_if_any(model.draws),
            less,
            index.k,
            index.accuracy[index.k],
            index.support,
        ]
        cells.append([*row, _number(index.subset_mean)] if has_subsets else row)
    columns_of_set = (rows.classes, rows.centers, rows.slides, rows.subsets)
    note = f"Neighbours drawn at random would give {index_of_random_neighbours(*columns_of_set):.3f} on this set."
    if len(models) > 1:
        note = f"{note} {READ_DIFFERENCES}"
    return Table("Robustness index", columns, cells, note)


def _margin_table(models: Sequence[ScoredIndex], num_slides: int) -> Table:
    """What croma adds; without intervals where there are too few slides."""

    def cell(margin: Interval) -> Interval | None:
        if np.isnan(margin.value):
            return None
        return margin if num_slides >= MIN_GROUPS else Interval(margin.value, np.nan, np.nan)

    columns = [
        Column("model"),
        Column("MaRI", "The index with neighbours weighted by nearness, 0 to 1, neutral at 0.5.", better="higher"),
        Column("MaRI, median patch", "Of the patches for which it exists.", better="higher"),
        Column(
            "CRoMa",
            "Median over patches of how much nearer the patches of the same class from other centres are than those of "
            "other classes from the same centre; -1 to 1, neutral at 0.",
            better="higher",
        ),
        Column("CRoMa, worst tenth", "Mean of the tenth of the patches with the smallest margin.", better="higher"),
        Column("centre nearer", "Share of patches with a CRoMa of 0 or less; lower is more robust.", better="lower"),
    ]
    cells: list[list[Cell]] = [
        [
            model.label,
            _number(model.margins.mari),
            *(cell(margin) for margin in (model.margins.mari_median, model.margins.croma)),
            *(_number(value) for value in (model.margins.croma_tail, model.margins.croma_f0)),
        ]
        for model in models
    ]
    note = "MaRI and CRoMa are those of croma (Grisi et al., 2026), with its own bootstrap over slides."
    return Table("Margins", columns, cells, note)


def _part_table(
    title: str,
    names: NDArray[np.str_],
    slides: NDArray[np.str_],
    models: Sequence[ScoredIndex],
    resamples: GroupResamples,
) -> Table:
    """The index over the patches of each class or centre."""
    columns = [
        Column(title),
        Column("number of patches", digits=0),
        Column("number of slides", digits=0),
        *(Column(model.label, better="higher") for model in models),
    ]
    cells: list[list[Cell]] = []
    for name in np.unique(names).tolist():
        chosen = names == name
        num_slides = len(np.unique(slides[chosen]))
        of_models = [_index_of_part(model, chosen, resamples) for model in models]
        if num_slides < MIN_GROUPS:
            of_models = [None if index is None else Interval(index.value, np.nan, np.nan) for index in of_models]
        cells.append([name, int(chosen.sum()), num_slides, *of_models])
    note = (
        f"The neighbours of the patches of one {title} only; each model at its k. A dash: no neighbour counts. No "
        f"interval of fewer than {MIN_GROUPS} slides."
    )
    return Table(f"Robustness index by {title}", columns, cells, note)


def _index_of_part(model: ScoredIndex, chosen: NDArray[np.bool_], resamples: GroupResamples) -> Interval | None:
    """The index over the `chosen` patches; `None` without one, or where the model has none at all."""
    if model.draws is None:
        return None
    return interval_if_any(index_draws(model.index.same_class * chosen, model.index.same_center * chosen, resamples))


def index_score(rows: IndexRows, models: Sequence[ScoredIndex], reference: str) -> Score | None:
    """The index of the models that have one, and its differences; `None` if no model has."""
    draws = {model.label: model.draws for model in models if model.draws is not None}
    if not draws:
        return None
    others = [label for label in draws if label != reference and reference in draws]
    return Score(
        name="robustness index",
        values={label: interval(of_model) for label, of_model in draws.items()},
        chance=index_of_random_neighbours(rows.classes, rows.centers, rows.slides, rows.subsets),
        differences={label: difference(draws[label], draws[reference]) for label in others},
    )


def index_notes(num_out_of_domain: int, models: Sequence[ScoredIndex], num_slides: int) -> list[str]:
    """What a reader of the index must know; `num_slides` are resampled."""
    notes = []
    if num_out_of_domain:
        rows = counted(num_out_of_domain, "row of subset OOD does", "rows of subset OOD do")
        notes.append(f"{rows} not count for the index, as in PathoROB.")
    bounds = bound_note({model.label: [interval(model.draws)] for model in models if model.draws is not None})
    notes += [note for note in (few_groups_note(num_slides, "slides"), bounds) if note]
    if len({model.index.k for model in models}) > 1:
        listed = ", ".join(f"{model.label}: {model.index.k}" for model in models)
        notes.append(f"k is chosen for each model, as PathoROB does, and differs ({listed}); --ri-k sets one for all.")
    return notes + [f"{m.label}: {note.rstrip('.')}." for m in models for note in _notes_of_model(m, num_slides)]


def _notes_of_model(model: ScoredIndex, num_slides: int) -> list[str]:
    """What a reader must know of one model's index."""
    index = model.index
    notes = [*index.notes, *model.margins.notes]
    if index.is_undecided:
        notes.append(
            "no index: around every patch others are equally near, and nothing but the order of names would decide "
            "whether class or centre counts"
        )
    elif np.isnan(index.value):
        notes.append("no index: no neighbour counts as SO or OS")
    if index.ties.num_tied and not index.is_undecided:
        low, high = index.ties.bounds
        gives = f"{low:.3f} to {high:.3f}" if low < high else "the same index"
        notes.append(
            f"{index.ties.num_tied:,} of {index.num_queries:,} patches have several of different kinds equally near at "
            f"place k; the order of names decides among these, and any order gives {gives}"
        )
    if model.draws is not None and model.draws.num_dropped and num_slides >= MIN_GROUPS:
        notes.append(f"{model.draws.num_dropped:,} resamples of slides have no index and do not count")
    missing = sum(np.isnan(value) for value in index.by_subset.values())
    if missing and len(index.by_subset) > 1:
        notes.append(f"{missing:,} of {len(index.by_subset):,} subsets have no index and are left out of their mean")
    return notes


def paired_tables(paired: Mapping[str, PairedRobustness]) -> list[Table]:
    """plismbench's table of medians, and all figures."""
    columns = [
        Column("model"),
        Column("cosine, all pairs", "Median over all pairs of slides; -1 to 1.", better="higher"),
        *(Column(f"top-{TOP[-1]}, {kind}", "Median over these pairs; 0 to 1.", better="higher") for kind in KINDS[1:]),
        Column("leaderboard", "Mean of the four, plismbench's leaderboard metric.", better="higher"),
    ]
    cells: list[list[Cell]] = []
    details: list[list[Cell]] = []
    for label, model in paired.items():
        summaries = {kind: model.summary(kind) for kind in KINDS}
        tops = [None if (part := summaries[kind]) is None else part.median_top[-1] for kind in KINDS[1:]]
        cells.append([label, model.overall.median_cosine, *tops, model.leaderboard])
        details += [[label, kind, *_figures_of(part)] for kind, part in summaries.items() if part is not None]
    parts = [f"{name}, {how}" for name in ("cosine", *(f"top-{k}" for k in TOP)) for how in ("mean", "median")]
    note = "Of the slides of a cross-scanner pair only the scanner differs, of a cross-staining pair only the staining."
    return [
        Table("Same tissue, scanned and stained anew", columns, cells, note),
        Table(
            "All figures of the pairs of slides",
            [Column("model"), Column("pairs"), Column("number", digits=0), *(Column(part) for part in parts)],
            details,
        ),
    ]


def _figures_of(pairs: PairSummary) -> list[Cell]:
    """How many pairs of slides there are, and mean and median of each of their figures."""
    tops = [top for both in zip(pairs.mean_top, pairs.median_top, strict=True) for top in both]
    return [pairs.num_pairs, pairs.mean_cosine, pairs.median_cosine, *tops]


def paired_score(paired: Mapping[str, PairedRobustness], reference: str) -> Score:
    """plismbench's leaderboard metric; where only the scanner or only the staining varies, the top-10 accuracy.

    Without intervals: slides of the same tissue are few, and their pairs are not independent.
    """
    values = {label: model.leaderboard for label, model in paired.items()}
    name = "paired robustness, plismbench's metric"
    if any(value is None for value in values.values()):
        name = f"paired robustness, top-{TOP[-1]} accuracy"
        values = {label: model.overall.median_top[-1] for label, model in paired.items()}
    given = {label: value for label, value in values.items() if value is not None}
    base = given.get(reference)
    less = {} if base is None else {label: value - base for label, value in given.items() if label != reference}
    nan = float("nan")
    return Score(
        name=name,
        values={label: Interval(value, nan, nan) for label, value in given.items()},
        differences={label: Interval(value, nan, nan) for label, value in less.items()},
    )


def paired_notes(paired: PairedRobustness) -> list[str]:
    """What a reader of the paired figures must know."""
    fewest = min(pair.num_places for pair in paired.pairs)
    notes = (
        [
            f"Pairs of slides share at least {fewest:,} places; of so few, chance alone finds {TOP[-1]} of "
            f"{2 * fewest - 1:,} patches."
        ]
        if fewest < 10 * TOP[-1]
        else []
    )
    if missing := sum(pair.num_missing for pair in paired.pairs):
        incomplete = sum(pair.num_missing > 0 for pair in paired.pairs)
        notes.append(
            f"In {incomplete:,} pairs of slides a place is on one of them only; {missing:,} such were left out."
        )
    return notes


def interval_if_any(draws: Draws | None) -> Interval | None:
    """A statistic with its interval; `None` if it does not exist."""
    return None if draws is None or np.isnan(draws.value) else interval(draws)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
