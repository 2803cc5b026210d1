"""Glass of many colours, and pictures as they were on it."""

import numpy as np

GLASS, PINK = (243, 243, 242), (224, 158, 192)
TINTS = {
    "cream": (250, 240, 214),
    "yellow": (246, 228, 160),
    "bluish": (205, 224, 246),
    "greenish": (214, 240, 216),
    "faint": (245, 242, 230),
}
BACKGROUNDS = {
    "bluish grey": (130, 145, 165),
    "lilac": (225, 212, 245),
    "amber": (200, 160, 90),
    "cream": TINTS["cream"],
    "white": GLASS,
}
"""Dark, nearly pink, strongly tinted glass, and two that are none of these."""


STROMA = np.s_[10:40, 10:50]
"""Where the slide `stained` (tests/slides/conftest.py) has pale stroma."""


def on_glass(image: np.ndarray, tint: tuple[int, int, int]) -> np.ndarray:
    """The image as it were on glass of a colour: light passes both."""
    return (image.astype(float) * np.array(tint) / np.array(GLASS)).round().clip(0, 255).astype(np.uint8)


def with_noise(image: np.ndarray, deviation: float) -> np.ndarray:
    """The image with noise of each channel on its own, standard deviation in grey levels."""
    noise = np.random.default_rng(0).normal(0, deviation, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)
