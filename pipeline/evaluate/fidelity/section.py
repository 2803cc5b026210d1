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

from pipeline.cohort.cases import case_facts, cases_warning
from pipeline.config.tools import EvaluateConfig
from pipeline.evaluate.bootstrap import (
    READ_DIFFERENCES,
    Draws,
    GroupResamples,
    bound_note,
    difference,
    few_groups_note,
    interval,
    mean_draws,
    ratio_draws,
)
from pipeline.evaluate.fidelity.correlation_draws import correlation_draws
from pipeline.evaluate.fidelity.rows import failed_rows, missing_note, not_shown, not_shown_note, part_rows, sample_note
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
from pipeline.report.content import Cell, Column, Figure, Interval, Score, Section, Table
from pipeline.report.sheets import draw_best_and_worst
from pipeline.sampling import TRAIN
from pipeline.store.store import StoredTeacher
from pipeline.student.resolve import AFTER, BEFORE
from pipeline.training.linear_map import ROWS, LinearMap
from pipeline.training.similarity import NUM_NEIGHBOURS, debiased_linear_cka

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


WHAT = (
    "How well each model stands in for {teacher} on the patches that the store's plan holds out. Standardised space: "
    "the teacher's embedding with each dimension at mean 0 and variance 1 over the training rows. Intervals: 95 %, "
    "from a bootstrap over cases in which the searched patches stay the same."
)


