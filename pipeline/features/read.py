"""Read a feature file of any tool: its features, and where its patches lie.

A file is offered to one tool after the other. All reading is behind `outside.reading`: whatever is wrong with a file
becomes one error that names it. What a tool says is checked here, once for all of them. Left out: embeddings of whole
slides.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError
from pipeline.base.outside import is_there, reading
from pipeline.config.feature_tools import tool_names
from pipeline.features.files import as_text, dataset_names, read_coords
from pipeline.features.layouts import MARK, changed_since
from pipeline.features.registry import all_tools
from pipeline.features.tool import FeatureFile, PatchFacts

MOST_L0_PX = 2.0**40
"""Coordinates beyond this are none. Our choice: far above any slide, far below where whole numbers become inexact."""
BFLOAT16_BYTES = 2
"""Whole numbers of this size are refused as features: no tool that we know writes them, and bfloat16 is kept so."""
SIZES = ("patch_px", "side_l0_px", "side_um", "nominal_um", "downsample")
"""The facts that are sizes or ratios: above 0 and below `MOST_L0_PX` where they are known."""


@dataclass(frozen=True, eq=False)
class SlideFeatures:
    """The features of one slide, N patches.

    Attributes:
        features: float32 (N, D), all finite.
        coords: (N, 2) as the tool wrote them, (x, y): int64, or float64 if they are not stored as whole numbers; `None`
            where the file has none.
        encoder: the encoder's name as the tool wrote it, if it did.
    """

    features: NDArray[np.float32]
    coords: NDArray[np.int64] | NDArray[np.float64] | None
    encoder: str | None


@dataclass(frozen=True, eq=False)
class PlacedFeatures:
    """Features of one slide and where they lie, N patches.

    Attributes:
        features: float32 (N, D), all finite.
        coords: (N, 2) top left corners (x, y) as the tool wrote them: level-0 pixels, or um where `facts` says so.
        encoder: the encoder's name as the tool wrote it, if it did.
        facts: what the tool says of the patches.
    """

    features: NDArray[np.float32]
    coords: NDArray[Any]
    encoder: str | None
    facts: PatchFacts

    def coords_l0_px(self, slide_mpp: float) -> NDArray[np.int64]:
        """Corners in level 0 of a slide of `slide_mpp` um/px, rounded to whole pixels: int64 (N, 2)."""
        corners = self.coords / slide_mpp if self.facts.in_um else self.coords
        return np.rint(corners).astype(np.int64)


def read_features(path: Path) -> SlideFeatures:
    """The features of a slide from a file of any tool; (1, N, D) is taken as (N, D).

    Raises:
        BenchmarkError: the file cannot be read, holds no features, or features that are not (N, D), have no rows, or
            have rows with NaN or infinite values (how many); or it is one of `g2l embed` and not as that wrote it. The
            message names the file.
    """
    return _features_of(FeatureFile(path))


def read_facts(path: Path, coords_folder: Path | None = None) -> PatchFacts:
    """What a feature file, or what lies beside it, says of its patches.

    Args:
        coords_folder: where the files of coordinates are, for features that lie apart from them.

    Raises:
        BenchmarkError: what it says cannot be read, or is no size.
    """
    return _facts_of(FeatureFile(path), coords_folder)


def read_placed(path: Path, coords_folder: Path | None = None) -> PlacedFeatures:
    """Features of a slide with their places.

    Args:
        coords_folder: where the files of coordinates are, for features that lie apart from them.

    Raises:
        BenchmarkError: the file cannot be used: see `read_features`; it has no coordinates, or in an unknown unit, or
            another number of them.
    """
    file = FeatureFile(path)
    stored, facts = _features_of(file), _facts_of(file, coords_folder)
    coords = stored.coords if stored.coords is not None else facts.coords
    if coords is None:
        raise BenchmarkError(f"{path}: no coordinates in it nor beside it; --coords names the folder that has them")
    if coords.shape != (len(stored.features), 2):
        raise BenchmarkError(f"{path}: {len(stored.features)} rows of features, but coords of shape {coords.shape}")
    if coords.dtype.kind not in "fiu" or not (np.abs(coords.astype(np.float64)) < MOST_L0_PX).all():  # nor NaN
        raise BenchmarkError(f"{path}: coords are no places on a slide (NaN, infinite, beyond 2^40, or no numbers)")
    if not (facts.in_um or np.array_equal(coords, np.rint(coords))):
        raise BenchmarkError(f"{path}: coords are not whole pixels of level 0, and the file names no unit for them")
    return PlacedFeatures(stored.features, coords, stored.encoder, facts)


def _features_of(file: FeatureFile) -> SlideFeatures:
    """See `read_features`."""
    path = file.path
    with reading(path, "not a readable feature file", BenchmarkError):
        takers = (tool.read(file) for tool in all_tools() if path.suffix in tool.suffixes)
        raw = next((raw for raw in takers if raw is not None), None)
        if raw is None:
            held = ", ".join(dataset_names(path)) or "nothing"
            raise BenchmarkError(f"{path}: no features as {tool_names()} write them; it holds {held}")
        features = _checked_features(raw.values, path)
        coords = None if raw.coords is None else _checked_coords(raw.coords, len(features), path)
        if changed := changed_since(raw.mark, raw.values, raw.coords):
            raise BenchmarkError(
                f"{path}: damaged, or changed since g2l embed wrote it: the SHA-256 of {' and '.join(changed)} does "
                f"not match. Delete it and embed the slide again; if you meant the change, delete its mark, {MARK}"
            )
        return SlideFeatures(features, coords, as_text(raw.encoder))


def _facts_of(file: FeatureFile, coords_folder: Path | None) -> PatchFacts:
    """See `read_facts`."""
    path = file.path
    with reading(path, "what it says of its patches cannot be read", BenchmarkError):
        facts = _first_facts(file)
        if not facts.is_known and (apart := _coords_apart(path, coords_folder)):
            file.coords_path = apart
            facts = replace(_first_facts(file), coords=read_coords(apart))
        for name in SIZES:
            value = getattr(facts, name)
            if value is not None and not 0 < value < MOST_L0_PX:
                raise BenchmarkError(f"{path}: {name.removesuffix('_l0_px')} of its patches is {value:g}")
    return facts


def _first_facts(file: FeatureFile) -> PatchFacts:
    """The facts of the first tool that finds some of its own; unknown ones if none does."""
    for tool in all_tools():
        facts = tool.facts(file)
        if facts is not None:
            return replace(facts, layout=tool.name.lower())
    return PatchFacts()


def _coords_apart(path: Path, folder: Path | None) -> Path | None:
    """The file of coordinates that goes with a feature file; `None` if there is none."""
    places: Iterable[Path] = (
        place for tool in all_tools() if tool.coords_files for place in tool.coords_files(path, folder)
    )
    return next((place for place in places if is_there(place)), None)


def _checked_features(raw: NDArray[Any], path: Path) -> NDArray[np.float32]:
    """Raw features as float32 (N, D).

    Raises:
        BenchmarkError: see `read_features`.
    """
    if raw.dtype.kind not in "fiu":
        raise BenchmarkError(f"{path}: features of type {raw.dtype}, not numbers")
    if raw.dtype.kind in "iu" and raw.dtype.itemsize == BFLOAT16_BYTES:
        raise BenchmarkError(
            f"{path}: features of type {raw.dtype}. Are they the bits of bfloat16, which NumPy lacks? Write them as "
            "float32"
        )
    if raw.ndim == 3 and len(raw) == 1:
        raw = raw[0]
    if raw.ndim != 2:
        raise BenchmarkError(f"{path}: features of shape {raw.shape}; a row a patch is needed, (N, D)")
    if 0 in raw.shape:
        raise BenchmarkError(f"{path}: features of shape {raw.shape}: no patches")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is counted below
        features = np.ascontiguousarray(raw, dtype=np.float32)
    broken = int((~np.isfinite(features).all(axis=1)).sum())
    if broken:
        raise BenchmarkError(f"{path}: {broken} of {len(features)} rows have NaN or infinite values. Embed it again")
    return features


def _checked_coords(raw: NDArray[Any], num_rows: int, path: Path) -> NDArray[np.int64] | NDArray[np.float64]:
    """Raw coordinates as int64 or float64 (N, 2).

    Raises:
        BenchmarkError: they are not of this number of rows, or no numbers.
    """
    coords = raw[0] if raw.ndim == 3 and len(raw) == 1 else raw
    if coords.shape != (num_rows, 2):
        raise BenchmarkError(f"{path}: {num_rows} rows of features, but coords of shape {coords.shape}")
    if coords.dtype.kind not in "fiu":
        raise BenchmarkError(f"{path}: coords of type {coords.dtype}, not numbers")
    return coords.astype(np.int64) if coords.dtype.kind in "iu" else coords.astype(np.float64)
