"""The robustness section: do a model's embeddings follow the tissue, or the centre, scanner and stain it comes from?

Two evaluations, of which a set may allow one or both: the robustness index of PathoROB with the margins of croma, over
patches of several classes and centres; and plismbench's paired cosine and retrieval, over slides of the same tissue.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import Progress
from pipeline.base.errors import BenchmarkError
from pipeline.disk.files import sha256_file
from pipeline.disk.tables import unused_columns_note
from pipeline.evaluate.benchmark import Embeddings
from pipeline.evaluate.bootstrap import GroupResamples
from pipeline.evaluate.cka import cka_table, cka_with
from pipeline.evaluate.robustness.data import IndexRows, PairedRows, RobustnessSet
from pipeline.evaluate.robustness.index import MAX_K, robustness_index
from pipeline.evaluate.robustness.margins import NOT_COUNTED, Margins, robustness_margins
from pipeline.evaluate.robustness.pairs import PairedRobustness, paired_robustness
from pipeline.evaluate.robustness.ratio import RATIO_K, CenterRatio, ratio_tables
from pipeline.evaluate.robustness.sweep import SweptModel, sweep_model
from pipeline.evaluate.robustness.sweep_plan import SweepPlan
from pipeline.evaluate.robustness.sweep_tables import SWEEP_WHAT, sweep_data, sweep_notes, sweep_tables
from pipeline.evaluate.robustness.tables import (
    ScoredIndex,
    index_draws,
    index_notes,
    index_score,
    index_tables,
    paired_notes,
    paired_score,
    paired_tables,
)
from pipeline.report.content import Exclusion, Score, Section, Table

KEY = "robustness"


@dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep to be run: its plan, and on how many draws of cases."""

    plan: SweepPlan
    repeats: int


def robustness_section(
    robustness_set: RobustnessSet,
    embeddings: Embeddings,
    reference: str,
    exclusions: Sequence[Exclusion] = (),
    *,
    k: int | None,
    with_margins: bool,
    resamples: int,
    seed: int,
    sweep: Sweep | None = None,
) -> Section:
    """The robustness of models by label, whose `embeddings` (images, D) are of the set's `paths`.

    Args:
        reference: label of the model that the others are compared with.
        exclusions: images that were left out of the set before.
        k: neighbours of the index; `None`: chosen for each model.
        with_margins: also measure croma's margins.
        sweep: also measure what it costs that class and centre go together in training.

    Raises:
        BenchmarkError: embeddings are not finite or zero, or `k` is too large.
    """
    for label, values in embeddings.items():
        assert len(values) == len(robustness_set.paths), f"{label}: {len(values)} embeddings"
    parts: list[_Part] = []
    settings: dict[str, object] = {}
    if rows := robustness_set.index:
        of_slides = GroupResamples(rows.slides, resamples, seed)
        models, ratios = _score_index(rows, embeddings, of_slides, k=k, with_margins=with_margins, seed=seed)
        part = _index_part(rows, models, reference, of_slides, robustness_set.num_out_of_domain)
        parts.append(replace(part, tables=[*part.tables, *ratio_tables(ratios, reference, of_slides)]))
        chosen = f"chosen for each model of 1, 3, 5, 7, 9, 11, 21, 31, ... below {MAX_K}"
        settings |= {"k": k or chosen, "resamples": resamples, "seed": seed}
        settings |= {"croma": version("croma")} if with_margins else {}
    of_sweep, data, more = _sweep_part(sweep, embeddings, reference, resamples, seed)
    parts, settings = [*parts, *of_sweep], settings | more
    if pairs := robustness_set.paired:
        parts.append(_paired_part(pairs, _score_pairs(pairs, embeddings), reference))
    slides = slides_of_images(robustness_set)
    alike = cka_table(cka_with(embeddings, reference, slides, resamples, seed), reference, "slides")
    notes = [*chain.from_iterable(part.notes for part in parts)]
    notes += [*robustness_set.notes, *filter(None, [unused_columns_note(robustness_set.unused_columns)])]
    return Section(
        key=KEY,
        title="Robustness to centre, scanner and stain",
        what=" ".join(part.what for part in parts),
        basis={"images": len(robustness_set.paths), **dict(chain.from_iterable(part.basis.items() for part in parts))},
        tables=[*chain.from_iterable(part.tables for part in parts), *alike],
        scores=[*chain.from_iterable(part.scores for part in parts)],
        settings=settings,
        source={"file": str(robustness_set.path), "sha256": sha256_file(robustness_set.path)},
        exclusions=exclusions,
        notes=notes,
        data=data,
    )


@dataclass(frozen=True)
class _Part:
    """What one of the two evaluations adds to the section."""

    what: str
    basis: dict[str, int]
    tables: list[Table]
    scores: list[Score]
    notes: list[str]


def _index_part(
    rows: IndexRows, models: Sequence[ScoredIndex], reference: str, resamples: GroupResamples, num_out_of_domain: int
) -> _Part:
    """The robustness index."""
    score = index_score(rows, models, reference)
    return _Part(
        INDEX_WHAT,
        _index_basis(rows),
        index_tables(rows, models, reference, resamples),
        [score] if score else [],
        index_notes(num_out_of_domain, models, resamples.num_groups),
    )


def _sweep_models(sweep: Sweep, embeddings: Embeddings, resamples: int, seed: int) -> list[SweptModel]:
    """The sweep of every model, all on the same draws of cases."""
    names = np.array([f"{repetition:06d}" for repetition in range(sweep.repeats)])
    of_repeats = GroupResamples(names, resamples, seed)
    swept = []
    with Progress("sweep of class and centre", len(embeddings) * sweep.repeats, "repetitions") as progress:
        for label, values in embeddings.items():
            swept.append(sweep_model(label, values, sweep.plan, of_repeats, seed, progress.step))
    return swept


