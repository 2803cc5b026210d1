"""Plan the patches for which another tool has made features: taken over as they are, not sampled.

A slide's features, their places and the slide itself are checked against each other; what does not fit fails the slide
by name, as in `g2l plan`. A patch's resolution is its side on the slide, as the tool says, over the side of the
encoder's input: a tool that cuts 256 pixels and lets the encoder shrink them to 224 sees a coarser image than it says.
Left out: tools that crop patches before they embed them, and tissue, which the tool has found.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError, G2LError, LimitError, StoreError
from pipeline.base.outside import reading
from pipeline.cohort.audit import AuditRow
from pipeline.cohort.manifest.rows import ManifestRow, row_split
from pipeline.cohort.plan import Plan, SlidePlan
from pipeline.config.groups import Resampling, Sampling
from pipeline.features.read import PlacedFeatures, read_placed
from pipeline.features.tool import UNKNOWN
from pipeline.sampling import SPLIT_NAMES, sample_patches
from pipeline.slides.geometry import PILLOW
from pipeline.slides.info import SlideInfo
from pipeline.slides.patch_sample import measure_patches
from pipeline.slides.read_again import read_patches
from pipeline.slides.reader import Slide, slide_failures

MPP_SPREAD = 1.25
"""How far the resolutions of two slides, or of a file and --mpp, may differ. Our choice: scanners of one nominal
magnification differ by a factor of up to 1.15 (0.22 to 0.25 um/px at 40x), a wrong level by 2 or more.
"""
OVERHANG_L0_PX = 1.0
"""A patch may reach over the slide's edge by this much: corners and sides are rounded. Our choice."""
DOWNSAMPLE_TOLERANCE = 1.01
"""How far a level's downsample, as the tool wrote it, may be off: some round it, some take the mean of both axes."""
MPP_DECIMALS = 9
"""Of a patch's um/px: far below what matters, far above the rounding of a few products."""
RUN_AGAIN = "Run the same command again"
OPEN_FILES = 2
"""Feature files whose rows are held at once: batches of rows span two slides at most, as a rule."""


@dataclass(frozen=True, eq=False)
class ImportedSlide:
    """A slide that was checked against its features.

    Attributes:
        audit: its audit row.
        slide: its part of the plan, unless it failed.
        features: its file of features, if it has one.
        digest: SHA-256 of features and coordinates; "" where it failed.
        layout, encoder: as the file says.
        centre: float64 (D,), the mean of its features; `None` where it failed.
        coords_apart: whether a file of coordinates was read beside the features.
        resampling: who reduced the patches that the features were made of, as the file says.
    """

    audit: AuditRow
    slide: SlidePlan | None = None
    features: Path | None = None
    digest: str = ""
    layout: str = UNKNOWN
    encoder: str | None = None
    centre: NDArray[np.float64] | None = None
    coords_apart: bool = False
    resampling: Resampling = PILLOW

    def failed(self, reason: str) -> "ImportedSlide":
        """The same slide, failed for a reason."""
        audit = replace(self.audit, status="failed", reason=reason, split="", patches_taken=0, pixel_bytes=None)
        return ImportedSlide(audit, features=self.features)

    def reduced_by(self, resampling: Resampling) -> "ImportedSlide":
        """The same slide, its patches reduced by another program where that can."""
        if self.slide is None:
            return self
        part = replace(self.slide, geometry=self.slide.geometry.reduced_by(resampling))
        return replace(self, slide=part, resampling=resampling)


@dataclass(frozen=True)
class Expected:
    """What the features of every slide must fit, and how many of them are taken.

    Attributes:
        teacher: the encoder that is said to have made them.
        patch_px: side of its input.
        width: dimension of its embedding; 0 if any.
        mpp: um/px of its input, if the options say so.
        allow_upsampling: whether slides more than 5 % coarser than their patches may be used.
        coords: the folder of coordinate files, if they lie apart.
        sampling: how many patches of a slide are taken, and which are held out.
    """

    teacher: str
    patch_px: int
    width: int
    mpp: float | None
    allow_upsampling: bool
    coords: Path | None
    sampling: Sampling


def look_at_slide(
    row: ManifestRow, slide_path: Path, features: Path, expected: Expected, num_measured: int = 1
) -> ImportedSlide:
    """Check a slide's features against the slide and the teacher; a failure is reported, never raised.

    `num_measured` patches are encoded, to estimate how many bytes pixels will take.
    """
    audit = AuditRow(row.slide_id, "ok", path=row.path, case_id=row.case_id, center=row.center or "")
    try:
        with reading(features, "features cannot be used", BenchmarkError):
            placed = read_placed(features, expected.coords)
            if expected.width and placed.features.shape[1] != expected.width:
                raise BenchmarkError(
                    f"{features}: {placed.features.shape[1]} dimensions; {expected.teacher} has {expected.width}"
                )
            slide = Slide(slide_path, row.mpp, mpp_overrides=row.mpp_overrides is not None)
            with slide_failures(slide_path):
                return _fit(row, slide, features, placed, expected, audit, num_measured)
    except LimitError:
        raise
    except G2LError as error:
        return ImportedSlide(replace(audit, status="failed", reason=str(error)), features=features)


