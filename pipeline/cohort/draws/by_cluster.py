"""Cut a cohort's candidate patches to what the uniform draw would take, with equal shares for clusters of tissue.

Candidates are those of a larger uniform draw. They are clustered by what they look like over the whole cohort; training
and held-out patches are then chosen apart, each as many as the uniform draw has. The result depends on all slides, so a
larger number does not contain a smaller one. Left out: clusters of an encoder's embeddings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.cohort.audit import AuditRow, split_column
from pipeline.cohort.draws.cluster_counts import counts_of_slide
from pipeline.cohort.draws.cluster_quotas import choose_evenly
from pipeline.cohort.draws.cluster_sheet import OF_EACH
from pipeline.cohort.draws.clusters import standardise_facts, two_levels
from pipeline.cohort.plan import SlidePlan
from pipeline.config.groups import Sampling
from pipeline.sampling import SPLIT_NAMES, patch_keys, sample_patches

WITHIN = 4
"""Clusters within a cluster. Our choice: 16 times 4 is fewer than the kinds of tissue that pathologists name."""
MOST_REFERENCE = 100_000
"""CohortCandidates that centres are found from, as many of each slide. Our choice: a second of one core."""
SLIDE_CAP = 2.0
"""Most patches of a slide, in those of the uniform draw. Our choice: no slide is all of a cluster."""
CASE_CAP = 1.5
"""The same of a case."""
LEFT_OUT = "no patch of it is in a cluster's share"


@dataclass(frozen=True)
class ClusterCut:
    """A cohort that was cut.

    Attributes:
        slides: with the patches that are taken, perhaps none.
        audit: of all slides that were read.
        table: of each cluster its number, candidates, patches taken, patches that the uniform draw takes, slides and
            cases among the candidates.
        examples: of each cluster, by its number, slide id and level-0 (x, y) of a few patches that are taken.
    """

    slides: list[SlidePlan]
    audit: list[AuditRow]
    table: list[tuple[int, int, int, int, int, int]]
    examples: dict[int, list[tuple[str, int, int]]]


@dataclass(frozen=True)
class CohortCandidates:
    """The candidates of all slides, N in all, slide by slide.

    Attributes:
        slides, cases: numbers of slide and case (N,), from 0.
        split: (N,), as in the plan.
        keys: (N,), which decide what is left to chance.
        uniform: (N,), whether the uniform draw takes it.
        reference: candidates that centres are found from.
        counts: candidates of each slide.
        num_cases: cases there are.
    """

    slides: NDArray[np.int64]
    cases: NDArray[np.int64]
    split: NDArray[np.uint8]
    keys: NDArray[np.uint64]
    uniform: NDArray[np.bool_]
    reference: NDArray[np.int64]
    counts: list[int]
    num_cases: int


def cut_by_cluster(
    slides: Sequence[SlidePlan], audit: Sequence[AuditRow], facts: Mapping[str, NDArray[np.uint16]], sampling: Sampling
) -> ClusterCut:
    """Choose among the candidates of slides.

    Args:
        slides: in the order of their ids, with all candidates.
        facts: of each slide, by its id, what describes its candidates, uint16 (N, D).
    """
    if not slides:
        return ClusterCut([], list(audit), [], {})
    candidates = _all_candidates(slides, sampling)
    values = standardise_facts(np.concatenate([facts[part.slide_id] for part in slides]), candidates.reference)
    clusters = two_levels(values, candidates.keys, candidates.reference, sampling.clusters, WITHIN)
    kept = _choose(candidates, clusters)
    parts, rows = list[SlidePlan](), {row.slide_id: row for row in audit}
    ends = np.cumsum(candidates.counts)[:-1]
    for part, mask, inside in zip(slides, np.split(kept, ends), np.split(clusters[:, 0], ends), strict=True):
        cut, counts = part.take(mask), counts_of_slide(inside, mask)
        split = split_column(cut.split)
        row = replace(rows[part.slide_id], patches_taken=len(cut.split), split=split, cluster_patches=counts)
        rows[part.slide_id] = row if mask.any() else row.with_reason(LEFT_OUT)
        parts.append(cut)
    coords = np.concatenate([part.coords_l0_px for part in slides])
    table, examples = [], dict[int, list[tuple[str, int, int]]]()
    for number in range(int(clusters[:, 0].max()) + 1):
        inside = clusters[:, 0] == number
        shown = np.flatnonzero(inside & kept)
        shown = shown[np.argsort(candidates.keys[shown], kind="stable")][:OF_EACH]
        ids = [slides[index].slide_id for index in candidates.slides[shown]]
        examples[number + 1] = [(name, x, y) for name, (x, y) in zip(ids, coords[shown].tolist(), strict=True)]
        table.append((number + 1, *_cluster_facts(candidates, inside, kept)))
    return ClusterCut(parts, [rows[row.slide_id] for row in audit], table, examples)


def _all_candidates(slides: Sequence[SlidePlan], sampling: Sampling) -> CohortCandidates:
    """The candidates of all slides."""
    counts = [len(part.split) for part in slides]
    of_slide = np.repeat(np.arange(len(slides)), counts)
    numbers = {case: index for index, case in enumerate(sorted({part.case_id for part in slides}))}
    keys, uniform, reference, start = [], [], [], 0
    for part in slides:
        own = patch_keys(f"cluster\0{part.slide_id}", part.coords_l0_px, sampling.seed)
        taken = sample_patches(part.slide_id, part.coords_l0_px, sampling.patches_per_slide, sampling.seed)
        few = np.argsort(own, kind="stable")[: max(MOST_REFERENCE // len(slides), 1)]
        keys.append(own)
        uniform.append(np.isin(np.arange(len(own)), taken))
        reference.append(start + np.sort(few))
        start += len(own)
    return CohortCandidates(
        slides=of_slide,
        cases=np.array([numbers[part.case_id] for part in slides])[of_slide],
        split=np.concatenate([part.split for part in slides]),
        keys=np.concatenate(keys),
        uniform=np.concatenate(uniform),
        reference=np.concatenate(reference),
        counts=counts,
        num_cases=len(numbers),
    )


def _choose(candidates: CohortCandidates, clusters: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which candidates are taken, (N,): of each split as many as the uniform draw takes."""
    kept = np.zeros(len(clusters), bool)
    for code in range(len(SPLIT_NAMES)):
        rows = np.flatnonzero(candidates.split == code)
        of_slide, of_case, wanted = candidates.slides[rows], candidates.cases[rows], candidates.uniform[rows]
        slide_room = SLIDE_CAP * np.bincount(of_slide[wanted], minlength=len(candidates.counts))
        case_room = CASE_CAP * np.bincount(of_case[wanted], minlength=candidates.num_cases)
        kept[rows] = choose_evenly(
            clusters[rows],
            of_slide,
            of_case,
            candidates.keys[rows],
            int(wanted.sum()),
            np.ceil(slide_room).astype(np.int64),
            np.ceil(case_room).astype(np.int64),
        )
    return kept


def _cluster_facts(
    candidates: CohortCandidates, inside: NDArray[np.bool_], kept: NDArray[np.bool_]
) -> tuple[int, int, int, int, int]:
    """A cluster's line of the table but its number."""
    numbers = (inside, inside & kept, inside & candidates.uniform)
    whole, taken, uniform = (int(mask.sum()) for mask in numbers)
    return whole, taken, uniform, len(np.unique(candidates.slides[inside])), len(np.unique(candidates.cases[inside]))
