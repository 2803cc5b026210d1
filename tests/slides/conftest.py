"""Pictures that tests of tissue and of glass share."""

import numpy as np
import pytest
import support.slides as sf
from PIL import Image
from support.glass import STROMA


@pytest.fixture(scope="module")
def stained() -> np.ndarray:
    """A slide of tissue at 8 um/px, with pale stroma beside it and grain everywhere.

    The stroma has fibres: what is as smooth as glass and not pink on its glass counts as a second colour of glass.
    """
    pixels = Image.fromarray(sf.make_pixels("tissue", 4000, 3200, seed=3, mpp=0.5)).reduce(16)
    image, rng = np.asarray(pixels).astype(float), np.random.default_rng(0)
    image[STROMA] = (236, 206, 222)  # saturation 0.13; the least that may count as tissue is 0.12
    image[STROMA] += rng.normal(0, 4, (*image[STROMA].shape[:2], 1))
    image += rng.integers(-1, 2, (*image.shape[:2], 1))
    return image.round().clip(0, 255).astype(np.uint8)
