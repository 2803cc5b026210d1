"""The plan: all slides, their patches, the order of rows and the split, decided in advance.

Rows are the patches of all slides by slide id, each slide's in reading order (top to bottom, left to right), so that
stage one reads each slide once, front to back. The plan's hash covers everything that decides the result, and nothing
else (paths, labels, file layout). `plan_records` has the plan as records, `plan_hdf5` as a file.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import PlanError
from pipeline.cohort.audit import AuditRow
from pipeline.config.plan import PlanConfig
from pipeline.disk.files import sha256_json
from pipeline.disk.objects.places import as_place, place_below
from pipeline.slides.annotations.patch_classes import PatchClasses
from pipeline.slides.geometry import PatchGeometry
from pipeline.slides.identity import SlideIdentity, hashes_pixels, identity_from_record

PLAN_VERSION = 1
MOST_REASONS = 10
"""Failed slides that an error lists. Our choice."""


@dataclass(frozen=True)
class SlidePlan:
    """The patches of one slide.

    Attributes:
        slide_id: the manifest's id.
        path: as in the manifest; relative paths start from `slides_root`.
        case_id, center: from the manifest.
        has_case: whether the manifest gave the case, else `case_id` is the slide's id; `None` in plans that do not say.
        manifest_mpp: um/px from the manifest, overriding the slide's.
        quickhash: OpenSlide's content hash, if the slide has one.
        size_l0_px: (width, height) of level 0.
        geometry: how its patches are read.
        coords_l0_px: int64 (N, 2), (x, y) of top left corners in level 0, in reading order.
        split: uint8 (N,), `sampling.TRAIN` or `VAL`.
        labels: other columns of the manifest.
        identity_facts: record of the slide's `SlideIdentity`, checked when the slide is read; `None` in plans of
            versions that kept none.
        classes: classes of the slide's annotations on its patches; `None` without annotations.
    """

    slide_id: str
    path: str
    case_id: str
    center: str | None
    manifest_mpp: float | None
    quickhash: str | None
    size_l0_px: tuple[int, int]
    geometry: PatchGeometry
    coords_l0_px: NDArray[np.int64]
    split: NDArray[np.uint8]
    labels: dict[str, str] = field(default_factory=dict)
    identity_facts: dict[str, Any] | None = None
    has_case: bool | None = None
    classes: PatchClasses | None = None

    @property
    def identity(self) -> SlideIdentity:
        """The slide's identity, as far as the plan records it."""
        return identity_from_record(self.identity_facts, self.quickhash, self.size_l0_px)

    def take(self, which: NDArray[Any]) -> "SlidePlan":
        """The slide with some of its patches only, by indices or by a mask."""
        classes = self.classes.take(which) if self.classes else None
        return replace(self, coords_l0_px=self.coords_l0_px[which], split=self.split[which], classes=classes)

    def content(self) -> dict[str, Any]:
        """The part of the plan's hash that covers this slide."""
        return self.facts_of_identity() | {
            "slide_id": self.slide_id,
            "case_id": self.case_id,
            "center": self.center,
            "manifest_mpp": self.manifest_mpp,
            "quickhash": self.quickhash,
            "size_l0_px": list(self.size_l0_px),
            "geometry": self.geometry.record(),
            "coords": hashlib.sha256(np.ascontiguousarray(self.coords_l0_px, "<i8").data).hexdigest(),
            "split": hashlib.sha256(np.ascontiguousarray(self.split).data).hexdigest(),
            **({"classes": classes.content()} if (classes := self.classes) else {}),
        }

    def facts_of_identity(self) -> dict[str, Any]:
        """The identity's record under its name; empty if there is none, as in earlier versions."""
        return {} if self.identity_facts is None else {"identity_facts": self.identity_facts}


