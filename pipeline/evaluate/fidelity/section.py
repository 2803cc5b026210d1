"""The fidelity section: how well each model stands in for the teacher, on rows of a store that no training has seen.

Two questions, two tables. Does the model hold what the teacher holds? Every model gets the best linear map into the
teacher's space, fitted on training rows in the same way. And can it stand in as it is? The distilled student is scored
with its own projector, and the teacher itself as the ceiling.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.evaluate.bootstrap import (
    READ_DIFFERENCES,
    Draws,
    GroupResamples,
    difference,
    interval,
    mean_draws,
    ratio_draws,
)
from pipeline.evaluate.fidelity.correlation_draws import correlation_draws
from pipeline.evaluate.fidelity.notes import at_bound, map_notes, provenance, row_notes
from pipeline.evaluate.fidelity.rows import failed_rows, not_shown, not_shown_note, part_rows
from pipeline.evaluate.fidelity.score import (
    FITTED,
    FITTED_FIGURES,
    OWN,
    OWN_FIGURES,
    PLAIN_CKA,
    R2_LINEAR,
    Alignment,
    RowFigures,
    StoreEmbeddings,
    StoreRows,
    TeacherSpace,
    alignment,
    row_figures,
)
from pipeline.projector import EPSILON
from pipeline.report.content import BEFORE, Cell, Column, Figure, Interval, Score, Section, Table
from pipeline.report.sheets import draw_best_and_worst
from pipeline.store.store import StoredTeacher
from pipeline.training.linear_map import LinearMap
from pipeline.training.similarity import debiased_linear_cka

KEY = "fidelity"
SHEET_PATCHES = 8
"""Patches of each row of the contact sheet."""
WORST_SLIDES = 12
"""Rows of the table by slide; the JSON has all of them."""
MOST_CENTRES = 1000
"""Rows a model of the table by centre."""

Part = dict[str, str | int | float]
"""Figures of one slide or centre, by name."""


def draws_of(figures: RowFigures, resamples: GroupResamples) -> list[Draws]:
    """The figures of a model with a fitted map that have an interval, in the order of `FITTED_FIGURES`.

    R2 is 1 - residual over total, with the totals about the mean of all held-out rows.
    """
    ratio = ratio_draws(figures.residual, figures.total, resamples)
    return [Draws(1 - ratio.value, 1 - ratio.draws), *mean_draws_of(figures, resamples)]


def mean_draws_of(figures: RowFigures, resamples: GroupResamples) -> list[Draws]:
    """The means over rows, in the order of `OF_ANY_MAP`."""
    return [mean_draws(v, resamples) for v in (figures.cosine, figures.top1, figures.top5, figures.overlap)]


def score_models(
    space: TeacherSpace, models: Sequence[StoreEmbeddings], maps: dict[str, LinearMap], resamples: GroupResamples
) -> tuple[dict[tuple[str, str], RowFigures], dict[tuple[str, str], list[Draws]]]:
    """Figures of rows by a model's label and map; and of maps that were not fitted here the correlations, in the order
    of `OWN_FIGURES`.
    """
    figures, correlated = {}, {}
    for model in models:
        for how, projected in space.project(model, maps[model.label]).items():
            figures[model.label, how] = row_figures(space, model, projected)
            if how != FITTED:
                correlated[model.label, how] = list(correlation_draws(projected, space.val, resamples).values())
    return figures, correlated


@dataclass(frozen=True)
class Origins:
    """Slide, case and centre of each held-out row, (N,); a centre is "" where the plan has none."""

    slides: NDArray[np.str_]
    cases: NDArray[np.str_]
    centers: NDArray[np.str_]

    def counts(self) -> dict[str, int]:
        """How many slides, cases and centres there are."""
        columns = {"slides": self.slides, "cases": self.cases, "centres": self.centers[self.centers != ""]}
        return {name: len(np.unique(column)) for name, column in columns.items()}


def origins_of(teacher: StoredTeacher, rows: NDArray[np.int64]) -> Origins:
    """Where rows of the store come from."""
    slides = [teacher.plan.slides[i] for i in teacher.plan.slide_of_row()[rows]]
    columns = zip(*((slide.slide_id, slide.case_id, slide.center or "") for slide in slides), strict=True)
    return Origins(*(np.array(column) for column in columns))


def map_record(fitted: LinearMap) -> dict[str, object]:
    """How a map's strength was chosen, as JSON types."""
    return {"ridge": fitted.strength, "chosen_by_leaving_out": fitted.left_out}