def read_slide(row: ManifestRow, slide_path: Path, features: Path, expected: Expected, num_measured: int) -> None:
    """Read all of a slide that an import reads, and keep nothing: for a child process (`disk.at_hand`)."""
    looked = look_at_slide(row, slide_path, features, expected, num_measured)
    if looked.slide is not None:
        read_patches(slide_path, row.mpp, looked.slide.geometry, looked.slide.coords_l0_px)


def _fit(
    row: ManifestRow,
    slide: Slide,
    features: Path,
    placed: PlacedFeatures,
    expected: Expected,
    audit: AuditRow,
    num_measured: int,
) -> ImportedSlide:
    """The slide's part of the plan.

    Raises:
        BenchmarkError, SlideError: features and slide do not fit.
    """
    info = slide.info
    side_l0 = side_of_patches(placed, info, expected.mpp, expected.patch_px, features)
    target_mpp = round(side_l0 * info.mpp / expected.patch_px, MPP_DECIMALS)
    geometry = slide.geometry(expected.patch_px, target_mpp, allow_upsampling=expected.allow_upsampling)
    geometry = geometry.reduced_by(placed.facts.resampling)
    corners = placed.coords_l0_px(info.mpp)
    inside = _within(corners, side_l0, info, features)
    if len(np.unique(corners, axis=0)) < len(corners):
        twice = len(corners) - len(np.unique(corners, axis=0))
        raise BenchmarkError(
            f"{features}: {twice} of {len(corners)} coordinates occur twice; which patch do their features belong to?"
        )
    kept = corners[inside]
    coords = kept[np.lexsort((kept[:, 0], kept[:, 1]))]  # top to bottom, left to right
    sampling, split_name = expected.sampling, row_split(row, expected.sampling.val_fraction)
    coords = coords[sample_patches(row.slide_id, coords, sampling.patches_per_slide, sampling.seed)]
    split = np.full(len(coords), SPLIT_NAMES.index(split_name), np.uint8)
    over = len(corners) - len(kept)
    audit = replace(
        audit,
        reason=f"patches over the edge, left out: {over}" if over else "",
        split=split_name,
        **info.audit_facts(),
        level_read=geometry.level,
        patches_available=len(corners),
        patches_taken=len(coords),
        **measure_patches(slide, coords, geometry, num_measured).audit_facts(),
    )
    part = SlidePlan(
        row.slide_id,
        row.path,
        row.case_id,
        row.center,
        row.mpp,
        info.quickhash,
        info.size_l0_px,
        geometry,
        coords,
        split,
        dict(row.labels),
        slide.identity().record(),
        row.has_case,
    )
    facts, centre = placed.facts, placed.features.mean(axis=0, dtype=np.float64)
    of_features = digest(placed), facts.layout, placed.encoder, centre, facts.coords is not None, facts.resampling
    return ImportedSlide(audit, part, features, *of_features)


def side_of_patches(placed: PlacedFeatures, info: SlideInfo, mpp: float | None, patch_px: int, features: Path) -> float:
    """Side of the patches in level-0 pixels, not rounded: what the tool says, else what `mpp`, the option, says.

    If the tool gives a whole number of pixels that may be the rounding of --mpp, --mpp is taken.

    Raises:
        BenchmarkError: neither says, they contradict each other, or the tool describes another slide or level.
    """
    facts = placed.facts
    if facts.size_l0_px not in (None, info.size_l0_px):
        raise BenchmarkError(
            f"{features}: made of a slide of {facts.size_l0_px} pixels; this one has "
            f"{info.size_l0_px}. Is it another slide, or another level of it?"
        )
    if facts.level is not None and facts.downsample is not None:
        ratios = [known / facts.downsample for known in info.known_downsamples(facts.level)]
        if not any(1 / DOWNSAMPLE_TOLERANCE <= ratio <= DOWNSAMPLE_TOLERANCE for ratio in ratios):
            raise BenchmarkError(
                f"{features}: cut from level {facts.level} at downsample {facts.downsample:g}; the "
                f"slide's levels have {[round(d, 3) for d in info.downsamples]}"
            )
    if not facts.is_known:
        if mpp is None:
            raise BenchmarkError(
                f"{features}: it does not say how large its patches are. Say it with --mpp (um/px of "
                "the encoder's input)"
            )
        return patch_px * mpp / info.mpp
    side_l0 = facts.side(info.mpp, None if mpp is None else patch_px * mpp)
    file_mpp = side_l0 * info.mpp / patch_px
    if mpp is not None and _apart(file_mpp, mpp):
        raise BenchmarkError(
            f"{features}: its patches have {file_mpp:.4g} um/px at {patch_px} px; --mpp says {mpp:g}. A wrong level?"
        )
    return side_l0


def _apart(a: float, b: float) -> bool:
    """Whether two resolutions cannot be of one magnification."""
    return max(a / b, b / a) > MPP_SPREAD