def fidelity_section(
    store: StoredTeacher, rows: StoreRows, models: Sequence[StoreEmbeddings], config: EvaluateConfig, out: Path
) -> Section:
    """All figures, and tables by centre and slide; writes the contact sheet to `out` if the store keeps pixels."""
    plan, space = store.plan, TeacherSpace(store, rows)
    slide_of_row = plan.slide_of_row()[rows.val]
    slides = np.array([plan.slides[i].slide_id for i in slide_of_row])
    cases = np.array([plan.slides[i].case_id for i in slide_of_row])
    centers = np.array([plan.slides[i].center or "" for i in slide_of_row])
    resamples = GroupResamples(cases, config.resamples, config.seed)
    cka = {model.label: alignment(space, model) for model in models}
    maps = {model.label: space.fit_map(model) for model in models}
    figures, correlated = score_models(space, models, maps, resamples)
    shown = shown_model(models, figures)
    parts = figures_of_parts(space, models, figures, shown[0], slides, centers)
    overlap = {m.label: interval(mean_draws(figures[m.label, FITTED].overlap, resamples)) for m in models}
    num_cases, num_centers = len(np.unique(cases)), len(np.unique(centers[centers != ""]))
    return Section(
        key=KEY,
        title="Fidelity to the teacher",
        what=WHAT.format(teacher=store.name),
        basis={
            "patches": len(rows.val),
            "slides": len(np.unique(slides)),
            "cases": num_cases,
            "centres": num_centers,
            "patches to fit maps": len(rows.train),
        },
        tables=[
            *model_tables(figures, correlated, cka, resamples),
            *difference_tables(models, figures, resamples, config.reference),
            *parts.tables,
        ],
        figures=[draw_sheet(store, rows, figures[shown].cosine, shown, out)] if store.store.has_pixels else [],
        scores=headline_scores(overlap, cka),
        settings={"store_rows": config.store_rows, "resamples": config.resamples, "seed": config.seed},
        source={
            "store": str(store.folder),
            "content hash": store.content_hash(),
            "plan hash": store.attributes["plan_hash"],
        },
        exclusions=failed_rows(store),
        notes=[
            *notes(store, rows, space, num_cases, cka),
            *parts.notes,
            *map_notes(maps),
            *at_bound(models, overlap, figures, resamples),
            *provenance(store, models),
        ],
        data={
            "by_slide": parts.by_slide,
            "by_centre": parts.by_centre,
            "linear_maps": {
                label: {"ridge": fitted.strength, "chosen_by_leaving_out": fitted.left_out}
                for label, fitted in maps.items()
            },
            "not_shown": {"slides": not_shown(slides), "centres": not_shown(centers)},
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
    for (label, how), of_rows in figures.items():
        if how == FITTED:
            cells = map(interval, draws_of(of_rows, resamples))
            fitted.append([label, how, *cells, cka[label].debiased, cka[label].plain])
        else:
            cells = map(interval, [*correlated[label, how], *mean_draws_of(of_rows, resamples)])
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


def difference_tables(
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
    slides: NDArray[np.str_],
    centers: NDArray[np.str_],
) -> PartFigures:
    """Figures by slide and centre, of the held-out rows' `slides` and `centers` (N,); `shown` is the label of the model
    that the table of slides is of.
    """
    by_centre = {model.label: by_part(space, model, figures, centers) for model in models}
    by_slide = {model.label: by_part(space, model, figures, slides) for model in models}
    tables, notes = [], []
    for title, name, names, parts, most in (
        ("By centre", "centre", centers, by_centre, MOST_CENTRES),
        ("By slide, the worst first", "slide", slides, {shown: by_slide[shown]}, WORST_SLIDES),
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
        "common it is 0, give or take about 1.4 divided by their number."
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


def draw_sheet(
    store: StoredTeacher, rows: StoreRows, cosine: NDArray[np.float64], shown: tuple[str, str], out: Path
) -> Figure:
    """The contact sheet of the patches that the shown model is nearest to and farthest from its teacher on."""
    order = np.argsort(-cosine, kind="stable")
    best, worst = order[:SHEET_PATCHES], order[::-1][:SHEET_PATCHES]
    name = "fidelity_patches.png"
    title = f"{shown[0]}: patches nearest to the teacher, and farthest from it"
    groups = {
        words: [(store.store.read_pixels(int(rows.val[i])), f"{cosine[i]:.2f}") for i in chosen]
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


def notes(
    store: StoredTeacher, rows: StoreRows, space: TeacherSpace, num_cases: int, cka: dict[str, Alignment]
) -> list[str]:
    """What a reader must know beside the numbers."""
    num_rows = len(rows.val)
    texts = [*filter(None, [missing_note(failed_rows(store)), sample_note(store, num_rows, len(rows.train))])]
    cases = store.plan.case_of_row()
    held_out, trained_on = np.unique(cases[rows.val]), np.unique(cases[store.ok_rows(TRAIN)])
    if shared := len(np.intersect1d(held_out, trained_on)):
        texts.append(
            f"Of {shared} of the {len(held_out)} held-out cases other patches are trained on (a strip of each "
            "slide is held out): these figures are too good for new cases."
        )
    of_val = np.unique(store.plan.slide_of_row()[rows.val])
    if warning := cases_warning(case_facts(store.plan.slides)):
        held = case_facts(store.plan.slides[i] for i in of_val)
        texts.append(
            f"{warning[0].upper()}{warning[1:]}. Of the {held.slides:,} held-out slides, "
            f"{held.unknown + held.not_recorded:,} have no known case; intervals may be too narrow."
        )
    if num_cases < 2:
        texts.append(
            "All held-out patches are of one case: no interval can be given, and nothing follows for other cases."
        )
    elif note := few_groups_note(num_cases, "cases"):
        texts.append(note)
    neighbours = min(NUM_NEIGHBOURS, num_rows - 1)
    levels = ", ".join(f"{of.by_chance:.3f} ({label})" for label, of in cka.items())
    texts.append(
        f"By chance top-1 is {1 / num_rows:.3f}, top-5 {min(5 / num_rows, 1):.3f}, the overlap "
        f"{neighbours / (num_rows - 1):.3f}, CKA 0, and the plain CKA {levels}: its mean over all orders of "
        "the rows."
    )
    if without := [label for label, of in cka.items() if np.isnan(of.debiased)]:
        why = "it needs four patches" if num_rows < 4 else "of one side no more than a single embedding differs"
        texts.append(f"No CKA of {', '.join(without)}: {why}.")
    if ties := num_rows - len(np.unique(space.plain, axis=0)):
        texts.append(
            f"{ties:,} patches have the same embedding as another one (blank places, mostly). Such ties count "
            "as not found, so that even the teacher's own retrieval is below 1."
        )
    if len(rows.train) < 2 * store.width:
        texts.append(
            f"The linear maps are fitted on {len(rows.train):,} rows for {store.width:,} dimensions: too few "
            "to be exact, so that even the teacher's own row is below 1."
        )
    if not store.store.has_pixels:
        texts.append("No contact sheet: the store keeps no pixels.")
    return texts


def map_notes(maps: dict[str, LinearMap]) -> list[str]:
    """What a reader must know of how the strengths of the fitted maps were chosen."""
    texts = []
    if any(fitted.left_out == ROWS for fitted in maps.values()):
        texts.append(
            "All training patches are of one case: the ridge of the linear maps is chosen by leaving out "
            "single patches, which is rather too weak for other cases."
        )
    if strongest := [label for label, fitted in maps.items() if fitted.is_strongest]:
        texts.append(
            f"The ridge of the linear map is the strongest of its grid for {', '.join(strongest)}: next to "
            "nothing of the teacher is mapped to other cases."
        )
    return texts


def at_bound(
    models: Sequence[StoreEmbeddings],
    overlap: dict[str, Interval],
    figures: dict[tuple[str, str], RowFigures],
    resamples: GroupResamples,
) -> list[str]:
    """The note on estimates of 0 or 1, for all but the teacher, whose are 1 by definition."""
    estimates = {
        m.label: [overlap[m.label], interval(mean_draws(figures[m.label, FITTED].top1, resamples))]
        for m in models
        if not m.is_teacher
    }
    return [note] if (note := bound_note(estimates)) else []


def provenance(store: StoredTeacher, models: Sequence[StoreEmbeddings]) -> list[str]:
    """Which other teachers there are, whether the held-out patches are really new to each model, and why a student's
    projector is not used.
    """
    name = store.spec.teacher["name"]
    others_of_store = [other for other in store.store.teachers if other != name]
    texts = [
        f"The store has embeddings of {other} too: `--teacher {other}` measures by them." for other in others_of_store
    ]
    teacher, plan = store.spec.teacher["weights_sha256"], store.attributes["plan_hash"]
    for model in models:
        named = model.named
        if why := named.why_no_projector(teacher):
            texts.append(why)
        if named.role == AFTER and named.plan_hash != plan:
            other = "another plan than the store's" if named.plan_hash else "a plan that its folder does not name"
            texts.append(f"{model.label} was trained on {other}: it may have seen the held-out patches.")
    if others := [model.label for model in models if not (model.is_teacher or model.named.role)]:
        texts.append(f"Whether {', '.join(others)} saw these slides in pretraining is not known here.")
    return texts