WHAT = (
    "How well each model stands in for {teacher} on the patches that the store's plan holds out. Standardised space: "
    "the teacher's embedding with each dimension at mean 0 and variance 1 over the training rows. Intervals: 95 %, "
    "from a bootstrap over cases in which the searched patches stay the same."
)


def fidelity_section(
    teacher: StoredTeacher,
    rows: StoreRows,
    models: Sequence[StoreEmbeddings],
    out: Path,
    *,
    reference: str | None,
    most_rows: int,
    resamples: int,
    seed: int,
) -> Section:
    """All figures, and tables by centre and slide; writes the contact sheet to `out` if the store keeps pixels.

    Args:
        reference: label of the model that the user wants the others compared with.
        most_rows: at most so many `rows` of each side were chosen.
    """
    space, held_out = TeacherSpace(teacher, rows), origins_of(teacher, rows.val)
    case_resamples = GroupResamples(held_out.cases, resamples, seed)
    cka = {model.label: alignment(space, model) for model in models}
    maps = {model.label: space.fit_map(model) for model in models}
    figures, correlated = score_models(space, models, maps, case_resamples)
    shown = shown_model(models, figures)
    parts = figures_of_parts(space, models, figures, shown[0], held_out)
    overlap = {m.label: interval(mean_draws(figures[m.label, FITTED].overlap, case_resamples)) for m in models}
    return Section(
        key=KEY,
        title="Fidelity to the teacher",
        what=WHAT.format(teacher=teacher.name),
        basis={"patches": len(rows.val), **held_out.counts(), "patches to fit maps": len(rows.train)},
        tables=[
            *model_tables(figures, correlated, cka, case_resamples),
            *fidelity_differences(models, figures, case_resamples, reference),
            *parts.tables,
        ],
        figures=[draw_extremes(teacher, rows, figures[shown].cosine, shown, out)] if teacher.store.has_pixels else [],
        scores=headline_scores(overlap, cka),
        settings={"store_rows": most_rows, "resamples": resamples, "seed": seed},
        source={
            "store": str(teacher.folder),
            "content hash": teacher.content_hash(),
            "plan hash": teacher.attributes["plan_hash"],
        },
        exclusions=failed_rows(teacher),
        notes=[
            *row_notes(teacher, rows, space, case_resamples.num_groups, cka),
            *parts.notes,
            *map_notes(maps),
            *at_bound(models, overlap, figures, case_resamples),
            *provenance(teacher, models),
        ],
        data={
            "by_slide": parts.by_slide,
            "by_centre": parts.by_centre,
            "linear_maps": {label: map_record(fitted) for label, fitted in maps.items()},
            "not_shown": {"slides": not_shown(held_out.slides), "centres": not_shown(held_out.centers)},
        },
    )


def headline_scores(overlap: dict[str, Interval], cka: dict[str, Alignment]) -> list[Score]:
    """Neighbour overlap of all models, and CKA of those that have one."""
    scores = [Score("neighbour overlap with the teacher", overlap)]
    debiased = {label: of_model.debiased for label, of_model in cka.items() if not np.isnan(of_model.debiased)}
    if debiased:
        values = {label: Interval(value, np.nan, np.nan) for label, value in debiased.items()}
        scores.append(Score("CKA with the teacher", values))
    return scores


