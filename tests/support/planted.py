"""Tissue in cells of a grid, and what `--patch-qc` is to find, planted on it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from support.slides import make_pixels, write_slide

Rgb = NDArray[np.uint8]
GREEN_INK = (1.4, 0.5, 0.8)
"""Densities of red, green and blue."""
CELLS = (7, 8)
"""Rows and columns of patches of `planted_slide`."""
PLANTED = {3: "pen", 10: "out_of_focus", 24: "one_colour", 31: "no_tissue", 55: "duplicate", 2: "duplicate"}
"""By place in reading order; the duplicates are of place 1."""


def tissue_patches(patch_px: int, *, seed: int = 0) -> list[Rgb]:
    """Patches of tissue at 0.5 um/px, without glass."""
    pixels = make_pixels("tissue", 1600, 1600, seed=seed, mpp=0.5)
    cells = range(0, 1600 - patch_px + 1, patch_px)
    patches = [pixels[y : y + patch_px, x : x + patch_px] for y in cells for x in cells]
    return [patch for patch in patches if (patch.min(axis=2) < 225).mean() > 0.98]


def densities(pixels: Rgb) -> NDArray[np.float64]:
    return np.asarray(-np.log((pixels + 1.0) / 256))


def from_densities(values: NDArray[np.float64]) -> Rgb:
    return (256 * np.exp(-values) - 1).clip(0, 255).astype(np.uint8)


def with_pen(patch: Rgb, ink: tuple[float, ...] = GREEN_INK) -> Rgb:
    """A stroke of ink over the middle third."""
    values, third = densities(patch), len(patch) // 3
    values[third : 2 * third] += ink
    return from_densities(values)


def blurred(patch: Rgb, sigma_px: float) -> Rgb:
    return np.asarray(gaussian_filter(patch, (sigma_px, sigma_px, 0)))


def plant(kind: str, patch: Rgb, others: Mapping[int, Rgb]) -> Rgb:
    """A patch with what `kind` says; `others` are patches of the slide."""
    glass = np.random.default_rng(0).integers(240, 244, (*patch.shape[:2], 1)).astype(np.uint8).repeat(3, axis=2)
    return {
        "pen": lambda: with_pen(patch),
        "out_of_focus": lambda: blurred(patch, 2),
        "one_colour": lambda: np.full_like(patch, 200),
        "no_tissue": lambda: glass,
        "duplicate": lambda: others[1],
    }[kind]()


def planted_slide(path: Path, *, patch_px: int = 64, seed: int = 0, planted: Mapping[int, str] | None = None) -> Path:
    """A slide of one level at 0.5 um/px in which each cell is a patch, with what is `planted` there."""
    rows, columns = CELLS
    patches = dict(enumerate(tissue_patches(patch_px, seed=seed)[: rows * columns]))
    assert len(patches) == rows * columns
    cells = dict(patches)
    for place, kind in (PLANTED if planted is None else planted).items():
        cells[place] = plant(kind, patches[place], patches)
    lines = [np.concatenate([cells[y * columns + x] for x in range(columns)], axis=1) for y in range(rows)]
    return write_slide(path, np.concatenate(lines), mpp=0.5, downsamples=(1,))