def _sweep_part(
    sweep: Sweep | None, embeddings: Embeddings, reference: str, resamples: int, seed: int
) -> tuple[list[_Part], dict[str, object], dict[str, object]]:
    """APD and nIPD, with what the section's data and settings gain; nothing without a sweep."""
    if sweep is None:
        return [], {}, {}
    models = _sweep_models(sweep, embeddings, resamples, seed)
    tables, notes = sweep_tables(sweep.plan, models, reference), sweep_notes(sweep.plan, models, sweep.repeats)
    settings = {"croma": version("croma"), "sweep": sweep.plan.schedule, "repetitions of the sweep": sweep.repeats}
    return [_Part(SWEEP_WHAT, {}, tables, [], notes)], {"sweep": sweep_data(sweep.plan, models)}, settings


def _paired_part(rows: PairedRows, paired: dict[str, PairedRobustness], reference: str) -> _Part:
    """Paired robustness."""
    first = next(iter(paired.values()))
    scores = [paired_score(paired, reference)]
    return _Part(PAIRED_WHAT, _paired_basis(rows, first), paired_tables(paired), scores, paired_notes(first))


INDEX_WHAT = (
    "The robustness index asks whether the patches that a model finds most alike share their biology or their medical "
    "centre. For every patch its k nearest patches of other slides are looked up (Euclidean distance of embeddings of "
    "length 1). Of these, SO counts those of the same class from another centre, OS those of another class from the "
    "same centre, and the index is SO / (SO + OS) over all patches, as PathoROB defines it. At 1 neighbours are found "
    "by biology, at 0 by centre; at 0.5 neither outweighs the other. Intervals are of 95 %, from a bootstrap over "
    "slides with neighbours and k held fixed."
)
PAIRED_WHAT = (
    "Paired robustness asks whether a place in the tissue is recognised when the same slide was scanned by another "
    "scanner or a neighbouring section was stained in another way, as plismbench defines it. For a pair of slides, the "
    "cosine is the mean over places of that between both patches of the place; the top-k accuracy is the share of "
    "patches whose counterpart is among the k nearest of all patches of both slides, the mean of both directions."
)


@contextmanager
def _named(label: str) -> Iterator[None]:
    """Put the model's label before an error that is raised inside."""
    try:
        yield
    except BenchmarkError as error:
        raise BenchmarkError(f"{label}: {error}") from None


def _score_index(
    rows: IndexRows, embeddings: Embeddings, resamples: GroupResamples, *, k: int | None, with_margins: bool, seed: int
) -> tuple[list[ScoredIndex], list[CenterRatio]]:
    """Index and margins of every model; and what counts for its ratio of class to centre."""
    models, ratios = [], []
    columns = (rows.classes, rows.centers, rows.slides, rows.subsets)
    with Progress("robustness index", len(embeddings), "models") as progress:
        for label, of_images in embeddings.items():
            values = of_images[rows.images]
            with _named(label):
                ratio = CenterRatio(label, *columns[:3])
                index = robustness_index(values, *columns, k=k, watch=ratio.see, watched=RATIO_K[-1])
            draws, margins = None, Margins() if with_margins else NOT_COUNTED
            if not np.isnan(index.value):
                draws = index_draws(index.same_class, index.same_center, resamples)
                if with_margins:
                    margins = robustness_margins(values, *columns, index.k, len(resamples), seed)
            models.append(ScoredIndex(label, index, margins, draws))
            ratios.append(ratio)
            progress.step()
    return models, ratios


def slides_of_images(robustness_set: RobustnessSet) -> NDArray[np.str_]:
    """The slide of each image of the set, (images,)."""
    by_image: dict[int, str] = {}
    for rows in (robustness_set.index, robustness_set.paired):
        if rows is None:
            continue
        by_image |= dict(zip(rows.images.tolist(), rows.slides.tolist(), strict=True))
    return np.array([by_image.get(image, "") for image in range(len(robustness_set.paths))], dtype=np.str_)


def _index_basis(rows: IndexRows) -> dict[str, int]:
    """What the index rests on."""
    basis = {
        "patches": len(np.unique(rows.images)),
        "slides": len(np.unique(rows.slides)),
        "classes": len(np.unique(rows.classes)),
        "centres": len(np.unique(rows.centers)),
    }
    if rows.subsets is not None and (num_subsets := len(np.unique(rows.subsets))) > 1:
        basis |= {"subsets": num_subsets, "patches counted": len(rows.images)}
    return basis


def _score_pairs(rows: PairedRows, embeddings: Embeddings) -> dict[str, PairedRobustness]:
    """Paired robustness of every model."""
    num_slides = len(np.unique(rows.slides))
    columns = (rows.slides, rows.places, rows.scanners, rows.stainings)
    paired = {}
    total = len(embeddings) * num_slides * (num_slides - 1) // 2
    with Progress("paired robustness", total, "pairs of slides") as progress:
        for label, values in embeddings.items():
            with _named(label):
                paired[label] = paired_robustness(values[rows.images], *columns, progress.step)
    return paired


def _paired_basis(rows: PairedRows, paired: PairedRobustness) -> dict[str, int]:
    """What the paired figures rest on."""
    return {
        "slides of the same tissue": len(np.unique(rows.slides)),
        "scanners": len(np.unique(rows.scanners)),
        "stainings": len(np.unique(rows.stainings)),
        "places": len(np.unique(rows.places)),
        "pairs of slides": len(paired.pairs),
    }
