"""Margins beside the robustness index, by the package croma: how far apart biology and centre are, not only which wins.

MaRI weighs the neighbours that the index counts by their distance; CRoMa compares, for each patch, the distances to its
nearest patches of its class from other centres and of other classes from its centre (Grisi et al., "A distributional
robustness margin for pathology foundation models", arXiv 2607.25497). Both and their intervals come from croma. This
module hands croma the data in an order that does not depend on the table's, and turns its warnings into notes. Where
croma gives 0.5 for a margin that does not exist, none is given here. Left out: croma's own count of the index, which
a test compares with ours.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from croma import CRoMa, MaRI
from croma.metrics.bootstrap import BootstrapCI, bootstrap_pooled_median, paired_cluster_bootstrap_delta
from numpy.typing import NDArray
from sklearn import config_context

from pipeline.base.devices import one_thread
from pipeline.evaluate.bootstrap import LEVEL
from pipeline.evaluate.directions import GRID_BITS, canonical_order, grid_directions
from pipeline.evaluate.robustness.index import Names
from pipeline.report.content import Interval

WORKING_MB = 256
"""Memory for distances in work, MB. Our choice: scikit-learn's 1,024 is a quarter of what an evaluation may take."""
MAX_CELLS = 10_000_000
"""Patches times neighbours that croma is asked to weigh. It needs 130 to 200 bytes for each; our choice: 2 GB."""
NAN = float("nan")
NOTHING = Interval(NAN, NAN, NAN)


@dataclass(frozen=True)
class Margins:
    """Margins of one model; NaN where there is none, and `notes` say why.

    Attributes:
        mari: the margin-aware index over all patches, 0 to 1.
        mari_median: MaRI of the median patch, with an interval over slides.
        croma: median margin, with an interval over slides; -1 to 1, above 0 biology is nearer. For sets of subsets the
            median of the subsets' medians.
        croma_tail: mean margin of the tenth of the patches with the smallest.
        croma_f0: share of the patches with a margin of 0 or less.
        counted: whether croma was asked.
    """

    mari: float = NAN
    mari_median: Interval = NOTHING
    croma: Interval = NOTHING
    croma_tail: float = NAN
    croma_f0: float = NAN
    notes: tuple[str, ...] = ()
    counted: bool = True


NOT_COUNTED = Margins(counted=False)


def robustness_margins(
    embeddings: NDArray[np.floating],
    classes: Names,
    centers: Names,
    slides: Names,
    subsets: Names | None,
    k: int,
    resamples: int,
    seed: int,
) -> Margins:
    """Margins of `embeddings` (N, D) with classes, centres, slides and subsets (N,), at `k` neighbours.

    At `k` some patch must have a neighbour that counts, as `RobustnessIndex.support` says. Takes minutes for 20,000
    patches.

    Raises:
        BenchmarkError: an embedding is not finite or zero.
    """
    parts = np.full(len(classes), "all") if subsets is None else subsets
    values = grid_directions(embeddings) / 2.0**GRID_BITS
    order = canonical_order(values, np.arange(len(values)), parts, slides, classes, centers)
    values = values[order]
    manifest = _manifest(*(column[order] for column in (classes, centers, slides, parts)))
    several = manifest["subset"].nunique() > 1
    if several and not _is_two_by_two(manifest):
        return Margins(notes=("no margins: croma takes subsets only if each is two classes by two centres, all four",))
    design = {"confounder_column": "center", "evaluation_design": "paired_2x2" if several else "all"}
    result = Margins()
    notes: list[str] = []
    with one_thread(), _heard(notes), config_context(working_memory=WORKING_MB):
        if len(values) * k <= MAX_CELLS:
            result = _with_mari(result, values, manifest, design, k, resamples, seed)
        else:
            notes.append(f"no MaRI: {len(values):,} patches with {k} neighbours each need too much memory in croma")
        try:
            result = _with_croma(result, values, manifest, design, resamples, seed)
        except RuntimeError as error:
            notes.append(f"no CRoMa: {error}")
    return replace(result, notes=tuple(dict.fromkeys(notes)))


def _manifest(classes: Names, centers: Names, slides: Names, subsets: Names) -> pd.DataFrame:
    """The table that croma reads; names become numbers, for it strips blanks from names."""
    columns = {"label": classes, "center": centers, "group_id": slides, "subset": subsets}
    codes = {name: np.unique(column, return_inverse=True)[1] for name, column in columns.items()}
    text = {name: [str(code) for code in column.tolist()] for name, column in codes.items()}
    rows = [str(row) for row in range(len(classes))]
    return pd.DataFrame({"sample_id": rows, "image_path": rows, **text})


def _is_two_by_two(manifest: pd.DataFrame) -> bool:
    """Whether each subset has two classes, two centres and all four combinations."""
    counts = [
        (part["label"].nunique(), part["center"].nunique(), len(part.drop_duplicates(["label", "center"])))
        for _, part in manifest.groupby("subset")
    ]
    return all(count == (2, 2, 4) for count in counts)


def _with_mari(
    margins: Margins,
    values: NDArray[np.float64],
    manifest: pd.DataFrame,
    design: dict[str, str],
    k: int,
    resamples: int,
    seed: int,
) -> Margins:
    """With MaRI; the temperature is croma's own choice for the model."""
    mari = MaRI.compute(values, manifest, k_candidates=[k], **design)
    groups = manifest["group_id"].to_numpy()[mari.occurrence_source_indices]
    median = bootstrap_pooled_median(mari.sample_values_aligned, groups, n_boot=resamples, level=LEVEL, seed=seed)
    return replace(margins, mari=mari.value, mari_median=_interval(median))


def _with_croma(
    margins: Margins,
    values: NDArray[np.float64],
    manifest: pd.DataFrame,
    design: dict[str, str],
    resamples: int,
    seed: int,
) -> Margins:
    """With CRoMa.

    Raises:
        RuntimeError: some patch lacks neighbours of either kind; croma then gives none at all.
    """
    croma = CRoMa.compute(values, manifest, **design)
    margin, rows = croma.sample_values_aligned, croma.occurrence_source_indices
    groups, parts = (manifest[name].to_numpy()[rows].astype(np.int64) for name in ("group_id", "subset"))
    # The median of the subsets' medians, which is the plain median for one subset, less one that is always 0.
    median = paired_cluster_bootstrap_delta(
        np.zeros_like(margin), margin, groups, subset_ids=parts, n_boot=resamples, level=LEVEL, seed=seed
    )
    return replace(margins, croma=_interval(median), croma_tail=croma.ltm_alpha, croma_f0=croma.f0)


def _interval(of_croma: BootstrapCI) -> Interval:
    return Interval(of_croma.point, of_croma.lo, of_croma.hi)


@contextmanager
def _heard(notes: list[str]) -> Iterator[None]:
    """Add to `notes` what croma warns of or logs in here, rather than show it."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append(f"croma: {record.getMessage()}")

    logger, listener = logging.getLogger("croma"), Listener(logging.WARNING)
    propagated = logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        logger.propagate = propagated
        logger.removeHandler(listener)
        notes += [f"croma: {warning.message}" for warning in caught]