@dataclass(frozen=True)
class PlannedSlides:
    """Slides whose patches are rows, in this order.

    Attributes:
        slides: slides with at least one row.
        slides_root: folder that relative paths start from.
    """

    slides: tuple[SlidePlan, ...]
    slides_root: Path

    @property
    def num_rows(self) -> int:
        """Number of patches, N."""
        return sum(len(s.split) for s in self.slides)

    def slide_of_row(self) -> NDArray[np.int32]:
        """Index into `slides` of every row; int32 (N,)."""
        return np.repeat(np.arange(len(self.slides), dtype=np.int32), [len(s.split) for s in self.slides])

    def case_of_row(self) -> NDArray[np.str_]:
        """The case of every row: (N,)."""
        return np.array([slide.case_id for slide in self.slides])[self.slide_of_row()]

    def cases_of(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.str_]:
        """The case of each of `rows` (M,): (M,). Of many rows `case_of_row` would take a name for each row of the
        plan.
        """
        ends = np.cumsum([len(slide.split) for slide in self.slides])
        of_row = np.searchsorted(ends, np.asarray(rows, np.int64), side="right")
        return np.array([slide.case_id for slide in self.slides])[of_row]

    def coords(self) -> NDArray[np.int64]:
        """Level-0 (x, y) of every row; int64 (N, 2)."""
        return np.concatenate([s.coords_l0_px for s in self.slides])

    def split(self) -> NDArray[np.uint8]:
        """Split code of every row; uint8 (N,)."""
        return np.concatenate([s.split for s in self.slides])

    def slide_path(self, slide: SlidePlan, slides_root: Path | None = None) -> Path:
        """Path of a slide's file; `slides_root` overrides the plan's. See `Manifest.slide_path`."""
        return place_below(slides_root or self.slides_root, slide.path)

    def places_beside(self, other: "PlannedSlides") -> dict[str, Any]:
        """Where the slides lie, as JSON types, for `at_places` of another plan of the same hash, which says nothing of
        places: the folder, and by their indices the paths that differ.
        """
        pairs = enumerate(zip(self.slides, other.slides, strict=True))
        paths = {str(index): own.path for index, (own, others) in pairs if own.path != others.path}
        return {"slides_root": str(self.slides_root), "paths": paths}

    def at_places(self, places: Mapping[str, Any]) -> Self:
        """These slides where `places_beside` says."""
        slides = list(self.slides)
        for index, path in places["paths"].items():
            slides[int(index)] = replace(slides[int(index)], path=path)
        return replace(self, slides=tuple(slides), slides_root=as_place(places["slides_root"]))

    def count(self, split: int) -> int:
        """Number of rows in a split."""
        return int(sum((s.split == split).sum() for s in self.slides))


@dataclass(frozen=True)
class Plan(PlannedSlides):
    """The whole plan: its slides in the order of their ids; see the module's docstring.

    Attributes:
        config: the options it was made with.
        audit: one row for each slide of the manifest that was read, in the order of their ids.
        budget: what its budget came to (`cohort.draws.budget`); `None` without one.
    """

    config: PlanConfig
    audit: tuple[AuditRow, ...]
    budget: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Plan({len(self.slides):,} slides, {self.num_rows:,} patches of {self.config.patch_px} px)"

    @property
    def mpp(self) -> float:
        """um/px of the patches; with `--tiling level0` the median over the slides, each of which has its own."""
        mpps = [slide.geometry.target_mpp for slide in self.slides]
        return float(np.median(mpps)) if self.config.tiling and mpps else self.config.mpp

    @property
    def resolution(self) -> str:
        """The resolution of the patches in words."""
        mpps = [slide.geometry.target_mpp for slide in self.slides]
        if not self.config.tiling or not mpps:
            return f"{self.config.mpp:g} um/px"
        least, most = f"{min(mpps):.4g}", f"{max(mpps):.4g}"
        return f"level 0 ({least if least == most else f'{least} to {most}'} um/px)"

    @property
    def hash(self) -> str:
        """Hex SHA-256 of everything that the plan decides."""
        return sha256_json(
            {"version": PLAN_VERSION, "config": self.config.deciding(), "slides": [s.content() for s in self.slides]}
            | ({} if self.budget is None else {"budget": self.budget})
        )

    def as_known_to(self, earlier: "Plan") -> "Plan":
        """This plan with the identities from an earlier plan for slides that are the same. Equal plans then have equal
        hashes, although the earlier version kept no identities or a file has been repaired since.
        """
        known = {slide.slide_id: slide for slide in earlier.slides}
        vendors = {row.slide_id: row.vendor for row in self.audit}
        slides = [
            replace(slide, identity_facts=before.identity_facts)
            if (before := known.get(slide.slide_id))
            and not before.identity.changes(
                replace(slide.identity, is_hash_of_pixels=hashes_pixels(vendors.get(slide.slide_id, "")))
            )
            else slide
            for slide in self.slides
        ]
        return replace(self, slides=tuple(slides))


def in_order(
    slides: Sequence[SlidePlan], audit: Sequence[AuditRow]
) -> tuple[tuple[SlidePlan, ...], tuple[AuditRow, ...]]:
    """The slides that have patches, and the audit of all, in the order of their ids, as a plan has them.

    Raises:
        PlanError: no slide has a patch.
    """
    kept = sorted((s for s in slides if len(s.coords_l0_px)), key=lambda s: s.slide_id)
    if not kept:
        reasons = "\n".join(f"  {row.slide_id}: {row.reason}" for row in list(audit)[:MOST_REASONS])
        more = f"\n  and {len(audit) - MOST_REASONS:,} more" if len(audit) > MOST_REASONS else ""
        raise PlanError(f"no slide has a patch to sample:\n{reasons}{more}")
    return tuple(kept), tuple(sorted(audit, key=lambda row: row.slide_id))