def _within(corners: NDArray[np.int64], side_l0: float, info: SlideInfo, features: Path) -> NDArray[np.bool_]:
    """Which patches lie wholly on the slide: bool (N,). Tools pad those that reach over its right or lower edge.

    Raises:
        BenchmarkError: a corner lies outside the slide, or no patch lies wholly on it.
    """
    size = np.array(info.size_l0_px)
    outside = ((corners < 0) | (corners >= size)).any(axis=1)
    if outside.any():
        first = tuple(corners[outside][0].tolist())
        raise BenchmarkError(
            f"{features}: {int(outside.sum())} of {len(corners)} coordinates lie outside the slide of "
            f"{info.size_l0_px[0]} x {info.size_l0_px[1]} pixels (the first: {first})"
        )
    inside = np.asarray((corners + side_l0 <= size + OVERHANG_L0_PX).all(axis=1))
    if not inside.any():
        raise BenchmarkError(f"{features}: no patch of {side_l0:.0f} level-0 pixels lies wholly on the slide")
    return inside


def digest(placed: PlacedFeatures) -> str:
    """Hex SHA-256 of features and coordinates as they were read, whatever file they lie in."""
    total = hashlib.sha256(f"{placed.features.shape}".encode())
    total.update(np.ascontiguousarray(placed.features, "<f4").data)
    total.update(np.ascontiguousarray(placed.coords, "<f8").data)
    return total.hexdigest()


def refuse_other_levels(slides: Sequence[ImportedSlide], mpp: float | None) -> tuple[list[ImportedSlide], float]:
    """Fail the slides whose patches have another magnification than those of the others. Returns the slides and the
    plan's um/px: `mpp` where the user says it, else the median of the slides.
    """
    slide_mpps = sorted(s.slide.geometry.target_mpp for s in slides if s.slide is not None)
    plan_mpp = mpp or (float(slide_mpps[len(slide_mpps) // 2]) if slide_mpps else 1.0)
    checked = []
    for slide in slides:
        slide_mpp = slide.slide.geometry.target_mpp if slide.slide is not None else plan_mpp
        if _apart(slide_mpp, plan_mpp):
            reason = f"its patches have {slide_mpp:.4g} um/px, those of the other slides {plan_mpp:.4g}. A wrong level?"
            slide = slide.failed(f"{slide.features}: {reason}")
        checked.append(slide)
    return checked, round(plan_mpp, 6)


class FeatureRows:
    """The features of a plan's rows, read from their files; for one thread. `fills_store` says that a store has been
    begun, which records the files as they were: no other ones continue it.
    """

    def __init__(
        self, plan: Plan, slides: Mapping[str, ImportedSlide], coords_folder: Path | None, *, fills_store: bool = False
    ) -> None:
        self._plan, self._slides, self._coords_folder = plan, slides, coords_folder
        self._advice = "Put the file back as it was, or import into another --out" if fills_store else RUN_AGAIN
        self._slide_of_row = plan.slide_of_row()
        self._first_row = np.cumsum([0, *(len(s.coords_l0_px) for s in plan.slides)])
        self._open: OrderedDict[int, NDArray[np.float32]] = OrderedDict()

    def read(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """The features of some rows: float32 (B, D).

        Raises:
            StoreError: a file is no longer what was planned.
        """
        slides = [int(self._slide_of_row[row]) for row in rows]
        return np.stack([self._features(i)[row - self._first_row[i]] for row, i in zip(rows, slides, strict=True)])

    def _features(self, index: int) -> NDArray[np.float32]:
        """The features of a slide's rows, in the plan's order: float32 (n, D)."""
        if index not in self._open:
            self._open[index] = self._read(self._plan.slides[index])
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
        return self._open[index]

    def _read(self, slide: SlidePlan) -> NDArray[np.float32]:
        imported = self._slides[slide.slide_id]
        assert imported.features is not None
        placed = read_placed(imported.features, self._coords_folder)
        if digest(placed) != imported.digest:
            raise StoreError(f"{imported.features} has changed while it was imported. {self._advice}")
        corners = placed.coords_l0_px(slide.geometry.slide_mpp)
        order = {(x, y): i for i, (x, y) in enumerate(corners.tolist())}
        return placed.features[[order[x, y] for x, y in slide.coords_l0_px.tolist()]]


def where_slides_are(plan: Plan, slides: Mapping[str, ImportedSlide]) -> dict[str, Any]:
    """Where the slides of a plan and their features are, and the hash of these; for the processes that help."""
    places = {}
    for slide in plan.slides:
        imported = slides[slide.slide_id]
        assert imported.features is not None
        places[slide.slide_id] = [slide.path, str(imported.features.absolute()), imported.digest]
    return {"slides_root": str(plan.slides_root), "slides": places}


def describe_import(slides: Sequence[ImportedSlide], options: dict[str, Any]) -> dict[str, Any]:
    """What a store records of the files that it was made from, and of the `options` that decide the result; another
    import does not continue it.
    """
    ok = [s for s in slides if s.slide is not None]
    return {
        "layouts": sorted({s.layout for s in ok}),
        "encoders": sorted({s.encoder for s in ok if s.encoder}),
        "options": options,
        "features_sha256": {s.audit.slide_id: s.digest for s in ok},
    }
