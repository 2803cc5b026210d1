"""Keep the patches of a grid by the classes of the slide's annotations, and draw a sample of them.

Both rules hold together: a patch must be on tissue, and within the classes. Left out: reading annotations
(`annotations.read`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import Source
from pipeline.config.class_rules import ClassRules, capitals_apart
from pipeline.config.groups import Grid, Sampling, TissueFiles
from pipeline.sampling import sample_patches
from pipeline.slides.annotations.patch_classes import CLASS_DECIMALS, PatchClasses
from pipeline.slides.annotations.quotas import class_of_patches, class_on_top, sample_by_class
from pipeline.slides.annotations.regions import Annotations
from pipeline.slides.annotations.tissue_geojson import doubts_of, tissue_from_file
from pipeline.slides.reader import Slide
from pipeline.slides.tissue_grid import TissueGrid, lay_grid


def eligible_grid(
    slide: Slide,
    slide_id: str,
    annotations: Annotations | None,
    grid: Grid,
    sampling: Sampling,
    tissue_files: TissueFiles,
) -> TissueGrid:
    """The patches that a slide's sample is drawn from: on tissue, found or read from its file, and in its classes.

    Raises:
        SlideError: the slide is too coarse, or its file of tissue cannot be used.
    """
    read_from = tissue_files.read_from
    if read_from is None:
        return within_classes(lay_grid(slide, grid), annotations, sampling)
    tissue, notes = tissue_from_file(slide, slide_id, read_from, tissue_files.origin)
    notes = (*notes, *doubts_of(tissue, tissue.pixel_l0_px * slide.info.mpp))
    return within_classes(lay_grid(slide, grid, tissue), annotations, sampling, notes)


def within_classes(
    grid: TissueGrid, annotations: Annotations | None, sampling: Sampling, notes: tuple[str, ...] = ()
) -> TissueGrid:
    """The grid with the classes of its patches, and without the patches that `sampling.classes` drops.

    `annotations` is `None` if the slide has none: it then has no patch of an included class, and nothing is excluded.
    `notes` are to be kept of how its tissue was read.
    """
    if annotations is None:
        return _without_annotations(grid, sampling, notes)
    rules = sampling.classes
    coords, side = grid.coords_l0_px, grid.geometry.patch_l0_px
    names = annotations.classes
    if not names:
        notes = (*notes, *_without_effect(sampling, "its annotations have no region"))
    shares = _rounded(annotations.fractions(names, coords, side)).astype(np.float32)
    kept, why_none = np.ones(len(coords), np.bool_), ""
    if rules.include:
        kept = _share_together(annotations, rules.include, coords, side) >= rules.min_class
        if not kept.any():
            why_none = _why_none("--include", rules.include, names, rules)
    if rules.exclude and kept.any():
        kept &= _share_together(annotations, rules.exclude, coords, side) <= rules.max_excluded
        if not kept.any():
            why_none = _why_none("--exclude", rules.exclude, names, rules)
    if names and not why_none:
        notes = (*notes, *_not_among(names, sampling))
    return replace(
        grid,
        coords_l0_px=coords[kept],
        tissue_fraction=grid.tissue_fraction[kept],
        classes=PatchClasses(names, shares[kept]),
        of_class=why_none if len(coords) else "",
        annotation_notes=(*notes, *annotations.notes),
    )


def source_of_notes(laid: TissueGrid, annotations: Annotations | None, tissue_from: Path | None) -> Source:
    """What of a slide its warnings are of, or that it has no patch."""
    if laid.of_class or (annotations and annotations.notes):
        return "annotations"
    if tissue_from and (laid.annotation_notes or not len(laid.coords_l0_px)):
        return "tissue"
    return "annotations" if laid.annotation_notes else "slide"


def _share_together(
    annotations: Annotations, names: Sequence[str], coords_l0_px: NDArray[np.int64], patch_l0_px: float
) -> NDArray[np.float64]:
    """Share of each patch's area in any of these classes: float64 (N,)."""
    return _rounded(annotations.fraction_in_any(names, coords_l0_px, patch_l0_px))


def _rounded(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of an area to `CLASS_DECIMALS`."""
    return np.clip(np.round(shares, CLASS_DECIMALS), 0, 1)


def _without_annotations(grid: TissueGrid, sampling: Sampling, notes: tuple[str, ...]) -> TissueGrid:
    """The grid of a slide without annotations: nothing of it if classes are to be included."""
    rules = sampling.classes
    if rules.include:
        why = f"the manifest gives it no annotations, and --include asks for {_listed(rules.include)}"
        none = np.zeros(len(grid.coords_l0_px), np.bool_)
        return replace(
            grid, coords_l0_px=grid.coords_l0_px[none], tissue_fraction=grid.tissue_fraction[none], of_class=why
        )
    notes = (*notes, *_without_effect(sampling, "it has no annotations"))
    return replace(grid, annotation_notes=notes) if notes else grid


def _without_effect(sampling: Sampling, why: str) -> Iterator[str]:
    """What the options ask for and a slide without classes cannot do."""
    if sampling.classes.exclude:
        yield f"{why}, so --exclude drops nothing"
    if sampling.method == "class":
        yield f"{why}, so its sample is uniform"


def _not_among(present: Sequence[str], sampling: Sampling) -> Iterator[str]:
    """What options ask for of classes that the slide does not have among its own: those that only capitals set apart,
    and quotas of none of them.
    """
    rules = sampling.classes
    for name, flag in rules.named.items():
        if name not in present and (other := capitals_apart(name, present)):
            yield f"{flag} {name}: its annotations have no such class{other}"
    quotas = {name for name, _ in rules.quotas}
    if sampling.method == "class" and quotas and quotas.isdisjoint(present):
        yield f"its annotations have no class of --class-quota, so its sample is uniform; they have {_listed(present)}"


def _why_none(flag: str, names: Sequence[str], present: Sequence[str], rules: ClassRules) -> str:
    """Why a rule left no patch on tissue."""
    if not set(names) & set(present):
        has = f"they have {_listed(present) or 'no class at all'}"
        capitals = any(capitals_apart(name, present) for name in names)
        return f"its annotations have no {_listed(names)} ({flag}); {has}{', and capitals count' if capitals else ''}"
    if flag == "--include":
        return f"no patch on tissue has {rules.min_class:.0%} of its area in {_listed(names)} (--include, --min-class)"
    return f"every patch left has more than {rules.max_excluded:.0%} of its area in {_listed(names)} (--exclude)"


def _listed(names: Sequence[str]) -> str:
    """Names of classes, in words."""
    return ", ".join(names)


def sample_on_grid(
    slide_id: str, coords_l0_px: NDArray[np.int64], classes: PatchClasses | None, sampling: Sampling
) -> NDArray[np.int64]:
    """Indices of the sample of a slide's (N, 2) patches, ascending.

    With `--sample class` and without quotas, the classes that any of the patches is of have equal shares.
    """
    if sampling.method == "uniform" or classes is None:
        return sample_patches(slide_id, coords_l0_px, sampling.patches_per_slide, sampling.seed)
    rules = sampling.classes
    quotas = rules.quotas or tuple((name, 1.0) for name in classes.names)
    fractions = classes.of([name for name, _ in quotas])
    of_patch = (class_on_top if rules.is_smaller_on_top else class_of_patches)(fractions, rules.min_class)
    shares = [share for _, share in quotas]
    return sample_by_class(slide_id, coords_l0_px, of_patch, shares, sampling.patches_per_slide, sampling.seed)
