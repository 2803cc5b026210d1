"""Sections with the grain of tissue, and artefacts drawn on them."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from pipeline.slides.glass import Colour, brightest, find_glass

GLASS = np.array([243.0, 242.0, 241.0])
PIXEL_UM = 8.0


@dataclass(frozen=True)
class Section:
    """A thumbnail, where its tissue is, and its glass: what every rule for artefacts is given."""

    image: np.ndarray
    tissue: np.ndarray

    @property
    def known(self) -> np.ndarray:
        return np.asarray(brightest(self.image) >= 40)

    @property
    def glass(self) -> list[Colour]:
        return find_glass(self.image, self.known)

    def inked(self, densities: tuple[float, float, float], where: np.ndarray) -> "Section":
        """Ink of these densities over a part (H, W) of the slide: it multiplies the light."""
        light = self.image * np.exp(where[..., None] * -np.array(densities))
        return replace(self, image=light.round().astype(np.uint8))

    def with_image(self, image: np.ndarray) -> "Section":
        return replace(self, image=image.round().clip(0, 255).astype(np.uint8))

    def turned(self) -> "Section":
        return Section(np.rot90(self.image).copy(), np.rot90(self.tissue).copy())

    def arguments(self) -> tuple[np.ndarray, float, np.ndarray, np.ndarray, list[Colour]]:
        return self.image, PIXEL_UM, self.tissue, self.known, self.glass


def stained_section(stains: np.ndarray, seed: int = 0, size: tuple[int, int] = (384, 480)) -> Section:
    """Two stains (2, 3) in amounts that vary from pixel to pixel and over some cells, on white glass."""
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[: size[0], : size[1]]
    tissue = ((rows / size[0] - 0.5) / 0.42) ** 2 + ((columns / size[1] - 0.5) / 0.42) ** 2 < 1
    amounts = []
    for mean in (0.35, 0.5):
        coarse = ndimage.gaussian_filter(rng.normal(0, 1, size), 4) * 8
        amounts.append(mean * np.exp(0.3 * coarse + 0.3 * rng.normal(0, 1, size)))
    density = np.stack(amounts, axis=-1) @ stains * tissue[..., None]
    return Section((GLASS * np.exp(-density)).round().astype(np.uint8), np.asarray(tissue))


def stroke(shape: tuple[int, int], width_px: float) -> np.ndarray:
    """A curved stroke across the middle of the slide: bool (H, W)."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    middle = shape[0] * (0.5 + 0.08 * np.sin(columns / shape[1] * 6))
    return np.asarray(np.abs(rows - middle) <= width_px / 2)
