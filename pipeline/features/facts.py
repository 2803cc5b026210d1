"""Where the patches of a feature file lie: what TRIDENT, CLAM, STAMP and slide2vec say of coordinates and sizes.

| layout | side of a patch | coordinates |
|---|---|---|
| trident | `patch_size_level0`, on `coords` of the features or of `patches/{slide}_patches.h5` | level 0 |
| clam | `patch_size` * `downsample`, on `coords` of `patches/{slide}.h5` | level 0 |
| stamp | `tile_size_um`, on the file | um |
| slide2vec | `tile_size_lv0`, in `{slide}.meta.json` or `tiles/{slide}.coordinates.meta.json` | level 0 |

`patch_size_level0`, `tile_size_lv0` and CLAM's `patch_size` are whole numbers. Where they are the rounding of a length
that the file implies as well (`patch_size` at two magnifications; um; the mark of `g2l embed`), that length is taken.
TRIDENT rounds down: `patch_size * mag // target_mag`, 682 for 682.67 (`trident/wsi_objects/WSI.py`, read in 2026-11).
What it leaves out: STAMP before 2.0, which does not say the unit of its coordinates, and slide2vec's folders of several
annotations.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError
from pipeline.base.outside import is_there, parse_object, reading
from pipeline.features.files import read_attributes, read_beside, read_coords, read_features
from pipeline.features.layouts import MARK

UNKNOWN = "unknown"
HALF_PIXEL = 0.5
ROUNDING = 1e-6
"""A whole number within half a pixel of a length, and this, may be its rounding."""
MOST_L0_PX = 2.0**40
"""Coordinates beyond this are none. Our choice: far above any slide, far below where whole numbers become inexact."""
SIZES = ("patch_px", "side_l0_px", "side_um", "nominal_um", "downsample")
"""The facts that are sizes or ratios: above 0 and below `MOST_L0_PX` where they are known."""


@dataclass(frozen=True, eq=False)
class PatchFacts:
    """What a tool says of the patches of one slide; `None` where it does not.

    Attributes:
        layout: trident, clam, stamp, slide2vec or `UNKNOWN`.
        patch_px: side in pixels as the tool cut or resampled it, before the encoder's own resizing.
        side_l0_px, side_um: side in level-0 pixels, or in um: one of them.
        unit_l0_px: level-0 pixels that `side_l0_px` is a whole number of; 0 where it is not rounded.
        nominal_um: side in um that was asked for, of which `side_l0_px` may be the rounding.
        size_l0_px: (width, height) of the slide's level 0.
        level, downsample: the level that was read, and its level-0 pixels a pixel.
        coords: (N, 2), where they are not in the file of features.
    """

    layout: str = UNKNOWN
    patch_px: float | None = None
    side_l0_px: float | None = None
    side_um: float | None = None
    unit_l0_px: float = 1.0
    nominal_um: float | None = None
    size_l0_px: tuple[int, int] | None = None
    level: int | None = None
    downsample: float | None = None
    coords: NDArray[Any] | None = None

    @property
    def is_known(self) -> bool:
        """Whether the side of a patch is known."""
        return self.side_l0_px is not None or self.side_um is not None

    def side(self, slide_mpp: float, asked_um: float | None = None) -> float:
        """Side of a patch in level-0 pixels of a slide of `slide_mpp` um/px; not rounded.

        `asked_um` stands in for `nominal_um` where the tool does not say it.
        """
        assert self.is_known
        if self.side_um is not None:
            return self.side_um / slide_mpp
        assert self.side_l0_px is not None
        nominal = (self.nominal_um or asked_um or 0.0) / slide_mpp
        return nominal if _rounds_to(nominal, self.side_l0_px, self.unit_l0_px) else self.side_l0_px


@dataclass(frozen=True, eq=False)
class PlacedFeatures:
    """Features of one slide and where they lie, N patches.

    Attributes:
        features: float32 (N, D), all finite.
        coords: (N, 2) top left corners (x, y) as the tool wrote them: level-0 pixels, or um where `in_um`.
        in_um: the unit of `coords`.
        encoder: the encoder's name as the tool wrote it, if it did.
        facts: what the tool says of the patches.
    """

    features: NDArray[np.float32]
    coords: NDArray[Any]
    in_um: bool
    encoder: str | None
    facts: PatchFacts

    def coords_l0_px(self, slide_mpp: float) -> NDArray[np.int64]:
        """Corners in level 0 of a slide of `slide_mpp` um/px, rounded to whole pixels: int64 (N, 2)."""
        corners = self.coords / slide_mpp if self.in_um else self.coords
        return np.rint(corners).astype(np.int64)


def read_placed(path: Path, coords_folder: Path | None = None) -> PlacedFeatures:
    """Features of a slide with their places.

    Args:
        coords_folder: where the files of coordinates are, for features that lie apart from them (CLAM).

    Raises:
        BenchmarkError: the file cannot be used: see `read_features`; it has no coordinates, or in an unknown unit, or
            another number of them.
    """
    found, facts = read_features(path), read_facts(path, coords_folder)
    coords = found.coords if found.coords is not None else facts.coords
    if coords is None:
        raise BenchmarkError(f"{path}: no coordinates in it nor beside it; --coords names the folder that has them")
    if coords.shape != (len(found.features), 2):
        raise BenchmarkError(f"{path}: {len(found.features)} rows of features, but coords of shape {coords.shape}")
    in_um = facts.layout == "stamp"
    if coords.dtype.kind not in "fiu" or not (np.abs(coords.astype(np.float64)) < MOST_L0_PX).all():  # nor NaN
        raise BenchmarkError(f"{path}: coords are no places on a slide (NaN, infinite, beyond 2^40, or no numbers)")
    if not (in_um or np.array_equal(coords, np.rint(coords))):
        raise BenchmarkError(f"{path}: coords are not whole pixels of level 0, and the file names no unit for them")
    return PlacedFeatures(found.features, coords, in_um, found.encoder, facts)


def read_facts(path: Path, coords_folder: Path | None = None) -> PatchFacts:
    """What a feature file, or what lies beside it, says of its patches.

    Raises:
        BenchmarkError: what it says cannot be read, or is no size.
    """
    facts, marked = PatchFacts(), {}
    with reading(path, "what it says of its patches cannot be read", BenchmarkError):
        if path.suffix in (".pt", ".npz"):
            facts = _slide2vec(path)
        else:
            own = read_attributes(path)
            marked = {name: value for name, value in own[""].items() if name == MARK}
            facts = _stamp(own[""], path) if "feats" in own else _grid(own.get("coords", {}), own[""])
        if not facts.is_known and (beside := _coords_file(path, coords_folder)):
            of_coords = read_attributes(beside).get("coords", {})
            facts = replace(_grid(of_coords, marked), coords=read_coords(beside))
        for name in SIZES:
            value = getattr(facts, name)
            if value is not None and not 0 < value < MOST_L0_PX:
                raise BenchmarkError(f"{path}: {name.removesuffix('_l0_px')} of its patches is {value:g}")
    return facts


def _rounds_to(length: float, whole: float, unit: float) -> bool:
    """Whether `whole`, a whole number of units, may be the rounding of a length; all in level-0 pixels."""
    return abs(length - whole) <= HALF_PIXEL * unit + ROUNDING


def _rounds_down_to(length: float, whole: float) -> bool:
    """Whether `whole` is the whole part of a length; both in level-0 pixels."""
    return -ROUNDING <= length - whole < 1


def _number(attributes: dict[str, Any], name: str) -> float | None:
    """An attribute as a number: a pair, as CLAM writes for x and y, as its mean; `None` where it is not or empty."""
    value = attributes.get(name)
    return None if value is None or not np.size(value) else float(np.mean(value))


def _grid(coords: dict[str, Any], file: dict[str, Any]) -> PatchFacts:
    """TRIDENT's or CLAM's attributes of `coords`; Patho-Bench's readers look for TRIDENT's on the file, too."""
    attributes = file | coords
    patch_px, side_l0 = _number(attributes, "patch_size"), _number(attributes, "patch_size_level0")
    if side_l0 is not None:
        at_l0, target = _number(attributes, "level0_magnification"), _number(attributes, "target_magnification")
        unit = 1.0
        length = patch_px * at_l0 / target if patch_px and at_l0 and target else 0.0
        if length and (_rounds_to(length, side_l0, unit) or _rounds_down_to(length, side_l0)):
            side_l0, unit = length, 0.0
        width, height = attributes.get("level0_width"), attributes.get("level0_height")
        size = (int(width), int(height)) if width is not None and height is not None else None
        return PatchFacts("trident", patch_px, side_l0, unit_l0_px=unit, size_l0_px=size)
    downsample, level = _number(attributes, "downsample"), attributes.get("patch_level")
    if patch_px is None or downsample is None:
        return PatchFacts()
    at = None if level is None else int(level)
    facts = PatchFacts("clam", patch_px, patch_px * downsample, unit_l0_px=downsample, level=at, downsample=downsample)
    if MARK not in file:
        return facts
    settings = parse_object(file[MARK])["made_by"]["settings"]  # CLAM has no attribute for these two
    return replace(facts, patch_px=settings["patch_px"], nominal_um=settings["patch_px"] * settings["mpp"])


def _stamp(file: dict[str, Any], path: Path) -> PatchFacts:
    """STAMP's attributes of the file.

    Raises:
        BenchmarkError: they do not say that coordinates are in um.
    """
    if file.get("unit") != "um":
        raise BenchmarkError(f"{path}: STAMP's attribute unit is {file.get('unit')!r}, not 'um': coordinates unknown")
    return PatchFacts("stamp", _number(file, "tile_size_px"), side_um=_number(file, "tile_size_um"))


def _slide2vec(path: Path) -> PatchFacts:
    """slide2vec's description beside the features, else that beside the coordinates."""
    places = (
        (path.with_name(f"{path.stem}.meta.json"), ""),
        (path.parent.parent / "tiles" / f"{path.stem}.coordinates.meta.json", "tiling"),
    )
    for place, table in places:
        said = read_beside(place)
        said = said.get(table, {}) if table else said
        if (side := _number(said, "tile_size_lv0")) is not None:
            patch_px, mpp = _number(said, "requested_tile_size_px"), _number(said, "requested_spacing_um")
            return PatchFacts("slide2vec", patch_px, side, nominal_um=patch_px * mpp if patch_px and mpp else None)
    return PatchFacts()


def _coords_file(path: Path, folder: Path | None) -> Path | None:
    """The file of coordinates alone that goes with a feature file: TRIDENT's or CLAM's."""
    folders = [folder] if folder else [path.parent.parent / "patches", path.parent / "patches"]
    names = (f"{path.stem}_patches.h5", f"{path.stem}.h5")
    return next((place / name for place in folders for name in names if is_there(place / name)), None)