def model_tables(
    figures: dict[tuple[str, str], RowFigures],
    correlated: dict[tuple[str, str], list[Draws]],
    cka: dict[str, Alignment],
    resamples: GroupResamples,
) -> list[Table]:
    """All models with fitted maps; and those that need none or have their own, if there are such."""
    fitted: list[list[Cell]] = []
    as_it_is: list[list[Cell]] = []
    for (label, how), row_scores in figures.items():
        if how == FITTED:
            cells = map(interval, draws_of(row_scores, resamples))
            fitted.append([label, how, *cells, cka[label].debiased, cka[label].plain])
        else:
            cells = map(interval, [*correlated[label, how], *mean_draws_of(row_scores, resamples)])
            as_it_is.append([label, how, *cells, cka[label].debiased])
    holds = Table(
        "What each model holds of the teacher",
        [*columns(FITTED_FIGURES, "How the embeddings come into the teacher's space."), PLAIN_CKA],
        fitted,
        "Every model has a linear map into the teacher's space that was fitted on training rows, alike for all.",
    )
    note = "The distilled student with its own projector; the teacher is the ceiling."
    new = {name: what * (name not in FITTED_FIGURES) for name, what in OWN_FIGURES.items()}
    stands_in = [Table("Standing in as it is", columns(new), as_it_is, note)]
    return [holds, *(stands_in if as_it_is else [])]


def columns(figures: Mapping[str, str], what_map: str = "") -> list[Column]:
    """The columns of a table of models, by name with what each is; "" where an earlier table says it."""
    return [Column("model"), Column("map", what_map)] + [
        Column(name, what, better="higher") for name, what in figures.items()
    ]


def fidelity_differences(
    models: Sequence[StoreEmbeddings],
    figures: dict[tuple[str, str], RowFigures],
    resamples: GroupResamples,
    wanted: str | None,
) -> list[Table]:
    """Each model less the `wanted` one, else the student before distillation, else the first, on the same resamples.

    None for a single one. The teacher is left out: it is the measure.
    """
    others = sorted((m for m in models if not m.is_teacher), key=lambda m: (m.label != wanted, m.named.role != BEFORE))
    if len(others) < 2:
        return []
    base, *compared = ((m.label, draws_of(figures[m.label, FITTED], resamples)) for m in others)
    rows: list[list[Cell]] = [[label, *map(difference, draws, base[1])] for label, draws in compared]
    note = f"{base[0]} is subtracted from each, on the same resamples; all with fitted maps. {READ_DIFFERENCES}"
    with_interval = list(FITTED_FIGURES)[: len(base[1])]
    return [Table(f"Difference from {base[0]}", [Column("model"), *map(Column, with_interval)], rows, note)]


def shown_model(models: Sequence[StoreEmbeddings], figures: dict[tuple[str, str], RowFigures]) -> tuple[str, str]:
    """Label and map of the model that is looked at closely: a student with its own projector, else the first that is
    not the teacher, else the teacher.
    """
    own = [key for key in figures if key[1] == OWN]
    others = [(model.label, FITTED) for model in models if not model.is_teacher]
    return (own + others + list(figures))[0]


@dataclass(frozen=True)
class PartFigures:
    """Figures by slide and by centre.

    Attributes:
        by_slide, by_centre: by model label, what `by_part` gives.
        tables: of the centres, and of the slides of one model.
        notes: which slides or centres have no figures, where no table says it.
    """

    by_slide: dict[str, list[Part]]
    by_centre: dict[str, list[Part]]
    tables: list[Table]
    notes: list[str]


def figures_of_parts(
    space: TeacherSpace,
    models: Sequence[StoreEmbeddings],
    figures: dict[tuple[str, str], RowFigures],
    shown: str,
    held_out: Origins,
) -> PartFigures:
    """Figures by slide and centre of the held-out rows; `shown` is the label of the model that the table of slides is
    of.
    """
    by_centre = {model.label: by_part(space, model, figures, held_out.centers) for model in models}
    by_slide = {model.label: by_part(space, model, figures, held_out.slides) for model in models}
    tables, notes = [], []
    for title, name, names, parts, most in (
        ("By centre", "centre", held_out.centers, by_centre, MOST_CENTRES),
        ("By slide, the worst first", "slide", held_out.slides, {shown: by_slide[shown]}, WORST_SLIDES),
    ):
        unshown = not_shown_note(names, name)
        table = part_tables(title, name, parts, most, unshown)
        tables += table
        notes += [unshown] if unshown and not table else []
    return PartFigures(by_slide, by_centre, tables, notes)


