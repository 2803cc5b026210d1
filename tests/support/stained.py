"""Pictures of stained tissue on glass, made by the law of Beer and Lambert, and where the tissue is."""

import numpy as np
from scipy import ndimage

from support.glass import GLASS

HEIGHT, WIDTH = 200, 260
Rgb = tuple[int, int, int]


def piece(y: float, x: float, radius_y: float, radius_x: float, seed: int = 0) -> np.ndarray:
    """A piece of tissue with an uneven outline: bool (HEIGHT, WIDTH)."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    uneven = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(HEIGHT, WIDTH)), 12) * 6
    return ((rows - y) / radius_y) ** 2 + ((columns - x) / radius_x) ** 2 + uneven < 1


def stain(image: np.ndarray, where: np.ndarray, colour: Rgb, unevenness: float = 0.4, seed: int = 0) -> np.ndarray:
    """The image with a stain, which on white glass has a colour, in some places: uint8 (H, W, 3).

    `unevenness` is the deviation of its density from place to place, as a share of the mean.
    """
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=where.shape), width) for width in (0.8, 2, 6)]
    uneven = sum((field / field.std() for field in fields), start=np.zeros(where.shape))
    density = np.clip(1 + unevenness * uneven / uneven.std(), 0.2, 3) * where
    light = np.exp(np.log(np.array(colour) / 243) * density[..., None])
    return (image * light).round().clip(0, 255).astype(np.uint8)


def glass(colour: Rgb = GLASS, noise: float = 1.0) -> np.ndarray:
    """Glass of a colour, with noise of some grey levels: uint8 (HEIGHT, WIDTH, 3)."""
    values = np.array(colour) + np.random.default_rng(5).normal(0, noise, (HEIGHT, WIDTH, 3))
    return values.round().clip(0, 255).astype(np.uint8)


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    """Area that both have over the area that either has."""
    return float((mask & truth).sum() / (mask | truth).sum())