def by_part(
    space: TeacherSpace, model: StoreEmbeddings, figures: dict[tuple[str, str], RowFigures], parts: NDArray[np.str_]
) -> list[Part]:
    """Figures of one model by slide or centre, the smallest cosine first; without those that `not_shown` lists."""
    of_parts: list[Part] = []
    figure = figures[model.label, FITTED]
    for part, rows in part_rows(parts, small=False).items():
        inside = torch.from_numpy(model.val[rows]), torch.from_numpy(space.plain[rows])
        centred = space.val[rows] - space.val[rows].mean(0)
        of_parts.append(
            {
                "name": part,
                "patches": len(rows),
                R2_LINEAR: 1 - float(figure.residual[rows].sum() / max(np.square(centred).sum(), EPSILON)),
                "cosine": float(figure.cosine[rows].mean()),
                "top-1": float(figure.top1[rows].mean()),
                "top-5": float(figure.top5[rows].mean()),
                "overlap at 10": float(figure.overlap[rows].mean()),
                "CKA": debiased_linear_cka(*inside),
            }
        )
    return sorted(of_parts, key=lambda part: (float(part["cosine"]), str(part["name"])))


def part_tables(title: str, name: str, parts: dict[str, list[Part]], most: int, unshown: str) -> list[Table]:
    """A table of `by_part` for each of the models, with at most `most` rows a model; none for a single part. `unshown`
    says which parts have no figures.
    """
    if max(len(rows) for rows in parts.values()) < 2:
        return []
    head = [Column(name), Column("model"), Column("patches", "Held-out patches of it.", digits=0)]
    note = (
        "With the fitted map, alike for all models. R2 is about the part's own mean; neighbours and "
        "retrieval are searched among all held-out patches. Of few patches CKA is uncertain: where nothing is in "
        "common it is 0, give or take about 1.4 divided by their number. Of each model, the smallest cosine comes "
        "first."
    )
    count = max(len(of_model) for of_model in parts.values())
    more = f"The first {most:,} of {count:,} are shown, report.json has all." if count > most else ""
    note = " ".join(filter(None, [note, more, unshown]))
    rows: list[list[Cell]] = []
    for label, of_model in parts.items():
        for part in of_model[:most]:
            first, *figures = part.values()
            rows.append([first, label, *figures])
    return [Table(title, [*head, *(Column(column) for column in FITTED_FIGURES)], rows, note)]


def draw_extremes(
    teacher: StoredTeacher, rows: StoreRows, cosine: NDArray[np.float64], shown: tuple[str, str], out: Path
) -> Figure:
    """The contact sheet of the patches that the shown model is nearest to and farthest from its teacher on."""
    order = np.argsort(-cosine, kind="stable")
    best, worst = order[:SHEET_PATCHES], order[::-1][:SHEET_PATCHES]
    name = "fidelity_patches.png"
    title = f"{shown[0]}: patches nearest to the teacher, and farthest from it"
    groups = {
        words: [(teacher.store.read_patch(int(rows.val[i])), f"{cosine[i]:.2f}") for i in chosen]
        for words, chosen in (("best", best), ("worst", worst))
    }
    draw_best_and_worst(groups, title, out / name)
    return Figure(
        name,
        f"Held-out patches on which {shown[0]} ({shown[1]}) is nearest to the teacher and farthest from it, with the "
        "cosine in the standardised space.",
        f"{len(best)} patches of the largest cosine, from {cosine[best[0]]:.2f}, and {len(worst)} of the smallest, "
        f"from {cosine[worst[0]]:.2f}.",
    )
